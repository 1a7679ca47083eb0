"""Streams over gRPC's channel, for asyncio and for threads."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import grpc

from tidegate.plain.steps import Request
from tidegate.transport.bundles import Bundler
from tidegate.transport.status import NOT_WRITTEN
from tidegate.transport.stream_call import Headers
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1.tidegate_pb2_grpc import TidegateStub

if TYPE_CHECKING:
    from grpc import _CallIterator  # names that only type checkers know

    from tidegate.v1.tidegate_pb2_grpc import TidegateAsyncStub

_PAUSE, _LOOKS = 0.01, 20  # seconds, and how often

Outbox = asyncio.Queue[Request | None]


class GrpcStream:
    """One stream, with the methods of OwnStream.

    One task reads and another writes, because leaving a read or a write of grpc.aio half-way ends the whole stream.
    """

    def __init__(self, stub: "TidegateAsyncStub", headers: Headers, limit: Callable[[], int]) -> None:
        self._outbox: Outbox = asyncio.Queue()
        self._call = stub.Stream(_messages(self._outbox, limit), metadata=tuple(headers))

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self._call.done()

    def put(self, *requests: Request | None, waits: bool = False) -> None:  # noqa: ARG002 # gRPC's to say
        """Sends requests, or with None the end of them."""
        for request in requests:
            self._outbox.put_nowait(request)

    def hang_up(self) -> None:
        """Ends it in both directions."""
        self._outbox.put_nowait(None)
        self._call.cancel()

    async def read(self, took: Callable[[pb.StreamResponse], bool]) -> None:
        """See OwnStream."""
        try:
            async for response in self._call:
                if took(response):
                    return
        except grpc.aio.AioRpcError as error:
            raise await _status(self._call, error) from None


async def _status(call: Any, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:  # noqa: ANN401 # gRPC's
    """What a call ended with. Where gRPC fails to write because it has ended, it often says so first, and then why."""
    for _ in range(_LOOKS):
        if error.details() != NOT_WRITTEN:
            break
        await asyncio.sleep(_PAUSE)
        ends = await call.code(), await call.initial_metadata(), await call.trailing_metadata()
        error = grpc.aio.AioRpcError(*ends, details=await call.details())
    return error


async def _messages(outbox: Outbox, limit: Callable[[], int]) -> AsyncIterator[pb.StreamRequest]:
    """What gRPC is to send: what is in an outbox until its end, bundled where several messages wait."""
    bundler = Bundler(outbox, limit)
    while (request := bundler.left() or await outbox.get()) is not None:
        yield bundler.message(request)


class GrpcThreadStream:
    """One stream, with the methods of SocketStream: an outbox for any thread, and a call that one makes and reads.

    Callers call nothing of gRPC but `cancel`: Ctrl-C interrupts the main thread anywhere, and an interrupted call of
    gRPC may hold one of its locks for ever.
    """

    led_here = False

    def __init__(
        self, stub: TidegateStub, headers: Headers, limit: Callable[[], int], lock: AbstractContextManager[object]
    ) -> None:
        self._stub, self._headers, self._limit, self._lock = stub, headers, limit, lock
        self._outbox: SimpleQueue[Request | None] = SimpleQueue()
        self._call: _CallIterator[pb.StreamResponse] | None = None

    def put(self, *requests: Request | None, waits: bool = False) -> None:  # noqa: ARG002 # gRPC's to say
        """Sends requests, or with None the end of them."""
        for request in requests:
            self._outbox.put(request)

    def hang_up(self) -> None:
        """Ends it in both directions."""
        self._outbox.put(None)
        if self._call is not None:
            self._call.cancel()

    def attend(self) -> None:
        """The reader never rests."""

    def lead(self, *_: object) -> bool:
        """No caller reads."""
        return False

    def read(self, took: Callable[[pb.StreamResponse], bool]) -> None:
        """See SocketStream."""
        self._call = self._stub.Stream(self._messages(), metadata=tuple(self._headers))
        for response in self._call:
            with self._lock:
                if took(response):
                    return

    def _messages(self) -> Iterator[pb.StreamRequest]:
        bundler = Bundler(self._outbox, self._limit)
        while (request := bundler.left() or self._outbox.get()) is not None:
            yield bundler.message(request)
