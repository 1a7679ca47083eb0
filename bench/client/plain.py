"""A connection with one stream of the contract, over bare HTTP/2: a client can have ten thousand of them.

It takes for granted that the server is sound.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from bench.attacks.frames import DATA, HEADERS, PING, PREFACE, RESET, SETTINGS, call, credit, frame
from tidegate.v1 import sequence_pb2 as pb

END_STREAM = ACK = 1
HEAD = 9  # bytes of a frame before its payload
PREFIX = 5  # bytes of a message before its own
OWED = 2**14  # bytes that were read, after which the server gets credit for them
LARGEST = 2**14  # bytes of a frame's payload
STREAM = 1


class StreamEndedError(ConnectionError):
    """The server ended the stream."""


class Plain(asyncio.Protocol):
    """Sends requests. `heard` is called with each response that no `ask` waits for, `ended` when no more will come."""

    def __init__(self) -> None:
        self.heard: Callable[[pb.StreamResponse], None] = lambda _: None
        self.ended: Callable[[StreamEndedError], None] = lambda _: None
        self._data = bytearray()  # frames that are not whole
        self._messages = bytearray()
        self._owed = 0
        self._next: asyncio.Future[pb.StreamResponse] | None = None

    @classmethod
    async def connect(cls, port: int) -> "Plain":
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(cls, "127.0.0.1", port)
        return made

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 # uvloop's is no asyncio.Transport
        self._transport = transport
        transport.write(PREFACE + frame(SETTINGS, 0, 0) + call(STREAM))

    def send(self, request: pb.StreamRequest) -> None:
        """At most 64 KiB between two responses: that much the server takes without saying so."""
        body = request.SerializeToString()
        message = b"\0" + len(body).to_bytes(4) + body
        self._transport.writelines(
            frame(DATA, 0, STREAM, message[at : at + LARGEST]) for at in range(0, len(message), LARGEST)
        )

    async def ask(self, request: pb.StreamRequest) -> pb.StreamResponse:
        """Sends a request and waits for the next response. Raises StreamEndedError."""
        self._next = asyncio.get_running_loop().create_future()
        self.send(request)
        return await self._next

    def close(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._data += data
        at = 0
        while len(self._data) - at >= HEAD:
            size = int.from_bytes(self._data[at : at + 3])
            if len(self._data) - at < HEAD + size:
                break
            self._frame(self._data[at + 3], self._data[at + 4], bytes(self._data[at + HEAD : at + HEAD + size]))
            at += HEAD + size
        del self._data[:at]

    def _frame(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == DATA:
            self._message(payload)
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self._transport.write(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind == RESET or (kind == HEADERS and flags & END_STREAM):
            self._fail("the server ended the stream")

    def _message(self, payload: bytes) -> None:
        self._messages += payload
        self._owed += len(payload)
        if self._owed >= OWED:
            self._transport.write(credit(0, self._owed) + credit(STREAM, self._owed))
            self._owed = 0
        while len(self._messages) >= PREFIX:
            size = int.from_bytes(self._messages[1:PREFIX])
            if len(self._messages) < PREFIX + size:
                break
            response = pb.StreamResponse.FromString(bytes(self._messages[PREFIX : PREFIX + size]))
            del self._messages[: PREFIX + size]
            self._deliver(response)

    def _deliver(self, response: pb.StreamResponse) -> None:
        waiting, self._next = self._next, None
        if waiting is not None and not waiting.done():
            waiting.set_result(response)
        else:
            self.heard(response)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the connection was lost: {error}")

    def _fail(self, why: str) -> None:
        if self._next is not None and not self._next.done():
            self._next.set_exception(StreamEndedError(why))
        self.ended(StreamEndedError(why))
