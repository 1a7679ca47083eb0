"""A stream over an HTTP/2 connection of its own, for asyncio: what came is entered in the turn of the loop it came in.

gRPC's own channel takes a message through several tasks and turns of the loop, which costs more than all else that a
client does for a step.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from tidegate.plain.answers import Response
from tidegate.plain.steps import Request
from tidegate.transport.endpoint import Place
from tidegate.transport.stream_call import AT_ONCE, CLOSED, CONNECT, Headers, StreamCall

_GOODBYE = 1.0  # seconds that a connection has to be closed in order


class OwnStream(asyncio.Protocol):
    """One stream. `limit` says how many bytes of a message the server takes; 0: it has not said."""

    def __init__(self, place: Place, headers: Headers, limit: Callable[[], int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._place = place
        self._call = StreamCall(place, headers, limit)
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()  # the connection
        self._took: Callable[[Response], bool]
        self._transport: asyncio.Transport | None = None
        self._full = self._will_flush = self._alone = False
        self._puts = 0  # since something came
        self._timer: asyncio.TimerHandle | None = None

    # What a link wants of a stream ------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self._over.done()

    def put(self, *requests: Request | None, waits: bool = False) -> None:  # noqa: ARG002 # all may do so later
        """Sends requests, or with None the end of them, together with what else is put in this turn of the loop.

        Where that has lately been one request for each time that something came, nothing else is waited for.
        """
        for request in requests:
            self._call.put(request)
        self._puts += 1
        if self._call.waiting() >= AT_ONCE or (self._alone and self._puts == 1 and not self._will_flush):
            self._flush()
        elif not self._will_flush:
            self._will_flush = True
            self._loop.call_soon(self._flush)

    def hang_up(self) -> None:
        """Ends it in both directions."""
        self._call.cancel()
        self._end()

    async def read(self, took: Callable[[Response], bool]) -> None:
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
            async with asyncio.timeout(CONNECT):
                await self._loop.create_connection(
                    lambda: self, place.host, place.port, ssl=context, server_hostname=name
                )
        except OSError as error:
            self._call.unreached(error)
            self._end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol; likewise below."""
        self._transport = cast("asyncio.Transport", transport)
        if self._over.done():
            self._transport.abort()
            return
        self._look()

    def data_received(self, data: bytes) -> None:
        self._alone, self._puts = self._puts <= 1, 0
        try:
            for response in self._call.receive(data):
                if self._over.done() or self._took(response):
                    self._end()
                    return
        except Exception as error:  # noqa: BLE001 # `read` raises it
            if not self._over.done():
                self._over.set_exception(error)
            self._end()
        if self._call.ended:
            self._end()
        elif not self._will_flush:
            self._flush()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._call.lost(CLOSED if error is None else f"{CLOSED}: {error}")
        self._end()
        self._gone.set_result(None)

    def _flush(self) -> None:
        self._will_flush = False
        if self._transport is None:
            return
        while not self._full and (data := self._call.to_write()):
            self._transport.write(data)

    def _look(self) -> None:
        wait = self._call.look()
        if self._call.ended:
            self._end()
            return
        self._timer = self._loop.call_later(wait, self._look)
        self._flush()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None and not self._transport.is_closing():
            if data := self._call.to_write():
                self._transport.write(data)
            if self._transport.get_write_buffer_size():  # the server does not read
                self._transport.abort()
            else:
                self._transport.close()
        if not self._over.done():
            if (error := self._call.error()) is not None:
                self._over.set_exception(error)
            else:
                self._over.set_result(None)
