"""A client's stream, for asyncio. It outlives a loss.

A task of its own reads, and makes the next stream when one is lost.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from threading import RLock
from typing import TYPE_CHECKING, Any

import grpc

from tidegate.errors import ConnectionLost, TidegateError
from tidegate.protocol.promise import Promise
from tidegate.transport.endpoint import Endpoint
from tidegate.transport.grpc_stream import GrpcStream
from tidegate.transport.link import GOODBYE, Link
from tidegate.transport.own_stream import OwnStream
from tidegate.transport.recovery import Resuming
from tidegate.transport.status import explain

if TYPE_CHECKING:
    from tidegate.v1.tidegate_pb2_grpc import TidegateAsyncStub  # a name that only type checkers know

log = logging.getLogger("tidegate")


class AsyncConnection(Link):
    """One stream after the other, which any number of tasks of one event loop share."""

    def __init__(
        self, stub: "TidegateAsyncStub", address: Endpoint, route: str, resuming: Resuming, within: float | None
    ) -> None:
        super().__init__(address, route, resuming, within)
        self._stub = stub
        self._loop = asyncio.get_running_loop()
        self._lock = RLock()  # one thread has it whenever it wants: as nullcontext, which is written in Python
        self._check_place = self._check_loop
        self._closed = asyncio.Event()
        self._connect()
        self._reader = asyncio.create_task(self._read_on())

    def _connect(self) -> None:
        headers = (*self._headers, *self._address.headers())
        self._stream: OwnStream | GrpcStream
        if self._place is not None:
            self._stream = OwnStream(self._place, headers, self._limit)
        else:
            self._stream = GrpcStream(self._stub, headers, self._limit)

    @property
    def alive(self) -> bool:
        return self.talk.lost is None and (not self._stream.done or self.talk.resumable)

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this sequence was opened in another event loop")

    def _after(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds, call)

    async def settled(self, promise: Promise[Any], timeout: float | None) -> bool:
        if promise.done:
            return True
        settled = asyncio.Future[None](loop=self._loop)
        promise.call(lambda: None if settled.done() else settled.set_result(None))
        self._waiting[settled] = promise
        try:
            if timeout is None:
                await settled
            else:
                async with asyncio.timeout(timeout):  # `wait_for` of Python 3.11 may swallow a cancellation
                    await settled
        except TimeoutError:
            return promise.done
        finally:
            self._waiting.pop(settled, None)
        return True

    # Reading, in a task of its own.

    async def _read_on(self) -> None:
        try:
            while self.talk.lost is None:
                self._enter(await self._read_all())
                await self._reconnect()
        except asyncio.CancelledError:
            self._lose(ConnectionLost(f"the event loop ended before the client of {self._address} was closed"))
            raise
        except Exception as error:
            log.exception("reading from %s failed", self._address)
            self._lose(self._failed(error))

    async def _read_all(self) -> TidegateError:
        """Enters what comes, to the end of the stream; returns the error that ended it."""
        try:
            await self._stream.read(self._took)
        except grpc.aio.AioRpcError as error:
            return explain(error, self._address)
        except asyncio.CancelledError:
            if (reader := asyncio.current_task()) is not None and reader.cancelling():
                raise  # it is not the call that was cancelled
            return ConnectionLost(f"the stream of {self._address} was cancelled")
        return self._why_ended()

    async def _reconnect(self) -> None:
        wait = None if self.talk.lost is not None else self._wait_to_reconnect()
        if wait is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._closed.wait()
        if self.talk.lost is None:
            self._connect()
            self._put(self.talk.resume())

    # Closing.

    async def close(self, why: str) -> None:
        """Ends the stream: in order if nothing is open on it, else by cancelling it. Calls that wait raise an error.

        What is open on a server that keeps checkpoints is parked there, and can be resumed.
        """
        try:
            if self.talk.lost is None and self.talk.idle:
                await self._part()
        finally:  # also if the task that closes is cancelled
            self._closed.set()
            self._end(why)
        await asyncio.wait({self._reader})

    async def _part(self) -> None:
        """Lets the server confirm what is being closed, on a new stream if need be, and end the stream."""
        if self.talk.closing:
            confirmed: asyncio.Future[None] = self._loop.create_future()
            self._confirmed = lambda: None if confirmed.done() else confirmed.set_result(None)
            await asyncio.wait({self._reader, confirmed}, timeout=GOODBYE, return_when=asyncio.FIRST_COMPLETED)
        self._stream.put(None)
        if not self.talk.closing:
            await asyncio.wait({self._reader}, timeout=GOODBYE)
