"""The steps of a fleet that are on their way: sent, and not yet answered in full. Pure.

Arrays throughout, as in the fleet's books, which knows what a refusal means: N rows of one message, C members.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import TidegateError, refused
from tidegate.protocol.members import Members, Steps
from tidegate.protocol.promise import Promise
from tidegate.v1 import sequence_pb2 as pb


class FleetPromise(Promise[list[pb.FleetAnswers]]):
    """One step of many members on its way: `members` [N] take the steps `steps` [N], in one message or several."""

    __slots__ = ("doomed", "handles", "members", "parts", "received", "refusal", "steps")

    def __init__(self, members: Members, handles: bytes, steps: Steps) -> None:
        super().__init__()
        self.members = members
        self.handles = handles
        self.steps = steps
        # Rows [N] that were sent after one of their member that turned out to be refused, and will be so, too.
        self.doomed: NDArray[np.bool_] | None = None
        self.parts: list[pb.FleetAnswers] = []
        self.received = 0
        self.refusal: TidegateError | None = None

    def takes(self, member: int, step: int) -> bool:
        if self.members[0] == member and self.steps[0] == step:  # nearly every answer begins as its request did
            return True
        return bool(((self.members == member) & (self.steps == step)).any())

    def doom(self, expected: Steps) -> None:
        """Rows of members [C] from their step `expected` [C] on will be refused."""
        rows = self.steps >= expected[self.members]
        if rows.any():
            self.doomed = rows if self.doomed is None else self.doomed | rows

    def was_doomed(self, members: Members) -> bool:
        """Whether the rows of these members were bound to be refused, which they now are."""
        if self.doomed is None:
            return False
        rows = np.isin(self.members, members)
        doomed = bool(self.doomed[rows].any())
        self.doomed &= ~rows
        return doomed

    def complete(self, rows: int) -> bool:
        self.received += rows
        return self.received >= len(self.members)

    def settle(self) -> None:
        if self.refusal is not None:
            self.fail(self.refusal)
        else:
            self.resolve(self.parts)


class FleetInFlight:
    """All steps of one fleet that are on their way, in the order in which they were sent."""

    def __init__(self) -> None:
        self._pending: deque[FleetPromise] = deque()

    def __bool__(self) -> bool:
        return bool(self._pending)

    def add(self, promise: FleetPromise) -> None:
        self._pending.append(promise)

    def awaiting(self, member: int, step: int) -> FleetPromise | None:
        return next((promise for promise in self._pending if promise.takes(member, step)), None)

    def settle(self, promise: FleetPromise, rows: int) -> None:
        if promise.complete(rows):
            self._pending.remove(promise)
            promise.settle()

    def doom_after(self, promise: FleetPromise, expected: Steps) -> None:
        """Of what was sent after this one, members [C] will be refused from their step `expected` [C] on."""
        later = list(self._pending)[self._pending.index(promise) + 1 :]
        for sent in later:
            sent.doom(expected)

    def refuse_doomed(self) -> None:
        """The refusals of doomed rows will not come any more, because the stream is gone."""
        for promise in list(self._pending):
            if promise.doomed is not None and promise.doomed.any():
                why = "a step of this fleet was sent after one that was refused"
                promise.refusal = promise.refusal or refused("WRONG_STEP", why)
                rows, promise.doomed = int(promise.doomed.sum()), None
                self.settle(promise, rows)

    def forget(self, next_steps: Steps) -> None:
        """Of steps from `next_steps` [C] on, whoever was sending them was interrupted before they were sent."""
        while self._pending and (self._pending[-1].steps >= next_steps[self._pending[-1].members]).all():
            self._pending.pop()

    def fail(self, error: TidegateError) -> None:
        waiting = list(self._pending)
        self._pending.clear()
        for promise in waiting:
            promise.fail(error)
