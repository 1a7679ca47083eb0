"""The books of one open sequence: which step comes next, what was sent, what is still to be answered.

Pure: no connection, no thread, no clock. Answers come in the order of the steps; a refusal may overtake the answers of
earlier steps, because the server checks a step before it runs it. After a loss the books are parked until the sequence
is open on another stream; what is sent meanwhile goes out then.
"""

from collections.abc import Callable, Sequence
from copy import copy

import numpy as np

from tidegate.errors import ProtocolError, Refused, SequenceLost, TidegateError, refused
from tidegate.inputs import Block, InputLayout, Inputs
from tidegate.messages import read_refusal
from tidegate.plain.answers import SomeAnswers
from tidegate.plain.steps import PlainStep, Request
from tidegate.protocol.assembly import read_chunk, read_step, rows_of
from tidegate.protocol.books import CommonBooks
from tidegate.protocol.budget import Budget
from tidegate.protocol.control import BLOCKING, Control, Controls, Turns
from tidegate.protocol.in_flight import InFlight, Sent, StepsPromise
from tidegate.protocol.opening import Claim, Opening
from tidegate.protocol.promise import Promise
from tidegate.protocol.replay import Replay
from tidegate.v1 import sequence_pb2 as pb

_PART = 64 * 2**10  # bytes of a part of a long chunk, about
_AHEAD = 1024  # steps that may always be sent before the first of them is answered


Sending = tuple[StepsPromise, Sequence[Request]]


