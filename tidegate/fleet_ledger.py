"""The books of a fleet: many sequences of one model that take a step each in one message. Pure, as the ledger is.

Arrays throughout: nothing here loops over sequences. N rows of one message, C sequences of the fleet.
"""

from collections import deque
from collections.abc import Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray

from tidegate.answers import FleetAnswers, read_outputs, read_tensor
from tidegate.errors import ProtocolError, SequenceEnded, TidegateError, reason_name, refused
from tidegate.inputs import Block, Inputs
from tidegate.opening import Opening
from tidegate.ticket import Ticket
from tidegate.v1 import sequence_pb2 as pb

_HANDLE = np.dtype("<u4")
_STEP = np.dtype("<u8")
_ROW_BYTES = _HANDLE.itemsize + _STEP.itemsize  # what a row takes besides its inputs

Members = NDArray[np.int64]


class FleetTicket(Ticket[list[pb.FleetAnswers]]):
    """One step of many members on its way: `members` [N] take the steps `steps` [N], in one message or several."""

    __slots__ = ("attempts", "handles", "members", "parts", "received", "refusal", "steps")

    def __init__(
        self, members: Members, handles: bytes, steps: NDArray[np.uint64], attempts: NDArray[np.int64]
    ) -> None:
        super().__init__()
        self.members = members
        self.handles = handles
        self.steps = steps
        self.attempts = attempts
        self.parts: list[pb.FleetAnswers] = []
        self.received = 0
        self.refusal: TidegateError | None = None

    def takes(self, member: int, step: int) -> bool:
        """Whether this message has that step of that member."""
        if self.members[0] == member and self.steps[0] == step:  # nearly every answer begins as its request did
            return True
        return bool(((self.members == member) & (self.steps == step)).any())

    def settle(self, rows: int) -> bool:
        """Counts rows that were answered or refused; whether that was all."""
        self.received += rows
        if self.received < len(self.members):
            return False
        if self.refusal is not None:
            self.fail(self.refusal)
        else:
            self.resolve(self.parts)
        return True


