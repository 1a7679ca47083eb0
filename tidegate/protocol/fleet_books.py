"""The books of a fleet: many sequences of one model that take a step each in one message. Pure.

Arrays throughout: nothing here loops over sequences. N rows of one message, C sequences of the fleet.
"""

from collections.abc import Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray

from tidegate.answers import FleetAnswers
from tidegate.errors import ProtocolError, Refused, SequenceLost
from tidegate.inputs import Block, Inputs
from tidegate.messages import read_refusal
from tidegate.protocol.assembly import read_fleet_step
from tidegate.protocol.books import CommonBooks
from tidegate.protocol.budget import Budget
from tidegate.protocol.fleet_replay import FleetReplay
from tidegate.protocol.in_flight import FleetInFlight, FleetPromise
from tidegate.protocol.members import HANDLE, STEP, Members, Steps, choose, handles_of
from tidegate.protocol.opening import Claim, Opening
from tidegate.protocol.promise import Promise
from tidegate.v1 import sequence_pb2 as pb

_ROW_BYTES = HANDLE.itemsize + 2 * STEP.itemsize  # what a row takes besides its inputs
_SAY_EVERY = 8  # messages: how often a fleet sends which answers it has


class FleetBooks(CommonBooks[Steps, FleetReplay, FleetInFlight]):
    """The books of one fleet. See SequenceBooks."""

    what = "fleet"

    def __init__(self, opening: Opening, budget: Budget | None = None) -> None:
        replay = FleetReplay(opening.next_steps, budget) if budget is not None and opening.token else None
        super().__init__(opening, opening.next_steps, replay, FleetInFlight())
        self._all: Members = np.arange(self.count, dtype=np.int64)
        self._handles = handles_of(self._all, self.handle)
        self._unsaid = 0  # messages since `answered` was sent
        self._released = False  # a member is, so that a step was not taken; Released is to come

    # Sending.

    def send(self, values: Inputs, members: Sequence[int] | NDArray[np.integer] | None = None) -> "Sent":
        if self.ended is not None:
            raise copy(self.ended)
        chosen = self._all if members is None else choose(members, count=self.count)
        handles = self._handles if members is None else handles_of(chosen, self.handle)
        blocks = self._cut(self._inputs.block(values, rows=len(chosen)))
        rows = slice(None) if members is None else chosen  # all of them at once cost less
        steps = self.next_step[rows].copy()
        promise = FleetPromise(chosen, handles, steps)
        numbers = steps.astype(STEP).tobytes()
        requests = [_message(block, handles, numbers) for block in blocks]
        if self._replay is not None:
            self._keep(self._replay, promise, blocks, requests)
        self._in_flight.add(promise)
        self.next_step[rows] = steps + np.uint64(1)  # last: see SequenceBooks
        return promise, [] if self.parked else requests

    def room(self) -> Promise[None] | None:
        return None if self._replay is None or self.ended is not None else self._replay.room()

    def _keep(
        self, replay: FleetReplay, promise: FleetPromise, blocks: list[Block], requests: list[pb.StreamRequest]
    ) -> None:
        for block, request in zip(blocks, requests, strict=True):
            rows = slice(block.first, block.first + block.rows)
            members = promise.members[rows]
            replay.add(members, promise.steps[rows], request, block.size + block.rows * _ROW_BYTES)
            self._unsaid += 1
            if self._unsaid >= _SAY_EVERY:
                self._say_answered(members, request)

    def _say_answered(self, members: Members, request: pb.StreamRequest) -> None:
        request.fleet.answered = self.answered[members].astype(STEP).tobytes()
        self._unsaid = 0

    def _rows_of_a_message(self) -> int:
        return self._inputs.rows_within(self.opening.max_message_bytes, _ROW_BYTES)

    # Receiving.

    def owns(self, handle: int) -> bool:
        return self.handle <= handle < self.handle + self.count

    def receive(self, message: pb.FleetAnswers) -> bool:
        handles = np.frombuffer(message.handles, HANDLE)
        steps = np.frombuffer(message.steps, STEP)
        members = handles.astype(np.int64) - self.handle
        first, step = int(members[0]), steps[0]
        again = self._back_at[first] <= step < self._again[first]
        if not again:
            self._answered(message, members, steps)
        if message.checkpointed:
            self.checkpointed(members, np.frombuffer(message.checkpointed, STEP))
        return not again

    def _answered(self, message: pb.FleetAnswers, members: Members, steps: Steps) -> None:
        first, step = int(members[0]), steps[0]
        promise = self._in_flight.awaiting(first, int(step))
        if promise is None:
            if self.ended is not None and not self._in_flight:
                return  # it was abandoned
            raise ProtocolError(f"the server answered a step of member {first} that was not sent")
        promise.parts.append(message)
        self.answered[members] = steps + np.uint64(1)
        self._in_flight.settle(promise, len(members))

    def checkpointed(self, members: Members, safe: Steps) -> None:
        if self._replay is not None:
            heard = safe <= self.answered[members]
            self._replay.checkpointed(members[heard], safe[heard])

    def refused(self, failure: pb.Failure) -> bool:
        members = np.array(failure.handles, np.int64) - self.handle
        expected = np.array(failure.expected_steps, np.uint64)
        first = int(expected[0]) if len(expected) else None
        refusal = read_refusal(failure.error, first)
        promise = self._in_flight.awaiting(int(members[0]), failure.first_step)
        if promise is None:
            return self._refused_again(int(members[0]), failure.first_step, refusal)
        if self._released and refusal.reason == "WRONG_STEP":  # it follows from that; Released fails both
            return True
        if len(expected) != len(members):
            self.unknown(refusal.reason, refusal.message)
            return True
        if not promise.was_doomed(members):
            self._begin_again(promise, members, expected)
        promise.refusal = self.ended if isinstance(self.ended, SequenceLost) else refusal
        self._in_flight.settle(promise, len(members))
        return True

    def member_released(self) -> None:
        """The server has refused a step because it has released a member of it."""
        self._released = True

    def _refused_again(self, member: int, step: int, refusal: Refused) -> bool:
        if not self._back_at[member] <= step < self._again[member]:
            return False
        self._lose(refusal, "a step could not be repeated")
        return True

    def _begin_again(self, promise: FleetPromise, members: Members, expected: Steps) -> None:
        """Enters that these members go on at `expected` [N]: their steps that were sent later will be refused."""
        self.next_step[members] = expected
        ends = np.full(self.count, np.iinfo(np.uint64).max, np.uint64)
        ends[members] = expected
        if self._replay is not None:
            self._replay.cut(ends)
        self._in_flight.doom_after(promise, ends)

    def say(self, requests: list[pb.StreamRequest]) -> list[pb.StreamRequest]:
        return [] if self.parked else requests

    # After a loss.

    def park(self) -> None:
        self.parked = True
        self._released = False
        self._in_flight.refuse_doomed()
        self._in_flight.forget(self.next_step)
        if self._replay is not None:
            self._replay.cut(self.next_step)

    def claim(self) -> Claim:
        return self.opening.claim(self.answered)

    def resumed(self, opened: pb.Opened) -> list[pb.StreamRequest]:
        assert self._replay is not None
        self.opening = self.opening.renewed(opened)
        self.version = opened.version
        self._most = 0
        start = self.opening.next_steps
        self._go_on_at(start, kept=self._replay.reaches(start))
        requests = []
        for members, request in self._replay.since(start, self.answered, self._rows_of_a_message()):
            self._say_answered(members, request)
            requests.append(request)
        return requests

    # Reading.

    def answers(self, promise: FleetPromise) -> FleetAnswers:
        return read_fleet_step(promise, self.opening)


Sent = tuple[FleetPromise, list[pb.StreamRequest]]


def _message(block: Block, handles: bytes, steps: bytes) -> pb.StreamRequest:
    first, end = block.first, block.first + block.rows
    request = pb.StreamRequest()
    request.fleet.handles = handles[first * HANDLE.itemsize : end * HANDLE.itemsize]
    request.fleet.steps = steps[first * STEP.itemsize : end * STEP.itemsize]
    block.write(request.fleet)
    return request
