"""Several requests in one message, where they wait for the wire at the same time. Pure."""

from collections.abc import Callable
from typing import Protocol

from tidegate.plain.steps import PlainStep, Request, message_of, written
from tidegate.v1 import sequence_pb2 as pb
from tidegate.varints import Fields

_MOST = 256  # requests of one bundle
_SHARE = 4  # a bundle takes at most this part of what a server takes in a message
_USUAL_LIMIT = 4 * 2**20
_MORE = Fields(pb.StreamRequest, "more", 2)


class Waiting(Protocol):
    """An outbox that only its Bundler takes from; None is its end, and stays there."""

    def empty(self) -> bool: ...

    def get_nowait(self) -> Request | None: ...

    def put_nowait(self, item: Request | None, /) -> None: ...


class Bundler:
    """Joins the requests that wait. A request that waits alone is sent as it is."""

    def __init__(self, outbox: Waiting, limit: Callable[[], int]) -> None:
        self._outbox = outbox
        self._limit = limit  # bytes of the largest message that the server takes; 0: it did not say
        self.kept: Request | None = None  # did not fit any more

    def left(self) -> Request | None:
        left, self.kept = self.kept, None
        return left

    def fill(self, first: Request) -> bytes:
        """The bytes of a request, and of those that wait behind it."""
        data, outbox = written(first), self._outbox
        if outbox.empty():
            return data
        parts, count = [data], 1
        room = (self._limit() or _USUAL_LIMIT) // _SHARE - len(data)
        while not outbox.empty():
            if (following := outbox.get_nowait()) is None:
                outbox.put_nowait(None)
                break
            data = following.written() if type(following) is PlainStep else written(following)
            room -= len(data) + 8
            if room < 0 or count >= _MOST:
                self.kept = following
                break
            parts += (_MORE[len(data)], data)
            count += 1
        return b"".join(parts)

    def message(self, first: Request) -> pb.StreamRequest:
        """The same, for gRPC's own channel."""
        return message_of(first) if self._outbox.empty() else pb.StreamRequest.FromString(self.fill(first))
