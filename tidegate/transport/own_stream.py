"""A stream over an HTTP/2 connection of its own, for asyncio: what came is entered in the turn of the loop it came in.

gRPC's own channel takes a message through several tasks and turns of the loop, which costs more than all else that a
client does for a step.
"""

import asyncio
import os
import ssl
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from socket import gaierror
from typing import Any, cast

import grpc

from tidegate.http2.call_fields import Ended
from tidegate.http2.client_call import ClientCall
from tidegate.transport.bundles import Bundler
from tidegate.transport.endpoint import Place
from tidegate.v1 import sequence_pb2 as pb

METHOD = "/tidegate.v1.Tidegate/Stream"
_CONNECT, _QUIET, _PATIENCE = 20.0, 20.0, 10.0  # seconds: to connect; without a byte until a ping; for its answer
_AT_ONCE = 16  # requests: the server computes those while this side makes the next ones
_GOODBYE = 1.0  # seconds that a connection has to be closed in order
_WRITTEN = 2**16  # bytes in one write, and a message
_CLOSED = "Socket closed"  # as gRPC says it

Headers = Sequence[tuple[str, str]]


class OwnStream(asyncio.Protocol):
    """One stream. `limit` says how many bytes of a message the server takes; 0: it has not said."""

    def __init__(self, place: Place, headers: Headers, limit: Callable[[], int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._place = place
        self._call = ClientCall(METHOD, place.authority, headers, place.tls is not None)
        self._outbox: SimpleQueue[pb.StreamRequest | None] = SimpleQueue()
        self._bundler = Bundler(self._outbox, limit)
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()  # the connection
        self._took: Callable[[pb.StreamResponse], bool]
        self._transport: asyncio.Transport | None = None
        self._full = self._will_flush = False
        self._timer: asyncio.TimerHandle | None = None
        self._heard = self._pinged = False

    # What a link wants of a stream ------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self._over.done()

    def put(self, request: pb.StreamRequest | None) -> None:
        """Sends a request, or with None the end of them, together with what else is put in this turn of the loop."""
        self._outbox.put(request)
        if self._outbox.qsize() >= _AT_ONCE:
            self._flush()
        elif not self._will_flush:
            self._will_flush = True
            self._loop.call_soon(self._flush)

    def hang_up(self) -> None:
        """Ends it in both directions."""
        self._call.cancel()
        self._end()

    async def read(self, took: Callable[[pb.StreamResponse], bool]) -> None:
        """Calls `took` with each response, until it says that no more are wanted or the stream has ended.

        Raises grpc.aio.AioRpcError: with another status than OK.
        """
        self._took = took
        try:
            await self._connect()
            await self._over
        finally:
            self._end()
            self._over.exception()  # it was raised, or something worse was
            if self._transport is not None:
                await asyncio.wait({self._gone}, timeout=_GOODBYE)
                self._transport.abort()

    # The connection ---------------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        connecting = self._loop.create_task(self._connected())
        try:
            await asyncio.wait({connecting, self._over}, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                await connecting
        finally:
            connecting.cancel()

    async def _connected(self) -> None:
        place, context = self._place, None if self._place.tls is None else self._place.tls.context()
        name = None if context is None else place.host
        try:
            async with asyncio.timeout(_CONNECT):
                await self._loop.create_connection(
                    lambda: self, place.host, place.port, ssl=context, server_hostname=name
                )
        except TimeoutError:
            raise _failed(Ended("UNAVAILABLE", f"no connection within {_CONNECT:g} s")) from None
        except OSError as error:
            raise _failed(Ended("UNAVAILABLE", _why(error))) from None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol; likewise below."""
        self._transport = cast("asyncio.Transport", transport)
        if self._over.done():
            self._transport.abort()
            return
        self._timer = self._loop.call_later(_QUIET, self._look)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            for message in self._call.receive(data):
                if self._over.done() or self._took(pb.StreamResponse.FromString(message)):
                    self._end()
                    return
        except Exception as error:  # noqa: BLE001 # `read` raises it
            if not self._over.done():
                self._over.set_exception(error)
            self._end()
        if self._call.ended is not None:
            self._end()
        elif not self._will_flush:
            self._flush()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._call.lost(_CLOSED if error is None else f"{_CLOSED}: {error}")
        self._end()
        self._gone.set_result(None)

    def _flush(self) -> None:
        self._will_flush = False
        if self._transport is None:
            return
        while not self._full:
            request = None if self._call.waits else self._bundler.left() or self._next()
            if request is not None:
                self._call.send(self._bundler.fill(request).SerializeToString())
            if self._call.ready > (0 if request is None else _WRITTEN):
                self._transport.write(self._call.to_send())
            if request is None:
                return

    def _next(self) -> pb.StreamRequest | None:
        if self._outbox.empty():
            return None
        request = self._outbox.get_nowait()
        if request is None:
            self._call.end()
        return request

    def _look(self) -> None:
        """Asks for a sign of life from a server that is quiet, and gives it up without one."""
        if self._pinged and not self._heard:
            self._call.lost(f"no answer to a ping within {_PATIENCE:g} s")
            self._end()
            return
        self._pinged = not self._heard
        self._heard = False
        if self._pinged:
            self._call.ping()
            self._flush()
        self._timer = self._loop.call_later(_PATIENCE if self._pinged else _QUIET, self._look)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None and not self._transport.is_closing():
            if data := self._call.to_send():
                self._transport.write(data)
            if self._transport.get_write_buffer_size():  # the server does not read
                self._transport.abort()
            else:
                self._transport.close()
        if not self._over.done():
            ended = self._call.ended
            if ended is None or ended.status in ("OK", "CANCELLED"):
                self._over.set_result(None)
            else:
                self._over.set_exception(_failed(ended))


def _failed(ended: Ended) -> grpc.aio.AioRpcError:
    metadata: Any = grpc.aio.Metadata(*ended.metadata)
    return grpc.aio.AioRpcError(grpc.StatusCode[ended.status], grpc.aio.Metadata(), metadata, details=ended.details)


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError | gaierror) or not error.errno:
        return str(error)
    return os.strerror(error.errno)
