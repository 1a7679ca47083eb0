# ruff: noqa: ANN401 - stands in for gRPC, whose types are those of whoever calls
"""In place of gRPC: a channel for the real client, a context for the real server, and bytes that lie between them.

A message crosses only when the line lets it: `send` and `hear` say how many may, `held` that nothing crosses by itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from grpc.aio import AioRpcError, Metadata

from server.edge.native.requests import reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.simulation.world import Server

EVERY = 10**9


class Context:
    """What a servicer takes for gRPC's context."""

    def __init__(self, line: Line | None, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self._line = line
        self._metadata = metadata

    async def read(self) -> Any:
        assert self._line is not None
        return await self._line.server_reads()

    async def write(self, message: bytes) -> None:
        assert self._line is not None
        self._line.server_writes(message)

    def peer(self) -> str:
        return "ipv4:10.0.0.1:1"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Any = ()) -> NoReturn:
        raise AioRpcError(code, Metadata(), Metadata.from_tuple(tuple(trailing_metadata)), details)


class Line:
    """One stream of one client to one server, and the call that the client holds."""

    def __init__(self, server: Server, requests: AsyncIterator[Any], codec: Codec, held: bool) -> None:
        self.server = server
        self._codec = codec
        self._limit = server.settings.max_message_bytes
        self._to_server: deque[bytes] = deque()
        self._to_client: deque[bytes] = deque()
        self._may_send, self._may_hear = (0, 0) if held else (EVERY, EVERY)
        self._said_all = False
        self._over: AioRpcError | None = None  # why the client's side is at its end
        self._ended = False  # the server has said its last word
        self._waiting: list[asyncio.Future[None]] = []
        self._pump = asyncio.create_task(self._take(requests))
        self.serving = asyncio.create_task(self._serve(server))
        self.unnoticed = False

    # What a schedule does.

    def hold(self) -> None:
        self._may_send = self._may_hear = 0

    def flow(self) -> None:
        self.send(EVERY)
        self.hear(EVERY)

    def send(self, messages: int) -> None:
        self._may_send += messages
        self._stir()

    def hear(self, messages: int) -> None:
        self._may_hear += messages
        self._stir()

    def cut(self, *, noticed: bool) -> None:
        """The connection is gone. The client notices; the server does, or does not."""
        self._break("the connection is cut")
        self.unnoticed = not noticed
        if noticed:
            self.serving.cancel()

    def be_noticed(self) -> None:
        """The server finds out, if it has not."""
        if self.unnoticed:
            self.serving.cancel()

    # The server's side.

    async def _serve(self, server: Server) -> None:
        context = Context(self, self._codec.metadata)
        try:
            await server.servicer.stream.stream_stream(None, context)
        except AioRpcError as error:
            self._over = self._over or error
        finally:
            self._ended = True
            self._stir()

    async def server_reads(self) -> Any:
        await self._until(lambda: bool(self._to_server) or (self._said_all and not self.unnoticed))
        if not self._to_server:
            return grpc.aio.EOF
        return reader(self._limit)(self._to_server.popleft())

    def server_writes(self, message: bytes) -> None:
        if self._over is None:
            self._to_client.append(message)
            self._stir()

    # The client's side: a call of grpc.aio.

    async def _take(self, requests: AsyncIterator[Any]) -> None:
        """Takes a request when it may go, as gRPC does: what waits meanwhile may be bundled."""
        while self._over is None:
            await self._until(lambda: self._may_send > 0)
            request = await anext(requests, None)
            if request is None:
                self._said_all = True
                self._stir()
                return
            self._may_send -= 1
            self._to_server.append(self._codec.write(request))
            self._stir()

    def __aiter__(self) -> Line:
        return self

    async def __anext__(self) -> Any:
        await self._until(self._hears)
        if self._to_client and self._may_hear:
            self._may_hear -= 1
            return self._codec.read(self._to_client.popleft())
        if self._over is not None:
            raise self._over
        raise StopAsyncIteration

    def _hears(self) -> bool:
        if self._to_client:
            return self._may_hear > 0
        return self._over is not None or (self._ended and self._may_hear > 0)

    def cancel(self) -> bool:
        self._break("cancelled", grpc.StatusCode.CANCELLED)
        self.serving.cancel()
        return True

    def done(self) -> bool:
        return self._over is not None or self._ended

    def _break(self, why: str, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        if self._over is None and not self._ended:
            self._over = AioRpcError(code, Metadata(), Metadata(), why)
        self._to_server.clear()
        self._to_client.clear()
        self._pump.cancel()
        self._stir()

    # Waiting.

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            news = asyncio.get_running_loop().create_future()
            self._waiting.append(news)
            await news

    def _stir(self) -> None:
        waiting, self._waiting = self._waiting, []
        for news in waiting:
            if not news.done():
                news.set_result(None)


class Codec:
    """How a method's messages become bytes."""

    def __init__(
        self, write: Callable[[Any], bytes], read: Callable[[bytes], Any], metadata: tuple[tuple[str, str], ...]
    ) -> None:
        self.write = write
        self.read = read
        self.metadata = metadata


class Unreachable:
    """A stream that could not be made."""

    def __init__(self, why: str) -> None:
        self._error = AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata(), why)

    def __aiter__(self) -> Unreachable:
        return self

    async def __anext__(self) -> Any:
        raise self._error

    def cancel(self) -> bool:
        return False

    def done(self) -> bool:
        return True


class Channel:
    """One client's way to whichever server its balancer leads it to; `led_to` says which, None where none answers."""

    def __init__(self, home: int, led_to: Callable[[int], Server | None]) -> None:
        self.home = home  # the server that it is led to while that one serves
        self._led_to = lambda: led_to(self.home)
        self.held = False  # whether the next line is
        self.lines: list[Line] = []

    @property
    def line(self) -> Line | None:
        """The stream that the client has, if any."""
        return self.lines[-1] if self.lines and not self.lines[-1].done() else None

    def stream_stream(
        self, _path: str, *, request_serializer: Any, response_deserializer: Any, **_given: Any
    ) -> Callable[..., Any]:
        def call(requests: AsyncIterator[Any], metadata: tuple[tuple[str, str], ...] = ()) -> Line | Unreachable:
            server = self._led_to()
            if server is None:
                return Unreachable("nothing listens there")
            codec = Codec(request_serializer, response_deserializer, metadata)
            self.lines.append(Line(server, requests, codec, self.held))
            return self.lines[-1]

        return call

    def unary_unary(
        self, path: str, *, request_serializer: Any, response_deserializer: Any, **_given: Any
    ) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, **_given: Any) -> Any:
            server = self._led_to()
            if server is None:
                raise AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata(), "nothing listens there")
            return response_deserializer(await server.unary(path, request_serializer(request)))

        return call

    async def close(self) -> None:
        for line in self.lines:
            line.cancel()
