"""The inputs of a fleet that a server may want again: those since each member's last checkpoint but one. Pure.

Arrays throughout, as in the fleet's books: N rows of one message, C members.
"""

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from tidegate import wire
from tidegate.protocol.budget import Budget
from tidegate.protocol.members import HANDLE, STEP, Members, Steps
from tidegate.protocol.promise import Promise
from tidegate.protocol.replay import MESSAGE_BYTES
from tidegate.v1 import sequence_pb2 as pb


class _Kept:
    """One message: a step of each of `members` [N], which take the steps `steps` [N]."""

    __slots__ = ("members", "request", "size", "steps")

    def __init__(self, members: Members, steps: Steps, request: pb.StreamRequest, size: int) -> None:
        self.members = members
        self.steps = steps
        self.request = request
        self.size = size

    def only(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "_Kept":
        members, steps = self.members[rows], self.steps[rows]
        request = pb.StreamRequest()
        fleet = request.fleet
        fleet.handles = np.frombuffer(self.request.fleet.handles, HANDLE)[rows].tobytes()
        fleet.steps = steps.astype(STEP).tobytes()
        for tensor in self.request.fleet.inputs:
            wire.encode_to(fleet.inputs.add(), tensor.name, wire.decode(tensor)[rows])
        share = len(members) / len(self.members)
        return _Kept(members, steps, request, MESSAGE_BYTES + int((self.size - MESSAGE_BYTES) * share))


class FleetReplay:
    """The kept inputs of one fleet; `first` [C] is the step at which each member began. See Replay."""

    def __init__(self, first: Steps, budget: Budget) -> None:
        self._budget = budget
        self._last = first.copy()  # the last checkpoint that is known of each member, and the one before
        self._before = first.copy()
        self._first = first
        self._end = first.copy()
        self._kept: deque[_Kept] = deque()
        self._bytes = 0
        self._sift_at = 0  # bytes at which messages are looked through for rows that are not needed

    def room(self) -> Promise[None] | None:
        return None if self._has_room() else self._budget.room()

    def _has_room(self) -> bool:
        return not self._budget.full or bool((self._end <= self._last).all())

    def add(self, members: Members, steps: Steps, request: pb.StreamRequest, size: int) -> None:
        self._end[members] = steps + np.uint64(1)
        self._put(_Kept(members, steps, request, size + MESSAGE_BYTES))

    def checkpointed(self, members: Members, safe: Steps) -> None:
        newer = safe > self._last[members]
        if not newer.any():
            return
        members = members[newer]
        self._before[members] = self._last[members]
        self._last[members] = safe[newer]
        self._drop()
        if self._budget.full and self._has_room():
            self._budget.stir()

    @property
    def whole(self) -> bool:
        """Whether every input since its beginning is kept, so that it can be opened anew."""
        return self.reaches(self._first)

    def cut(self, end: Steps) -> None:
        self._end = np.minimum(self._end, end)
        self._keep(lambda kept: kept.steps < end[kept.members])

    def clear(self, *, forget: bool) -> None:  # noqa: ARG002 - a fleet's inputs cannot be looked at
        while self._kept:
            self._free(self._kept.popleft())
        self._budget.stir()

    def reaches(self, steps: Steps) -> bool:
        first = self._end.copy()
        for kept in reversed(self._kept):
            first[kept.members] = kept.steps
        return bool((steps >= first).all())

    def since(self, steps: Steps, parted: Steps, most: int) -> Iterator[tuple[Members, pb.StreamRequest]]:
        """The messages with the inputs from `steps` [C] on, and the members of each.

        No message holds steps both before and from `parted` [C] on, nor more than `most` rows.
        """
        for kept in self._kept:
            wanted = kept.steps >= steps[kept.members]
            early = kept.steps < parted[kept.members]
            for part in (wanted & early, wanted & ~early):
                rows = np.flatnonzero(part)
                for at in range(0, len(rows), most):
                    run = rows[at : at + most]
                    piece = kept if len(run) == len(kept.members) else kept.only(run)
                    yield piece.members, piece.request

    # What is dropped.

    def _drop(self) -> None:
        """Drops messages of which no row is needed; now and then the rows of others that are not needed."""
        kept = self._kept
        while kept and (kept[0].steps < self._before[kept[0].members]).all():
            self._free(kept.popleft())
        if self._bytes > self._sift_at or (self._budget.full and not self._has_room()):
            self._keep(lambda kept: kept.steps >= self._before[kept.members])
            self._sift_at = 2 * self._bytes

    def _keep(self, needed: Callable[[_Kept], NDArray[np.bool_]]) -> None:
        kept, self._kept = self._kept, deque()
        for message in kept:
            rows = needed(message)
            if rows.all():
                self._kept.append(message)
                continue
            self._free(message)
            if rows.any():
                self._put(message.only(rows))

    def _put(self, kept: _Kept) -> None:
        self._kept.append(kept)
        self._bytes += kept.size
        self._budget.bytes += kept.size
        self._budget.steps += len(kept.members)

    def _free(self, kept: _Kept) -> None:
        self._bytes -= kept.size
        self._budget.free(kept.size, len(kept.members))
