"""Several requests in one message, where they wait for the wire at the same time. Pure."""

from collections.abc import Callable
from typing import Protocol

from tidegate.v1 import sequence_pb2 as pb

_MOST = 256  # requests of one bundle
_SHARE = 4  # a bundle takes at most this part of what a server takes in a message
_USUAL_LIMIT = 4 * 2**20


class Waiting(Protocol):
    """An outbox that only its Bundler takes from; None is its end, and stays there."""

    def empty(self) -> bool: ...

    def get_nowait(self) -> pb.StreamRequest | None: ...

    def put_nowait(self, item: pb.StreamRequest | None, /) -> None: ...


class Bundler:
    """Joins the requests that wait. A request that waits alone is sent as it is.

    What is kept for a replay is copied, never written into.
    """

    def __init__(self, outbox: Waiting, limit: Callable[[], int]) -> None:
        self._outbox = outbox
        self._limit = limit  # bytes of the largest message that the server takes; 0: it did not say
        self._left: pb.StreamRequest | None = None  # did not fit any more

    def left(self) -> pb.StreamRequest | None:
        left, self._left = self._left, None
        return left

    def fill(self, first: pb.StreamRequest) -> pb.StreamRequest:
        following = self._next_now()
        if following is None:
            return first
        room = (self._limit() or _USUAL_LIMIT) // _SHARE - first.ByteSize()
        bundle: pb.StreamRequest | None = None
        count = 1
        while following is not None:
            size = following.ByteSize() + 8
            if size > room or count >= _MOST:
                self._left = following
                break
            if bundle is None:
                bundle = pb.StreamRequest()
                bundle.CopyFrom(first)
            bundle.more.append(following)
            room -= size
            count += 1
            following = self._next_now()
        return first if bundle is None else bundle

    def _next_now(self) -> pb.StreamRequest | None:
        if self._outbox.empty():
            return None
        request = self._outbox.get_nowait()
        if request is None:
            self._outbox.put_nowait(None)
        return request
