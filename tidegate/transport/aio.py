"""A client's stream, for asyncio: what a Conversation says goes out, what comes in goes to it. It outlives a loss.

One task reads and another writes, because leaving a read or a write of grpc.aio half-way ends the whole stream. The
task that reads makes the next stream when one is lost.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import grpc

from tidegate.errors import ConnectionLost, ProtocolError, TidegateError, TimedOut
from tidegate.protocol.budget import why_no_room
from tidegate.protocol.conversation import Requests
from tidegate.protocol.promise import Promise
from tidegate.protocol.registry import Books
from tidegate.transport.bundles import Bundler
from tidegate.transport.deadline import Deadline
from tidegate.transport.endpoint import Endpoint
from tidegate.transport.link import GOODBYE, Build, K, Link
from tidegate.transport.recovery import Resuming
from tidegate.transport.status import explain
from tidegate.v1 import sequence_pb2 as pb

if TYPE_CHECKING:
    from tidegate.v1.tidegate_pb2_grpc import TidegateAsyncStub  # a name that only type checkers know

# ruff: noqa: ASYNC109 - `timeout` has the same name and meaning in both clients, and raises our own TimedOut

log = logging.getLogger("tidegate")

Outbox = asyncio.Queue[pb.StreamRequest | None]


class AsyncConnection(Link):
    """One stream after the other, which any number of tasks of one event loop share."""

    def __init__(
        self, stub: "TidegateAsyncStub", address: Endpoint, route: str, resuming: Resuming, within: float | None
    ) -> None:
        super().__init__(address, route, resuming, within)
        self._stub = stub
        self._loop = asyncio.get_running_loop()
        self._lock = nullcontext()  # one thread
        self._closed = asyncio.Event()
        self._parting: asyncio.Future[None] | None = None  # done when nothing is left to be closed
        self._connect()
        self._reader = asyncio.create_task(self._read_on())

    def _connect(self) -> None:
        self._outbox: Outbox = asyncio.Queue()
        self._call = self._stub.Stream(
            _messages(self._outbox, lambda: self._talk.max_message_bytes), metadata=self._headers
        )

    @property
    def alive(self) -> bool:
        return self._talk.lost is None and (not self._call.done() or self._talk.resumable)

    async def send(self, books: Books, timeout: float | None, build: Build[K], *values: object) -> K:
        """Builds messages with steps and sends them. gRPC takes them from the outbox as the server reads.

        Waits only where as much is kept for a resumption as may be, or the sequence is being rewound, for `timeout`
        seconds at most (TimedOut).
        """
        self._check_loop()
        deadline = Deadline(timeout)
        while (room := books.room()) is not None:
            await self._await_room(room, deadline.left)
        return self.ask(build, *values)

    def ask(self, build: Build[K], *values: object) -> K:
        promise, requests = build(*values)
        for request in requests:
            self._outbox.put_nowait(request)
        return promise

    def _put(self, requests: Requests) -> None:
        for request in requests:
            self._outbox.put_nowait(request)

    def _hang_up(self) -> None:
        self._outbox.put_nowait(None)
        self._call.cancel()

    def _after(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds, call)

    async def wait(self, promise: Promise[Any], timeout: float | None) -> None:
        """Until the promise is settled. Raises TimedOut after `timeout` seconds; the answer is then dropped."""
        if not await self._settled(promise, timeout):
            raise TimedOut(f"no answer from {self._address} in the given time")

    async def _settled(self, promise: Promise[Any], timeout: float | None) -> bool:
        self._check_loop()
        if promise.done:
            return True
        settled = self._loop.create_future()
        promise.call(lambda: None if settled.done() else settled.set_result(None))
        self._waiting.add(promise)
        try:
            if timeout is None:
                await settled
            else:
                async with asyncio.timeout(timeout):  # `wait_for` of Python 3.11 may swallow a cancellation
                    await settled
        except TimeoutError:
            return promise.done
        finally:
            self._waiting.discard(promise)
        return True

    async def _await_room(self, room: Promise[None], timeout: float | None) -> None:
        settled = False
        try:
            settled = await self._settled(room, timeout)
        finally:
            if not settled:
                why = why_no_room(self._talk.budget, room)
        if not settled:
            raise TimedOut(why)

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this sequence was opened in another event loop")

    async def close(self) -> None:
        """Ends the stream: in peace if nothing is open on it, else by cancelling it. Whoever waits gets an error.

        What is open on a server that keeps checkpoints is parked there, and can be resumed.
        """
        try:
            if self._talk.lost is None and self._talk.idle:
                await self._part()
        finally:  # also if whoever closes is cancelled
            self._closed.set()
            if self._later is not None:
                self._later.cancel()
            self._lose(ConnectionLost("this client was closed"))
        await asyncio.wait({self._reader})

    async def _part(self) -> None:
        """Lets the server confirm what is being closed, on a new stream if need be, and end the stream."""
        self._parting = asyncio.get_running_loop().create_future()
        if self._talk.closing:
            await asyncio.wait({self._reader, self._parting}, timeout=GOODBYE, return_when=asyncio.FIRST_COMPLETED)
        self._outbox.put_nowait(None)
        if not self._talk.closing:
            await asyncio.wait({self._reader}, timeout=GOODBYE)

    async def _read_on(self) -> None:
        try:
            while self._talk.lost is None:
                self._break_off(await self._read_all())
                await self._reconnect()
        except asyncio.CancelledError:
            self._lose(ConnectionLost(f"the event loop ended before the client of {self._address} was closed"))
            raise
        except Exception as error:
            log.exception("reading from %s failed", self._address)
            self._lose(ConnectionLost(f"this client failed while it read from {self._address}: {error!r}"))

    async def _read_all(self) -> TidegateError:
        try:
            async for response in self._call:
                self._enter(response)
                if self._talk.broken is not None:
                    return self._talk.broken
        except ProtocolError as error:
            return error
        except grpc.RpcError as error:
            return explain(error, self._address)
        except asyncio.CancelledError:
            if (reader := asyncio.current_task()) is not None and reader.cancelling():
                raise  # it is not the call that was cancelled
            return ConnectionLost(f"the stream of {self._address} was cancelled")
        return ConnectionLost(f"the server at {self._address} ended the stream")

    def _enter(self, response: pb.StreamResponse) -> None:
        self._put(self._talk.receive(response))
        self._defer()
        self._note_recovered()
        if self._parting is not None and not self._talk.closing and not self._parting.done():
            self._parting.set_result(None)

    async def _reconnect(self) -> None:
        if self._talk.lost is not None:
            return
        wait = self._next_wait()
        if wait is None:
            self._give_up()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._closed.wait()
        if self._talk.lost is None:
            self._connect()
            self._put(self._talk.resume())


async def _messages(outbox: Outbox, limit: Callable[[], int]) -> AsyncIterator[pb.StreamRequest]:
    """What gRPC is to send: what waits in an outbox until its end, bundled where several wait."""
    bundler = Bundler(outbox, limit)
    while (request := bundler.left() or await outbox.get()) is not None:
        yield bundler.fill(request)