class FleetLedger:
    """The books of one fleet. `next_steps` [C] is the number that the next step of each member will have."""

    def __init__(self, opening: Opening) -> None:
        # The fleet.
        self.opening = opening
        self.handle = opening.handle
        self.count = count = opening.count
        self._inputs = opening.inputs
        self._layout = opening.layout
        self._all: Members = np.arange(count, dtype=np.int64)
        self._handles = _handles(self._all, self.handle)
        self._most = 0  # rows of one message, once it is known
        # Its steps.
        self.next_steps: NDArray[np.uint64] = np.zeros(count, np.uint64)
        self.ended: TidegateError | None = None
        self._attempts: NDArray[np.int64] = np.zeros(count, np.int64)  # see Ledger
        self._pending: deque[FleetTicket] = deque()

    # Sending.

    def send(self, values: Inputs, members: Sequence[int] | NDArray[np.integer] | None = None) -> "Sent":
        """One step of these members (None: all), values [N, ...row] in their order. Raises BadInput, SequenceEnded."""
        if self.ended is not None:
            raise copy(self.ended)
        chosen = self._all if members is None else self._chosen(members)
        handles = self._handles if members is None else _handles(chosen, self.handle)
        blocks = self._cut(self._inputs.block(values, rows=len(chosen)))
        rows = slice(None) if members is None else chosen  # all of them at once cost less
        steps = self.next_steps[rows].copy()
        ticket = FleetTicket(chosen, handles, steps, self._attempts[rows].copy())
        self._pending.append(ticket)
        self.next_steps[rows] = steps + np.uint64(1)
        numbers = steps.astype(_STEP).tobytes()
        return ticket, [_message(block, handles, numbers) for block in blocks]

    def _cut(self, block: Block) -> list[Block]:
        self._most = self._most or self._inputs.rows_within(self.opening.max_message_bytes, _ROW_BYTES)
        return block.cut(self._most)

    def _chosen(self, members: Sequence[int] | NDArray[np.integer]) -> Members:
        chosen = np.array(members, np.int64)
        if chosen.ndim != 1 or not len(chosen):
            raise refused("MALFORMED", "a fleet's step needs a list of at least one member")
        if chosen.min() < 0 or chosen.max() >= self.count:
            raise refused("UNKNOWN_HANDLE", f"this fleet has the members 0 to {self.count - 1}")
        if np.bincount(chosen).max() > 1:
            raise refused("MALFORMED", "a member of a fleet can take only one step in one message")
        return chosen

    # Receiving.

    def owns(self, handle: int) -> bool:
        """Whether this handle is one of the fleet's."""
        return self.handle <= handle < self.handle + self.count

    def answered(self, message: pb.FleetAnswers) -> FleetTicket | None:
        """Enters a part of an answer; the ticket that it settles, if it is the last."""
        handles = np.frombuffer(message.handles, _HANDLE)
        ticket = self._awaiting(int(handles[0]) - self.handle, int(np.frombuffer(message.steps, _STEP)[0]))
        if ticket is None:
            raise ProtocolError(f"the server answered a fleet step of handle {handles[0]} that nobody waits for")
        ticket.parts.append(message)
        return self._settled(ticket, len(handles))

    def refused(self, failure: pb.Failure) -> FleetTicket | None:
        """Enters a refusal; the ticket that it settles, None if it concerns none or only a part of one."""
        members = np.array(failure.handles, np.int64) - self.handle
        ticket = self._awaiting(int(members[0]), failure.first_step)
        if ticket is None:
            return None
        expected = np.array(failure.expected_steps, np.uint64)
        if len(expected) == len(members):
            self._begin_again(ticket, members, expected)
        else:
            self.end(SequenceEnded(f"the server does not know this fleet any more: {failure.error.message}"))
        first = int(expected[0]) if len(expected) else None
        ticket.refusal = refused(reason_name(failure.error.reason), failure.error.message, first)
        return self._settled(ticket, len(members))

    def end(self, error: TidegateError) -> None:
        """No more steps: whoever tries gets this error."""
        self.ended = self.ended or error

    def abandon(self, error: TidegateError) -> list[FleetTicket]:
        """Ends it and fails everything that is still waiting."""
        self.end(error)
        waiting = list(self._pending)
        self._pending.clear()
        for ticket in waiting:
            ticket.fail(error)
        return waiting

    def _awaiting(self, member: int, step: int) -> FleetTicket | None:
        return next((ticket for ticket in self._pending if ticket.takes(member, step)), None)

    def _settled(self, ticket: FleetTicket, rows: int) -> FleetTicket | None:
        if not ticket.settle(rows):
            return None
        self._pending.remove(ticket)
        return ticket

    def _begin_again(self, ticket: FleetTicket, members: Members, expected: NDArray[np.uint64]) -> None:
        sent = np.zeros(self.count, np.int64)
        sent[ticket.members] = ticket.attempts
        current = sent[members] == self._attempts[members]
        self.next_steps[members[current]] = expected[current]
        self._attempts[members[current]] += 1

    # Reading.

    def answers(self, ticket: FleetTicket) -> FleetAnswers:
        """The answers in the order of the inputs, put together from their parts. Raises what the ticket failed with."""
        parts = ticket.result()
        blocks = [read_outputs(part.outputs) for part in parts]
        outputs = {name: _joined([block[name] for block in blocks]) for name in blocks[0]}
        traces = [read_tensor(part.trace) for part in parts if part.HasField("trace")]
        trace = _joined(traces) if traces else None
        checkpointed = _joined([_checkpointed(part) for part in parts])
        handles = b"".join([part.handles for part in parts])
        if handles != ticket.handles:  # they came in another order
            order = self._order(ticket, np.frombuffer(handles, _HANDLE).astype(np.int64) - self.handle)
            outputs = {name: array[order] for name, array in outputs.items()}
            trace = trace if trace is None else trace[self._traced_order(ticket, order)]
            checkpointed = checkpointed[order]
        return FleetAnswers(outputs, trace, self._layout, ticket.members, ticket.steps, checkpointed)

    def _order(self, ticket: FleetTicket, came: Members) -> NDArray[np.int64]:
        """Where the row of each of the ticket's members stands among the rows as they came."""
        row_of = np.zeros(self.count, np.int64)
        row_of[came] = np.arange(len(came))
        return row_of[ticket.members]

    def _traced_order(self, ticket: FleetTicket, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same for the rows of the trace, which only some members may have."""
        traced = self._layout.traced(ticket.steps)
        came = np.zeros(len(order), np.int64)
        came[order] = traced
        return (np.cumsum(came) - 1)[order[traced]]


Sent = tuple[FleetTicket, list[pb.StreamRequest]]


def _handles(members: Members, first: int) -> bytes:
    return (members + first).astype(_HANDLE).tobytes()


def _message(block: Block, handles: bytes, steps: bytes) -> pb.StreamRequest:
    first, end = block.first, block.first + block.rows
    request = pb.StreamRequest()
    request.fleet.handles = handles[first * _HANDLE.itemsize : end * _HANDLE.itemsize]
    request.fleet.steps = steps[first * _STEP.itemsize : end * _STEP.itemsize]
    block.write(request.fleet)
    return request


def _checkpointed(part: pb.FleetAnswers) -> NDArray[np.uint64]:
    if part.checkpointed:
        return np.frombuffer(part.checkpointed, _STEP)
    return np.zeros(len(part.handles) // _HANDLE.itemsize, np.uint64)


def _joined(blocks: Sequence[np.ndarray]) -> np.ndarray:
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
