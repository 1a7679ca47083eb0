"""A bare client of HTTP/2: one connection, and the calls of gRPC on it. A step costs it less than it costs any server.

It takes for granted that the server is sound. What is sent in one turn of the event loop is written at once.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

import hpack

from tidegate.http2 import call_fields, frames
from tidegate.http2.frames import HEAD, HEAD_AND_PREFIX, U32

HOST = "127.0.0.1"
PREFIX = 5  # bytes of a message before its own
WINDOW = 2**22  # bytes that the server may send before it gets credit for them
# No block of header fields needs one that came before, so that only those are read that end a call.
BEGIN = (
    frames.PREFACE
    + frames.settings({frames.TABLE_SIZE: 0, frames.ENABLE_PUSH: 0, frames.INITIAL_WINDOW: WINDOW})
    + frames.credit(0, WINDOW - frames.WINDOW)
)


class StreamEndedError(ConnectionError):
    """The server ended the call, or the connection."""


def trusting(ca: str) -> ssl.SSLContext | None:
    """What a connection to a server with this certificate needs; None if there is none, and no TLS."""
    if not ca:
        return None
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    return context


class Plain(asyncio.Protocol):
    """A connection."""

    def __init__(self, *, secure: bool = False) -> None:
        self.room = frames.WINDOW  # bytes of messages that the server takes now
        self.first_room = frames.WINDOW  # and of a call that begins
        self.blocked = set["Call"]()  # calls with bytes that wait for room
        self._secure = secure
        self._calls: dict[int, Call] = {}
        self._rest = b""  # a frame that is not whole
        self._owed = 0  # bytes that came, for which the server has no credit yet
        self._out: list[bytes] = []
        self._gathers = False  # whether `_out` is written later in this turn
        self._error: Exception | None = None

    @classmethod
    async def connect(cls, port: int, tls: ssl.SSLContext | None = None) -> "Plain":
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(lambda: cls(secure=tls is not None), HOST, port, ssl=tls)
        return made

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 # uvloop's is no asyncio.Transport
        self._transport = transport
        self._port = transport.get_extra_info("peername")[1]
        transport.write(BEGIN)

    def begin(self, path: str) -> "Call":
        """Another call; `path` is its method."""
        encoder = hpack.Encoder()
        encoder.header_table_size = 0  # nothing is indexed
        block = encoder.encode(call_fields.request(path, f"{HOST}:{self._port}", (), self._secure))
        number = 2 * len(self._calls) + 1
        call = self._calls[number] = Call(self, number)
        self.write(frames.header_frames(number, block, 0, frames.FRAME_SIZE))
        if self._error is not None:
            call.fail(self._error)
        return call

    def write(self, data: bytes) -> None:
        if self._gathers:
            self._out.append(data)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._gathers = True
        try:
            self._take(self._rest + data if self._rest else data)
        except Exception as error:  # noqa: BLE001 - whoever waits for an answer is to hear of it
            self._fail(error)
        self._gathers = False
        if self._out:
            self._transport.write(b"".join(self._out) if len(self._out) > 1 else self._out[0])
            self._out.clear()

    def _take(self, data: bytes) -> None:
        at, end, calls = 0, len(data), self._calls
        while end - at >= HEAD.size:
            high, low, kind, flags, stream = HEAD.unpack_from(data, at)
            begins = at + HEAD.size
            if begins + (high << 16 | low) > end:
                break
            at = begins + (high << 16 | low)
            if kind == frames.DATA and not flags:
                self._owed += at - begins
                calls[stream].took(data[begins:at])
            else:
                self._other(kind, flags, stream, data[begins:at])
        self._rest = data[at:]
        if self._owed >= WINDOW // 2:
            self.write(frames.credit(0, self._owed))
            self._owed = 0

    def _other(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """A frame that has no message, or not only one."""
        if kind == frames.DATA:
            self._owed += len(payload)
            self._calls[stream].took(frames.unpadded(flags, payload))
        elif kind == frames.WINDOW_UPDATE:
            self._credited(stream, U32.unpack(payload)[0])
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            self._set(payload)
        elif kind == frames.PING and not flags & frames.ACK:
            self.write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.HEADERS and flags & frames.END_STREAM:
            block = frames.unpadded(flags, payload)
            how = call_fields.ended({str(name): str(value) for name, value in hpack.Decoder().decode(block)})
            self._calls[stream].fail(StreamEndedError(f"the server ended the call: {how.status} {how.details}"))
        elif kind == frames.RST_STREAM:
            self._calls[stream].fail(StreamEndedError(f"the server reset the call with code {U32.unpack(payload)[0]}"))
        elif kind == frames.GOAWAY:
            self._fail(StreamEndedError(f"the server ends the connection: {payload!r}"))

    def _credited(self, stream: int, size: int) -> None:
        if stream == 0:
            self.room += size
            for call in tuple(self.blocked):
                call.push()
        else:
            call = self._calls[stream]
            call.room += size
            call.push()

    def _set(self, payload: bytes) -> None:
        for key, value in frames.SETTING.iter_unpack(payload):
            if key == frames.INITIAL_WINDOW:
                more, self.first_room = value - self.first_room, value
                for call in self._calls.values():
                    call.room += more
                    call.push()
        self.write(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(StreamEndedError(f"the connection was lost: {error}"))

    def _fail(self, error: Exception) -> None:
        self._error = error
        for call in self._calls.values():
            call.fail(error)


class Call:
    """Sends messages. `heard` is called with each one that no `next` waits for, `ended` once when no more will come."""

    def __init__(self, connection: Plain, number: int) -> None:
        self._kept = deque[bytes]()  # what came, until `heard` is another
        self.heard: Callable[[bytes], None] = self._kept.append
        self.ended: Callable[[Exception], None] = lambda _: None
        self.room = connection.first_room
        self._connection, self._number = connection, number
        self._unsent = bytearray()  # waits for room
        self._ends = False
        self._part = bytearray()  # a message that is not whole
        self._owed = 0
        self._next: asyncio.Future[bytes] | None = None
        self._error: Exception | None = None

    def send(self, message: bytes) -> None:
        """It leaves as far as the server has room."""
        connection, size = self._connection, PREFIX + len(message)
        if size <= self.room and size <= connection.room and size <= frames.FRAME_SIZE and not self._unsent:
            self.room -= size
            connection.room -= size
            connection.write(HEAD_AND_PREFIX.pack(0, size, frames.DATA, 0, self._number, 0, size - PREFIX) + message)
        else:
            self._unsent += b"\0" + len(message).to_bytes(4) + message
            self.push()

    def end(self) -> None:
        self._ends = True
        self.push()

    def push(self) -> None:
        """Sends what waits, as far as the server has room."""
        connection = self._connection
        while (size := min(len(self._unsent), self.room, connection.room, frames.FRAME_SIZE)) > 0:
            connection.write(frames.frame(frames.DATA, 0, self._number, bytes(self._unsent[:size])))
            del self._unsent[:size]
            self.room -= size
            connection.room -= size
        if self._unsent:
            connection.blocked.add(self)
            return
        connection.blocked.discard(self)
        if self._ends:
            self._ends = False
            connection.write(frames.frame(frames.DATA, frames.END_STREAM, self._number))

    async def next(self) -> bytes:
        """The next message. Raises StreamEndedError."""
        if self._kept:
            return self._kept.popleft()
        if self._error is not None:
            raise self._error
        self._next = asyncio.get_running_loop().create_future()
        return await self._next

    async def ask(self, message: bytes) -> bytes:
        """Sends one message and waits for the next. Raises StreamEndedError."""
        self.send(message)
        return await self.next()

    def took(self, data: bytes) -> None:
        """What came of messages, which are mostly alone in a frame and whole."""
        self._owed += len(data)
        if self._owed >= WINDOW // 2:
            self._connection.write(frames.credit(self._number, self._owed))
            self._owed = 0
        if not self._part and PREFIX + int.from_bytes(data[1:PREFIX]) == len(data):
            self._deliver(data[PREFIX:])
            return
        self._part += data
        while len(self._part) >= PREFIX and len(self._part) >= PREFIX + (size := int.from_bytes(self._part[1:PREFIX])):
            message = bytes(self._part[PREFIX : PREFIX + size])
            del self._part[: PREFIX + size]
            self._deliver(message)

    def _deliver(self, message: bytes) -> None:
        if self._next is None:
            self.heard(message)
            return
        waiting, self._next = self._next, None
        if not waiting.done():
            waiting.set_result(message)

    def fail(self, error: Exception) -> None:
        if self._error is not None:
            return
        self._error = error
        if self._next is not None and not self._next.done():
            self._next.set_exception(error)
        self.ended(error)
