"""A stream over gRPC's channel, for asyncio.

One task reads and another writes, because leaving a read or a write of grpc.aio half-way ends the whole stream.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from tidegate.transport.bundles import Bundler
from tidegate.transport.status import NOT_WRITTEN
from tidegate.v1 import sequence_pb2 as pb

if TYPE_CHECKING:
    from tidegate.v1.tidegate_pb2_grpc import TidegateAsyncStub  # a name that only type checkers know

_PAUSE, _LOOKS = 0.01, 20  # seconds, and how often

Outbox = asyncio.Queue[pb.StreamRequest | None]


class GrpcStream:
    """One stream, with the methods of OwnStream."""

    def __init__(self, stub: "TidegateAsyncStub", headers: Sequence[tuple[str, str]], limit: Callable[[], int]) -> None:
        self._outbox: Outbox = asyncio.Queue()
        self._call = stub.Stream(_messages(self._outbox, limit), metadata=tuple(headers))

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self._call.done()

    def put(self, request: pb.StreamRequest | None) -> None:
        """Sends a request, or with None the end of them."""
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
        yield bundler.fill(request)
