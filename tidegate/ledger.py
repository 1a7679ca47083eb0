"""The books of one open sequence: which step comes next, what was sent, what is still to be answered.

Pure: no connection, no thread, no clock. Answers come in the order of the steps; a refusal may overtake the answers of
earlier steps, because the server checks a step before it runs it.
"""

from collections import deque
from collections.abc import Sequence
from copy import copy

import numpy as np

from tidegate.answers import Answer, Answers, read_outputs, read_tensor
from tidegate.errors import ProtocolError, Refused, SequenceEnded, TidegateError, reason_name, refused
from tidegate.inputs import Inputs
from tidegate.opening import Opening
from tidegate.ticket import Ticket
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1.tensor_pb2 import Tensor


class StepsTicket(Ticket[list[pb.Answers]]):
    """One Steps message on its way: `count` steps from `first_step`, answered in one or more parts."""

    __slots__ = ("attempt", "count", "first_step", "parts", "received")

    def __init__(self, first_step: int, count: int, attempt: int) -> None:
        super().__init__()
        self.first_step = first_step
        self.count = count
        self.attempt = attempt
        self.parts: list[pb.Answers] = []
        self.received = 0


class Ledger:
    """The books of one sequence. `next_step` is the number that its next step will have."""

    def __init__(self, opening: Opening) -> None:
        # The sequence.
        self.opening = opening
        self.handle = opening.handle
        self._inputs = opening.inputs
        self._layout = opening.layout
        # Its steps.
        self.next_step = 0
        self.ended: TidegateError | None = None
        # How often sending began again after a refusal. A refusal of what was sent before that says nothing about
        # where the sequence stands now.
        self._attempt = 0
        self._pending: deque[StepsTicket] = deque()

    # Sending.

    def send_step(self, values: Inputs) -> tuple[StepsTicket, pb.StreamRequest]:
        """One step as a message, and the ticket of its answer. Raises BadInput, SequenceEnded; then nothing changed."""
        try:
            return self._send(self._inputs.step(values), 1)
        except Refused as error:
            error.expected_step = self.next_step
            raise

    def send_chunk(self, values: Inputs) -> tuple[StepsTicket, pb.StreamRequest]:
        """Many steps in one message, [T, ...row]. Raises as `send_step` does."""
        try:
            block = self._inputs.block(values)
            if not block.rows:
                raise refused("WRONG_SHAPE", "a chunk needs at least one step")
            return self._send(block.tensors, block.rows)
        except Refused as error:
            error.expected_step = self.next_step
            raise

    def _send(self, inputs: list[Tensor], count: int) -> tuple[StepsTicket, pb.StreamRequest]:
        if self.ended is not None:
            raise copy(self.ended)
        first = self.next_step
        ticket = StepsTicket(first, count, self._attempt)
        self._pending.append(ticket)
        self.next_step = first + count
        return ticket, pb.StreamRequest(steps=pb.Steps(handle=self.handle, first_step=first, inputs=inputs))

    # Receiving.

    def answered(self, message: pb.Answers) -> StepsTicket | None:
        """Enters an answer; the ticket that it settles, if it is the last part of one."""
        ticket = self._awaiting(message.first_step)
        ticket.parts.append(message)
        ticket.received += 1 if ticket.count == 1 else _rows(message)
        if ticket.received < ticket.count:
            return None
        self._pending.remove(ticket)
        ticket.resolve(ticket.parts)
        return ticket

    def refused(self, failure: pb.Failure) -> StepsTicket | None:
        """Enters a refusal; the ticket that it settles, None if it concerns none of these steps."""
        step = failure.first_step
        ticket = next((t for t in self._pending if t.first_step <= step < t.first_step + t.count), None)
        if ticket is None:
            return None
        expected = failure.expected_steps[0] if failure.expected_steps else None
        if expected is None:
            self.end(SequenceEnded(f"the server does not know this sequence any more: {failure.error.message}"))
        elif ticket.attempt == self._attempt:
            self._attempt += 1
            self.next_step = expected
        self._pending.remove(ticket)
        ticket.fail(refused(reason_name(failure.error.reason), failure.error.message, expected))
        return ticket

    def end(self, error: TidegateError) -> None:
        """No more steps: whoever tries gets this error."""
        self.ended = self.ended or error

    def abandon(self, error: TidegateError) -> list[StepsTicket]:
        """Ends it and fails everything that is still waiting."""
        self.end(error)
        waiting = list(self._pending)
        self._pending.clear()
        for ticket in waiting:
            ticket.fail(error)
        return waiting

    def _awaiting(self, step: int) -> StepsTicket:
        for ticket in self._pending:  # the first one, but for steps whose refusal is still to come
            if ticket.first_step + ticket.received == step:
                return ticket
        raise ProtocolError(f"the server answered step {step} of handle {self.handle}, which waits for no such answer")

    # Reading.

    def answer(self, ticket: StepsTicket) -> Answer:
        """The answer to one step. Raises what the ticket failed with."""
        message = ticket.result()[0]
        outputs = {name: array[0] for name, array in read_outputs(message.outputs).items()}
        trace = read_tensor(message.trace)[0] if message.HasField("trace") else None
        return Answer(outputs, trace, self._layout, message.first_step, message.checkpointed)

    def answers(self, ticket: StepsTicket) -> Answers:
        """The answers to a chunk, put together from its parts. Raises what the ticket failed with."""
        parts = ticket.result()
        blocks = [read_outputs(part.outputs) for part in parts]
        traces = [read_tensor(part.trace) for part in parts if part.HasField("trace")]
        return Answers(
            outputs={name: _joined([block[name] for block in blocks]) for name in blocks[0]},
            trace=_joined(traces) if traces else None,
            layout=self._layout,
            first_step=ticket.first_step,
            count=ticket.count,
            checkpointed=parts[-1].checkpointed,
        )


def _rows(message: pb.Answers) -> int:
    """How many steps a message answers."""
    if not message.outputs or not message.outputs[0].shape:
        raise ProtocolError("the server sent an answer without a first axis for its steps")
    return message.outputs[0].shape[0]


def _joined(blocks: Sequence[np.ndarray]) -> np.ndarray:
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
