"""The steps of one sequence, or of one fleet, that were sent and are not yet answered in full. Pure.

Answers come in the order of the steps; a refusal may overtake the answers of earlier steps, because the server checks a
step before it runs it. The books decide what a refusal means for the sequence.

Of a fleet these are arrays: N rows of one message, C members.
"""

from collections import deque
from collections.abc import Container
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidegate.answers import TraceLayout
from tidegate.errors import TidegateError, refused
from tidegate.plain.answers import SomeAnswers
from tidegate.protocol.members import Members, Steps
from tidegate.protocol.promise import Promise
from tidegate.v1 import sequence_pb2 as pb


class StepsPromise(Promise[list[SomeAnswers]]):
    """`count` steps from `first_step`, sent in one message or several, each of them answered in one or more parts.

    `layout`: the columns of their traces, those of the version that answered them; set with the first part.
    """

    __slots__ = ("_left", "_refusal", "count", "first_step", "layout", "parts")

    layout: TraceLayout

    def __init__(self, first_step: int, count: int, messages: int) -> None:
        super().__init__()
        self.first_step = first_step
        self.count = count
        self.parts: list[SomeAnswers] = []
        self._left = messages
        self._refusal: TidegateError | None = None

    def settle(self, refusal: TidegateError | None = None) -> bool:
        self._refusal = self._refusal or refusal
        self._left -= 1
        if self._left:
            return False
        if self._refusal is not None:
            self.fail(self._refusal)
        else:
            self.resolve(self.parts)
        return True


class Sent:
    """One Steps message that is not answered in full.

    It is `doomed` if it was sent after a message that was refused: it will be refused too, and that refusal does not
    change the next step of the sequence.
    """

    __slots__ = ("doomed", "end", "first_step", "next_answer", "promise")

    def __init__(self, promise: StepsPromise, first_step: int, count: int) -> None:
        self.promise = promise
        self.first_step = self.next_answer = first_step
        self.end = first_step + count
        self.doomed = False

    def is_refused_by(self, failure: pb.Failure) -> bool:
        """Refused as a whole, or from a step on that could not be computed, which is then the next step.

        A server may take a long message in several parts. If a step fails, it refuses each part after it; those
        refusals change nothing, nor do they concern messages that were sent since.
        """
        step = failure.first_step
        stands_there = not failure.expected_steps or failure.expected_steps[0] == step
        return step == self.first_step or (self.first_step < step < self.end and stands_there)


class FleetPromise(Promise[list[pb.FleetAnswers]]):
    """One unanswered step of many members: `members` [N] take the steps `steps` [N], in one message or several."""

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

    @property
    def promise(self) -> "FleetPromise":
        """Itself: of a fleet, a promise is also what is on its way."""
        return self

    def takes(self, member: int, step: int) -> bool:
        if self.members[0] == member and self.steps[0] == step:  # nearly every answer begins as its request did
            return True
        return bool(((self.members == member) & (self.steps == step)).any())

    def doom(self, expected: Steps) -> None:
        rows = self.steps >= expected[self.members]
        if rows.any():
            self.doomed = rows if self.doomed is None else self.doomed | rows

    def was_doomed(self, members: Members) -> bool:
        """Whether the refusal of these members' rows follows from an earlier one; clears the mark."""
        if self.doomed is None:
            return False
        rows = np.isin(self.members, members)
        doomed = bool(self.doomed[rows].any())
        self.doomed &= ~rows
        return doomed

    def settle(self) -> None:
        if self.refusal is not None:
            self.fail(self.refusal)
        else:
            self.resolve(self.parts)


E = TypeVar("E", Sent, FleetPromise)


class _Pending(Generic[E]):
    def __init__(self) -> None:
        self._pending: deque[E] = deque()

    def __bool__(self) -> bool:
        return bool(self._pending)

    def fail(self, error: TidegateError) -> None:
        waiting = list(dict.fromkeys(sent.promise for sent in self._pending))
        self._pending.clear()
        for promise in waiting:
            promise.fail(error)


class InFlight(_Pending[Sent]):
    """The unanswered messages of one sequence, in the order in which they were sent."""

    def add(self, promise: StepsPromise, first_step: int, count: int) -> None:
        self._pending.append(Sent(promise, first_step, count))

    def awaiting(self, step: int) -> Sent | None:
        for sent in self._pending:  # the first one, but for steps whose refusal is still to come
            if sent.next_answer == step and not sent.doomed:
                return sent
        return None

    def refused_by(self, failure: pb.Failure) -> Sent | None:
        return next((sent for sent in self._pending if sent.is_refused_by(failure)), None)

    def settle(self, sent: Sent, refusal: TidegateError | None = None) -> None:
        self._pending.remove(sent)
        sent.promise.settle(refusal)

    def doom_after(self, refused_one: Sent) -> None:
        at = self._pending.index(refused_one)
        for sent in list(self._pending)[at + 1 :]:
            sent.doomed = True

    # After a loss.

    def refuse_doomed(self, next_step: int, only: Container[int] | None = None) -> None:
        for sent in [sent for sent in self._pending if sent.doomed and (only is None or sent.first_step in only)]:
            why = f"step {sent.first_step} was sent after one that was refused"
            self.settle(sent, refused("WRONG_STEP", why, next_step))

    def forget(self, next_step: int) -> None:
        """Drops steps from `next_step` on: the caller was interrupted before they were sent."""
        while self._pending and self._pending[-1].first_step >= next_step:
            self._pending.pop()

    def send_again(self) -> None:
        for sent in self._pending:
            sent.first_step = sent.next_answer


class FleetInFlight(_Pending[FleetPromise]):
    """The unanswered steps of one fleet, in the order in which they were sent."""

    def add(self, promise: FleetPromise) -> None:
        self._pending.append(promise)

    def awaiting(self, member: int, step: int) -> FleetPromise | None:
        return next((promise for promise in self._pending if promise.takes(member, step)), None)

    def settle(self, promise: FleetPromise, rows: int) -> None:
        promise.received += rows
        if promise.received >= len(promise.members):
            self._pending.remove(promise)
            promise.settle()

    def doom_after(self, promise: FleetPromise, expected: Steps) -> None:
        later = list(self._pending)[self._pending.index(promise) + 1 :]
        for sent in later:
            sent.doom(expected)

    def refuse_doomed(self) -> None:
        for promise in list(self._pending):
            if promise.doomed is not None and promise.doomed.any():
                why = "a step of this fleet was sent after one that was refused"
                promise.refusal = promise.refusal or refused("WRONG_STEP", why)
                rows, promise.doomed = int(promise.doomed.sum()), None
                self.settle(promise, rows)

    def forget(self, next_steps: Steps) -> None:
        """Drops steps from `next_steps` [C] on: the caller was interrupted before they were sent."""
        while self._pending and (self._pending[-1].steps >= next_steps[self._pending[-1].members]).all():
            self._pending.pop()