class SequenceBooks(CommonBooks[int, Replay, InFlight]):
    """The books of one sequence. With a `budget` it can go on after a loss, if the server keeps checkpoints."""

    what = "sequence"
    answer = staticmethod(read_step)
    answers = staticmethod(read_chunk)

    def __init__(self, opening: Opening, budget: Budget | None = None) -> None:
        first = int(opening.next_steps[0])
        claimed = isinstance(opening.order, Claim)
        replay = Replay(first, budget, claimed=claimed) if budget is not None and opening.token else None
        super().__init__(opening, first, replay, InFlight())
        # The sequence.
        self._takes = (opening.version, opening.inputs)  # those of a version, as `takes` was last called
        self.held: int | None = None  # how many answers the caller has put in a safe place; None: all
        self._controls = Controls()
        self._turns = Turns()
        self._answered_here = first  # on this stream: the first step that it did not answer

    @property
    def _safe(self) -> int:
        return self.answered if self.held is None else min(self.held, self.answered)

    # Sending.

    def send_step(self, values: Inputs) -> Sending:
        """One step as a message, and its promise. Raises BadInput, SequenceEnded; then nothing changed."""
        row = self._inputs.row(values)
        if row is None or not self._most or self.ended is not None or self._takes[1] is not self._inputs:
            return self._send(values, InputLayout.step)
        step = self.next_step
        promise, request = StepsPromise(step, 1, 1), PlainStep(self.handle, step, *row)
        if self._replay is not None:
            request.answered = self.answered if self.held is None else self._safe
            self._replay.keep(request)
        self._in_flight.add(promise, step, 1)
        self.next_step = step + 1  # last, as in `_send`
        return promise, [request] if self._at_once() else self.say([request.message])

    def send_chunk(self, values: Inputs) -> Sending:
        """Many steps, [T, ...row], in as few messages as the server's limit allows. Raises as `send_step` does."""
        return self._send(values, InputLayout.block)

    def _send(self, values: Inputs, write: Callable[[InputLayout, Inputs], Block]) -> Sending:
        try:
            block = write(self._written(), values)
            if not block.rows:
                raise refused("WRONG_SHAPE", "a chunk needs at least one step")
            blocks = [block] if block.rows <= self._most else self._cut(block)
            if self.ended is not None:
                raise copy(self.ended)
        except Refused as error:
            error.expected_step = self.next_step
            raise
        promise = StepsPromise(self.next_step, block.rows, len(blocks))
        requests = [self._message(promise, part, self.next_step + part.first) for part in blocks]
        self.next_step += block.rows  # last: where this is interrupted nothing was sent, and `park` forgets it
        return promise, requests if self._at_once() else self.say(requests)

    def _at_once(self) -> bool:
        turns = self._turns
        if turns.later or turns.blocked or self.parked:
            return False
        return self.next_step - self._answered_here <= _AHEAD or self.next_step <= self._most_ahead

    def room(self) -> Promise[None] | None:
        if self.ended is not None:
            return None
        if self._controls.waiting and self._controls.held:
            return self._controls.room()
        return None if self._replay is None else self._replay.room()

    @property
    def knows_inputs(self) -> bool:
        """Whether the inputs of its present version are known; if not, the caller has to call `takes`."""
        return self._takes[0] == self.version

    def takes(self, version: int, inputs: InputLayout) -> None:
        """Sets the inputs of the version that it moved to, for which the next steps are written. From any thread."""
        self._takes = (version, inputs)

    def _written(self) -> InputLayout:
        version, inputs = self._takes
        if inputs is not self._inputs and version == self.version:
            self._inputs = inputs
            self._most = 0
            if self._replay is not None:
                self._replay.part()
        return self._inputs

    def _rows_of_a_message(self) -> int:
        most = self._inputs.rows_within(self.opening.max_message_bytes)
        return min(most, max(_AHEAD, _PART // self._inputs.row_bytes))

    def _message(self, promise: StepsPromise, block: Block, first: int) -> pb.StreamRequest:
        request = pb.StreamRequest()
        steps = request.steps
        steps.handle = self.handle
        steps.first_step = first
        block.write(steps)
        if self._replay is not None:
            steps.answered = self._safe
            self._replay.add(first, first + block.rows, request, block.size, alone=block.alone)
        self._in_flight.add(promise, first, block.rows)
        return request

    # Asking for more than answers.

    def ask(self, kind: str, message: pb.StreamRequest) -> tuple[Promise[pb.StreamResponse], list[pb.StreamRequest]]:
        if self.ended is not None:
            raise copy(self.ended)
        control = Control(kind, self.next_step, message)
        self._controls.add(control)
        return control.promise, self.say([message])

    def say(self, requests: list[pb.StreamRequest]) -> list[pb.StreamRequest]:
        """Returns the requests that can be sent now; the rest is sent later, in this order. None without a stream."""
        return [] if self.parked else self._turns.say(requests, self._most_ahead)

    @property
    def _most_ahead(self) -> int:
        return self._answered_here + max(self._most, _AHEAD)

    def told(self, kind: str, response: pb.StreamResponse) -> list[pb.StreamRequest]:
        """Enters the answer to a request that is no step; returns what to send."""
        if kind == "state":
            self._controls.settle("read_state", response)
            return []
        return self._rewound(response) if kind == "rewound" else self._moved(response)

    def _rewound(self, response: pb.StreamResponse) -> list[pb.StreamRequest]:
        step = response.rewound.next_step
        self.next_step = self.answered = self._back_at = self._again = self._answered_here = step
        if self._replay is not None:
            self._replay.rewound(step)
        self._controls.rewound(step)
        self._controls.settle("rewind", response)
        return self._turns.go_on(self._most_ahead)

    def _moved(self, response: pb.StreamResponse) -> list[pb.StreamRequest]:
        moved = response.moved
        self.opening = self.opening.moved(moved)
        self.version = moved.version
        self._controls.moved(moved.next_step, moved.version, response)
        return self._turns.go_on(self._most_ahead)

    # Receiving.

    def receive(self, message: SomeAnswers) -> list[pb.StreamRequest]:
        """Enters an answer to steps; returns what to send. Raises ProtocolError."""
        first = message.first_step
        if self._back_at <= first < self._again:
            self._answered_here = first + rows_of(message)
            if self._answered_here > self._again:
                raise ProtocolError(f"the server answered steps of two messages of handle {self.handle} in one")
            self.checkpointed(message.checkpointed)
            return self._go_on()
        sent = self._in_flight.awaiting(first)
        if sent is None:
            if self.ended is not None and not self._in_flight:
                return []  # it was abandoned
            what = f"step {first} of handle {self.handle}"
            raise ProtocolError(f"the server answered {what}, which waits for no such answer")
        promise = sent.promise
        promise.parts.append(message)
        promise.layout = self.opening.layout
        sent.next_answer += 1 if promise.count == 1 else rows_of(message)
        self.answered = self._answered_here = sent.next_answer
        replay = self._replay
        if replay is not None and message.checkpointed > replay.last:
            self.checkpointed(message.checkpointed)
        if sent.next_answer >= sent.end:
            self._in_flight.settle(sent)
        if replay is not None:
            replay.fold(self.answered)
        return self._go_on() if self._turns.later else []

    def _go_on(self) -> list[pb.StreamRequest]:
        return [] if self._turns.free or self._turns.blocked else self._turns.go_on(self._most_ahead)

    def checkpointed(self, step: int) -> None:
        if self._replay is not None and step <= self._safe:
            self._replay.checkpointed(step)

    def refused(self, failure: pb.Failure) -> bool:
        expected = failure.expected_steps[0] if failure.expected_steps else None
        refusal = read_refusal(failure.error, expected)
        steps = failure.request in {"", "steps"}
        sent = self._in_flight.refused_by(failure) if steps else None
        certain = sent is None and (self._turns.blocked or not failure.first_step)
        control = self._controls.refused(failure.request, refusal, certain=certain)
        if control is not None:
            self._turns.blocked = self._turns.blocked and control.kind not in BLOCKING
            if control.promise.done and self._controls.was_made(control):
                self._lose(refusal, "the move to another version could not be repeated")
            return True
        if steps and sent is None and self._back_at <= failure.first_step < self._again:
            self._lose(refusal, "a step could not be repeated")
            return True
        if sent is None:
            return False
        if expected is None:
            self.unknown(refusal.reason, refusal.message)
            return True
        news = not sent.doomed
        if news:
            self._begin_again(sent, expected)
        self._in_flight.settle(sent, self.ended if isinstance(self.ended, SequenceLost) else refusal)
        if news:
            self._in_flight.refuse_doomed(expected, only=self._turns.drop_steps())
        return True

    def _begin_again(self, refused_one: Sent, expected: int) -> None:
        self.next_step = self._answered_here = expected
        if self._replay is not None:
            self._replay.cut(expected)
        self._in_flight.doom_after(refused_one)

    def abandon(self, error: TidegateError) -> None:
        super().abandon(error)
        self._controls.fail(error)

    # After a loss.

    def park(self) -> None:
        self.parked = True
        self._turns.clear()
        self._in_flight.refuse_doomed(self.next_step)
        self._in_flight.forget(self.next_step)
        if self._replay is not None:
            self._replay.cut(self.next_step)

    def claim(self) -> Claim:
        return self.opening.claim((self._safe,))

    def resumed(self, opened: pb.Opened) -> list[pb.StreamRequest]:
        """Enters that it is open again; returns what to send, in order. Raises ProtocolError, SequenceLost."""
        assert self._replay is not None
        self.opening = self.opening.renewed(opened)
        start = int(self.opening.next_steps[0])
        if not self._replay.reaches(start) and self._controls.took_place("rewind"):
            self._rewound(pb.StreamResponse(rewound=pb.Rewound(handle=self.handle, next_step=start)))
        self._go_on_at(start, kept=self._replay.reaches(start))
        self._answered_here = start
        self._in_flight.send_again()
        return self._resend(self._replay, start, opened.version)

    def _resend(self, replay: Replay, start: int, version: int) -> list[pb.StreamRequest]:
        self._most = most = self._rows_of_a_message()
        controls = self._controls.again(start, version)
        if not controls:
            self.version = version  # an operator may have moved it
        requests: list[pb.StreamRequest] = []
        parted = {self.answered, *(control.at for control in controls)}
        for first, _, request in replay.since(start, parted, most):
            while controls and controls[0].at <= first:
                requests.append(controls.popleft().request)
            request.steps.answered = self._safe
            requests.append(request)
        return self.say([*requests, *(control.request for control in controls)])

    def kept(self) -> tuple[int, dict[str, np.ndarray]]:
        """The inputs that are kept since it moved to other ones, [K, ...row] by name, and the step of the first row."""
        first, arrays = (self.next_step, {}) if self._replay is None else self._replay.arrays()
        return (first if arrays else self.next_step), arrays
