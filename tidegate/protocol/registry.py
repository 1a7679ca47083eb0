"""The books of all that is open or being closed, by the client's handles. Pure."""

from collections.abc import Iterable

import numpy as np

from tidegate.errors import ProtocolError, SequenceEnded, TidegateError
from tidegate.protocol.fleet_books import FleetBooks
from tidegate.protocol.handles import Handles
from tidegate.protocol.members import HANDLE, STEP
from tidegate.protocol.promise import Promise
from tidegate.protocol.sequence_books import SequenceBooks
from tidegate.v1 import sequence_pb2 as pb

Books = SequenceBooks | FleetBooks


class Registry:
    """The books of one client. A fleet has one handle for each member, and stands under the first of them."""

    def __init__(self, handles: Handles) -> None:
        self._handles = handles
        self.sequences: dict[int, SequenceBooks] = {}
        self.fleets: dict[int, FleetBooks] = {}
        self.closing: dict[int, list[Promise[pb.Closed]]] = {}  # one for each call that waits for it
        self.recovering: set[int] = set()  # books that have not gone on since the last loss
        self.doubted: set[int] = set()  # books whose Resume was sent on a stream that was lost before the answer
        self._left: dict[int, int] = {}  # handles given up, as first: count; messages for them may still be under way

    @property
    def idle(self) -> bool:
        return {*self.sequences, *self.fleets} <= self.closing.keys()

    def enter(self, books: Books) -> None:
        if isinstance(books, FleetBooks):
            self.fleets[books.handle] = books
        else:
            self.sequences[books.handle] = books

    def remove(self, books: Books) -> None:
        self._pop(books.handle)
        self._handles.give(books.handle, books.count)

    def leave(self, books: Books) -> list[pb.StreamRequest]:
        """Gives sequences up; returns the request to send.

        It is sent even if the server may have closed them, which then ignores it: until the server has answered,
        answers to earlier requests may still come, and would be taken for those of the next sequence with that handle.
        """
        self._pop(books.handle)
        self._left[books.handle] = books.count
        return [pb.StreamRequest(close=pb.Close(handle=books.handle, count=books.count, park=True))]

    def left(self, handle: int) -> bool:
        """Whether this handle was given up: answers that still come for it are dropped."""
        return any(first <= handle < first + count for first, count in self._left.items())

    def parted(self, handle: int) -> None:
        """Enters that the server has parked what was given up: no more answers come for it."""
        if handle in self._left:
            self._handles.give(handle, self._left.pop(handle))

    def hang_up(self) -> None:
        for first in list(self._left):
            self.parted(first)

    def _pop(self, handle: int) -> Books | None:
        self.recovering.discard(handle)
        self.doubted.discard(handle)
        return self.sequences.pop(handle, None) or self.fleets.pop(handle, None)

    # Closing.

    def close(self, books: Books) -> tuple[Promise[pb.Closed], list[pb.StreamRequest]]:
        """Asks to end sequences, once: later calls wait for the same answer."""
        promise: Promise[pb.Closed] = Promise()
        waiting = self.closing.setdefault(books.handle, [])
        waiting.append(promise)
        return promise, [close_request(books)] if len(waiting) == 1 else []

    def closed(self, closed: pb.Closed) -> bool:
        self.parted(closed.handle)
        books = self._pop(closed.handle)
        if books is not None:
            books.abandon(SequenceEnded("the server closed this sequence"))
        waiting = self.closing.pop(closed.handle, [])
        if books is not None and waiting:
            books.closed = True
            self._handles.give(closed.handle, closed.count or 1)
        for promise in waiting:
            promise.resolve(closed)
        return bool(waiting)

    def not_closed(self, handle: int, error: TidegateError) -> bool:
        waiting = self.closing.pop(handle, [])
        for promise in waiting:
            promise.fail(error)
        return bool(waiting)

    def lose(self, error: TidegateError, lost: TidegateError) -> None:
        for handle in list(self.closing):
            self.not_closed(handle, error)
        for books in self.all():
            books.end(lost)
            books.abandon(error)
        self.recovering.clear()

    def checkpointed(self, message: pb.Checkpointed) -> None:
        handles = np.frombuffer(message.handles, HANDLE).astype(np.int64)
        steps = np.frombuffer(message.steps, STEP)
        for fleet in self.fleets.values():
            rows = (handles >= fleet.handle) & (handles < fleet.handle + fleet.count)
            if rows.any():
                fleet.checkpointed(handles[rows] - fleet.handle, steps[rows])
                handles, steps = handles[~rows], steps[~rows]
        for handle, step in zip(handles.tolist(), steps.tolist(), strict=True):
            sequence_books = self.sequences.get(handle)
            if sequence_books is not None:
                sequence_books.checkpointed(step)

    # By handle.

    def all(self) -> list[Books]:
        return [*self.sequences.values(), *self.fleets.values()]

    def opened_as(self, handle: int) -> Books | None:
        return self.sequences.get(handle) or self.fleets.get(handle)

    def find(self, handle: int) -> Books | None:
        return self.sequences.get(handle) or self._fleet_of(handle)

    def sequence(self, handle: int) -> SequenceBooks | None:
        sequence_books = self.sequences.get(handle)
        if sequence_books is None and not self.left(handle):
            raise ProtocolError(f"the server said something of handle {handle}, which is not an open sequence")
        return sequence_books

    def fleet(self, handle: int) -> FleetBooks | None:
        """The books of the fleet of this member; None if it was given up. Raises ProtocolError."""
        fleet = self._fleet_of(handle)
        if fleet is None and not self.left(handle):
            raise ProtocolError(f"the server said something of handle {handle}, which is no member of an open fleet")
        return fleet

    def _fleet_of(self, handle: int) -> FleetBooks | None:
        return next((fleet for fleet in self.fleets.values() if fleet.owns(handle)), None)

    def books_of(self, handles: Iterable[int]) -> list[Books]:
        found = {id(books): books for books in map(self.find, handles) if books is not None}
        return list(found.values())


def close_request(books: Books) -> pb.StreamRequest:
    return pb.StreamRequest(close=pb.Close(handle=books.handle, count=books.count))
