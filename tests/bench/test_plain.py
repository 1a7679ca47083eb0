"""The client of the loads: what it says to servers, and what it makes of what they say."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from bench.client.plain import BEGIN, WINDOW, Plain, StreamEndedError, trusting
from bench.client.traffic import METHOD
from bench.rivals.echo import METHOD as NAME
from bench.rivals.echo import SERVICE
from server.edge.certificates import Certificates
from server.edge.http2.limits import Limits
from server.edge.http2.server import Http2Server, Options
from tests.security.certificates import Authority
from tidegate.http2 import frames

LARGE = b"large" * 2**20  # more than any window


async def echo(_: object, call: Any) -> None:  # noqa: ANN401 # a call of either server
    while (message := await call.read()) is not grpc.aio.EOF:
        if message == b"refuse":
            await call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "that is enough")
        await call.write(message)


HANDLER: "grpc.RpcMethodHandler[Any, Any]" = grpc.stream_stream_rpc_method_handler(echo)
HANDLERS = (grpc.method_handlers_generic_handler(SERVICE, {NAME: HANDLER}),)


@asynccontextmanager
async def of_grpc() -> AsyncIterator[int]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers(HANDLERS)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(0)


@asynccontextmanager
async def ours(secure: Callable[[], ssl.SSLContext] | None = None) -> AsyncIterator[int]:
    server = Http2Server(Options(limits=Limits(message=2 * len(LARGE))))
    server.add_generic_rpc_handlers(HANDLERS)
    port = server.bind("127.0.0.1", 0)
    await server.start(secure)
    yield port
    await server.stop(0)


@pytest.mark.parametrize("server", [of_grpc, ours])
async def test_calls_of_one_connection_carry_messages_larger_than_any_window(server: Any) -> None:  # noqa: ANN401
    async with server() as port:
        connection = await Plain.connect(port)
        calls = [connection.begin(METHOD) for _ in range(3)]
        for call in calls:
            call.send(b"small")
            call.send(LARGE)
            call.send(b"")
        for call in calls:
            assert [await call.next() for _ in range(3)] == [b"small", LARGE, b""]
        connection.close()


@pytest.mark.parametrize("server", [of_grpc, ours])
async def test_an_ended_call_says_why_and_others_go_on(server: Any) -> None:  # noqa: ANN401
    async with server() as port:
        connection = await Plain.connect(port)
        refused, other = connection.begin(METHOD), connection.begin(METHOD)
        with pytest.raises(StreamEndedError, match="RESOURCE_EXHAUSTED that is enough"):
            await refused.ask(b"refuse")
        assert await other.ask(b"and you?") == b"and you?"
        connection.close()
        with pytest.raises(StreamEndedError, match="lost"):
            await other.next()
        with pytest.raises(StreamEndedError, match="lost"):
            await connection.begin(METHOD).next()


async def test_a_call_passes_over_tls_to_a_server_that_shows_the_certificate_it_is_told(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificates = Certificates(authority.files())
    async with ours(lambda: certificates.current.context) as port:
        connection = await Plain.connect(port, trusting(str(authority.file)))
        assert await connection.begin(METHOD).ask(LARGE) == LARGE
        connection.close()
        with pytest.raises(ssl.SSLError):
            await Plain.connect(port, trusting(str(Authority(tmp_path / "another").file)))


class Wire:
    """A transport that keeps what is written, each write on its own."""

    def __init__(self) -> None:
        self.written = list[bytes]()

    def get_extra_info(self, _: str) -> tuple[str, int]:
        return "127.0.0.1", 1

    def write(self, data: bytes) -> None:
        self.written.append(data)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def plain(wire: Wire) -> Plain:
    made = Plain()
    made.connection_made(wire)
    assert wire.written == [BEGIN]
    wire.written.clear()
    return made


def message(stream: int, data: bytes) -> bytes:
    return frames.frame(frames.DATA, 0, stream, b"\0" + len(data).to_bytes(4) + data)


def test_pings_and_settings_are_answered(plain: Plain, wire: Wire) -> None:
    acknowledged, own = (frames.frame(kind, frames.ACK, 0) for kind in (frames.SETTINGS, frames.PING))
    plain.data_received(frames.settings({}) + frames.frame(frames.PING, 0, 0, b"12345678") + acknowledged + own)
    assert wire.written == [acknowledged + frames.frame(frames.PING, frames.ACK, 0, b"12345678")]


def test_what_is_sent_in_answer_to_one_read_is_one_write(plain: Plain, wire: Wire) -> None:
    first, second = plain.begin(METHOD), plain.begin(METHOD)
    first.heard, second.heard = first.send, second.send
    wire.written.clear()
    plain.data_received(message(1, b"a") + message(3, b"b") + message(1, b"c"))
    assert wire.written == [message(1, b"a") + message(3, b"b") + message(1, b"c")]


def test_a_message_that_comes_in_pieces_is_heard_once_it_is_whole(plain: Plain) -> None:
    heard = list[bytes]()
    plain.begin(METHOD).heard = heard.append
    data = message(1, b"first")[frames.HEAD.size :] + message(1, b"second")[frames.HEAD.size :]
    pieces = b"".join(frames.frame(frames.DATA, 0, 1, data[at : at + 3]) for at in range(0, len(data), 3))
    for at in range(len(pieces)):
        plain.data_received(pieces[at : at + 1])
    assert heard == [b"first", b"second"]


def test_no_more_is_sent_than_a_server_has_room_for(plain: Plain, wire: Wire) -> None:
    plain.data_received(frames.settings({frames.INITIAL_WINDOW: 20}))
    call = plain.begin(METHOD)
    wire.written.clear()
    call.send(bytes(30))  # 35 bytes with what goes before a message
    assert sent(wire) == 20
    plain.data_received(frames.credit(0, 1_000))
    assert sent(wire) == 20, "the call has no room"
    plain.data_received(frames.settings({frames.INITIAL_WINDOW: 25}))
    assert sent(wire) == 25
    plain.data_received(frames.credit(1, 100))
    assert sent(wire) == 35
    call.send(bytes(30))
    assert sent(wire) == 70


def test_calls_share_the_room_of_their_connection(plain: Plain, wire: Wire) -> None:
    plain.data_received(frames.settings({frames.INITIAL_WINDOW: 10 * frames.WINDOW}))
    calls = plain.begin(METHOD), plain.begin(METHOD)
    wire.written.clear()
    for call in calls:
        call.send(bytes(frames.WINDOW - 5))
    assert sent(wire) == frames.WINDOW
    plain.data_received(frames.credit(0, 2 * frames.WINDOW))
    assert sent(wire) == 2 * frames.WINDOW


def sent(wire: Wire) -> int:
    """Bytes of messages."""
    data, size = b"".join(wire.written), 0
    while data:
        high, low, kind, _, _ = frames.HEAD.unpack_from(data)
        size += (high << 16 | low) * (kind == frames.DATA)
        data = data[frames.HEAD.size + (high << 16 | low) :]
    return size


def test_a_server_gets_credit_for_what_it_sent(plain: Plain, wire: Wire) -> None:
    plain.begin(METHOD).heard = lambda _: None
    wire.written.clear()
    for _ in range(WINDOW // 2 // frames.FRAME_SIZE):
        plain.data_received(message(1, bytes(frames.FRAME_SIZE - 5)))
    assert wire.written == [frames.credit(1, WINDOW // 2) + frames.credit(0, WINDOW // 2)]


def test_what_a_listener_raises_ends_the_calls_with_that(plain: Plain) -> None:
    ended = list[Exception]()

    def refuse(_: bytes) -> None:
        raise ValueError("not this")

    first, second = plain.begin(METHOD), plain.begin(METHOD)
    first.heard, first.ended, second.ended = refuse, ended.append, ended.append
    plain.data_received(message(1, b"this"))
    assert [str(error) for error in ended] == ["not this", "not this"]
