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
from tidegate.inputs import Block, Inputs
from tidegate.opening import Opening
from tidegate.ticket import Ticket
from tidegate.v1 import sequence_pb2 as pb


class StepsTicket(Ticket[list[pb.Answers]]):
    """`count` steps from `first_step`, sent in one message or several, each of them answered in one or more parts."""

    __slots__ = ("_left", "_refusal", "count", "first_step", "parts")

    def __init__(self, first_step: int, count: int, messages: int) -> None:
        super().__init__()
        self.first_step = first_step
        self.count = count
        self.parts: list[pb.Answers] = []
        self._left = messages
        self._refusal: TidegateError | None = None

    def settle(self, refusal: TidegateError | None = None) -> bool:
        """Counts a message that was answered or refused; whether it was the last one. The first refusal counts."""
        self._refusal = self._refusal or refusal
        self._left -= 1
        if self._left:
            return False
        if self._refusal is not None:
            self.fail(self._refusal)
        else:
            self.resolve(self.parts)
        return True


class _Sent:
    """One Steps message on its way."""

    __slots__ = ("attempt", "end", "first_step", "next_answer", "ticket")

    def __init__(self, ticket: StepsTicket, first_step: int, count: int, attempt: int) -> None:
        self.ticket = ticket
        self.first_step = self.next_answer = first_step
        self.end = first_step + count
        self.attempt = attempt

    def is_refused_by(self, failure: pb.Failure) -> bool:
        """Refused as a whole, or from a step on that could not be computed, before which the sequence then stands.

        A server may take a long message in several parts. If a step fails, it refuses each part after it; those
        refusals say nothing new, and nothing of messages that were sent since.
        """
        step = failure.first_step
        stands_there = not failure.expected_steps or failure.expected_steps[0] == step
        return step == self.first_step or (self.first_step < step < self.end and stands_there)


class Ledger:
    """The books of one sequence. `next_step` is the number that its next step will have."""

    def __init__(self, opening: Opening) -> None:
        # The sequence.
        self.opening = opening
        self.handle = opening.handle
        self._inputs = opening.inputs
        self._layout = opening.layout
        self._most = 0  # rows of one message, once it is known
        # Its steps.
        self.next_step = 0
        self.ended: TidegateError | None = None
        # How often sending began again after a refusal. A refusal of what was sent before that says nothing about
        # where the sequence stands now.
        self._attempt = 0
        self._pending: deque[_Sent] = deque()

    # Sending.

    def send_step(self, values: Inputs) -> tuple[StepsTicket, list[pb.StreamRequest]]:
        """One step as a message, and the ticket of its answer. Raises BadInput, SequenceEnded; then nothing changed."""
        try:
            block = self._inputs.step(values)
            return self._send([block] if self._most else self._cut(block), 1)
        except Refused as error:
            error.expected_step = self.next_step
            raise

    def send_chunk(self, values: Inputs) -> tuple[StepsTicket, list[pb.StreamRequest]]:
        """Many steps, [T, ...row], in as few messages as the server's limit allows. Raises as `send_step` does."""
        try:
            block = self._inputs.block(values)
            if not block.rows:
                raise refused("WRONG_SHAPE", "a chunk needs at least one step")
            return self._send(self._cut(block), block.rows)
        except Refused as error:
            error.expected_step = self.next_step
            raise

    def _cut(self, block: Block) -> list[Block]:
        self._most = self._most or self._inputs.rows_within(self.opening.max_message_bytes)
        return block.cut(self._most)

    def _send(self, blocks: list[Block], count: int) -> tuple[StepsTicket, list[pb.StreamRequest]]:
        if self.ended is not None:
            raise copy(self.ended)
        ticket = StepsTicket(self.next_step, count, len(blocks))
        return ticket, [self._message(ticket, block) for block in blocks]

    def _message(self, ticket: StepsTicket, block: Block) -> pb.StreamRequest:
        first = self.next_step
        self._pending.append(_Sent(ticket, first, block.rows, self._attempt))
        self.next_step = first + block.rows
        request = pb.StreamRequest()
        steps = request.steps
        steps.handle = self.handle
        steps.first_step = first
        block.write(steps)
        return request

    # Receiving.

    def answered(self, message: pb.Answers) -> StepsTicket | None:
        """Enters an answer; the ticket that it settles, if it is the last part of one."""
        sent = self._awaiting(message.first_step)
        ticket = sent.ticket
        ticket.parts.append(message)
        sent.next_answer += 1 if ticket.count == 1 else _rows(message)
        return self._settled(sent) if sent.next_answer >= sent.end else None

    def refused(self, failure: pb.Failure) -> StepsTicket | None:
        """Enters a refusal; the ticket that it settles, if it is the last part of one."""
        sent = next((sent for sent in self._pending if sent.is_refused_by(failure)), None)
        if sent is None:
            return None
        expected = failure.expected_steps[0] if failure.expected_steps else None
        if expected is None:
            self.end(SequenceEnded(f"the server does not know this sequence any more: {failure.error.message}"))
        elif sent.attempt == self._attempt:
            self._attempt += 1
            self.next_step = expected
        return self._settled(sent, refused(reason_name(failure.error.reason), failure.error.message, expected))

    def _settled(self, sent: _Sent, refusal: TidegateError | None = None) -> StepsTicket | None:
        self._pending.remove(sent)
        return sent.ticket if sent.ticket.settle(refusal) else None

    def end(self, error: TidegateError) -> None:
        """No more steps: whoever tries gets this error."""
        self.ended = self.ended or error

    def abandon(self, error: TidegateError) -> list[StepsTicket]:
        """Ends it and fails everything that is still waiting."""
        self.end(error)
        waiting = list(dict.fromkeys(sent.ticket for sent in self._pending))
        self._pending.clear()
        for ticket in waiting:
            ticket.fail(error)
        return waiting

    def _awaiting(self, step: int) -> _Sent:
        for sent in self._pending:  # the first one, but for steps whose refusal is still to come
            if sent.next_answer == step:
                return sent
        raise ProtocolError(f"the server answered step {step} of handle {self.handle}, which waits for no such answer")

    # Reading.

    def answer(self, ticket: StepsTicket) -> Answer:
        """The answer to one step. Raises what the ticket failed with."""
        message = ticket.result()[0]
        outputs = read_outputs(message.outputs)
        for name, array in outputs.items():
            outputs[name] = array[0]
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
