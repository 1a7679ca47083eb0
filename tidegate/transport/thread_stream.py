"""One stream of a client for threads: what is put on it goes out, bundled where several wait, and what comes is read.

Knows no sequence. Only `put` and `hang_up` are for any thread; one thread makes the call and reads.
"""

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING

import grpc

from tidegate.errors import ConnectionLost, TidegateError
from tidegate.transport.bundles import Bundler
from tidegate.transport.endpoint import Endpoint
from tidegate.transport.status import explain
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1.tidegate_pb2_grpc import TidegateStub

if TYPE_CHECKING:
    from grpc import _CallIterator  # a name that only type checkers know

Outbox = SimpleQueue[pb.StreamRequest | None]


class Stream:
    """`limit` says how many bytes the server takes in a message; 0: it did not say."""

    def __init__(
        self, stub: TidegateStub, address: Endpoint, headers: tuple[tuple[str, str], ...], limit: Callable[[], int]
    ) -> None:
        self._stub = stub
        self._address = address
        self._headers = headers
        self._limit = limit
        self._outbox: Outbox = SimpleQueue()
        self._call: _CallIterator[pb.StreamResponse] | None = None

    def put(self, requests: list[pb.StreamRequest]) -> None:
        for request in requests:
            self._outbox.put(request)

    def end(self) -> None:
        self._outbox.put(None)

    def hang_up(self) -> None:
        self._outbox.put(None)
        if self._call is not None:
            self._call.cancel()

    def call(self) -> None:
        self._call = self._stub.Stream(_messages(self._outbox, self._limit), metadata=self._headers)

    def read(self) -> pb.StreamResponse | TidegateError:
        assert self._call is not None
        try:
            return next(self._call)
        except StopIteration:
            return ConnectionLost(f"the server at {self._address} ended the stream")
        except grpc.RpcError as error:
            return explain(error, self._address)


def _messages(outbox: Outbox, limit: Callable[[], int]) -> Iterator[pb.StreamRequest]:
    """What gRPC is to send: what waits in an outbox until its end, bundled where several wait."""
    bundler = Bundler(outbox, limit)
    while (request := bundler.left() or outbox.get()) is not None:
        yield bundler.fill(request)
