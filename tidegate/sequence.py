"""What is open on a server, for threads: a sequence, a fleet. They send, wait, and hand out what came."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tidegate import calls
from tidegate.answers import Answer, Answers, FleetAnswers
from tidegate.connection import Connection
from tidegate.conversation import Asked
from tidegate.errors import Refused
from tidegate.facts import FleetFacts, SequenceFacts
from tidegate.fleet_ledger import FleetLedger
from tidegate.flight import StepsTicket
from tidegate.inputs import InputLayout, Inputs
from tidegate.ledger import Ledger
from tidegate.opening import Opening
from tidegate.state import State
from tidegate.v1 import sequence_pb2 as pb

WINDOW = 64  # steps that `stream` keeps in flight


@dataclass(frozen=True, slots=True)
class Source:
    """Where a sequence comes from: what it takes to open another one like it, and the client's limit for a call.

    `open` makes a sequence that begins from a state, like an opening but of a version; `inputs` those of a version.
    """

    timeout: float | None
    open: Callable[[State, Opening, int, float | None], "Sequence"]
    inputs: Callable[[str, int, float | None], InputLayout]


class Sequence(SequenceFacts):
    """A sequence that remembers: it lives on the server and ends with this context manager.

    If the server keeps checkpoints, it survives a lost connection and a lost server: the call that notices goes on
    where it was, within the client's `resume_within`. Threads may use different sequences of one client at once.
    """

    def __init__(self, source: Source, connection: Connection, ledger: Ledger) -> None:
        self._source = source
        self._connection = connection
        self._ledger = ledger
        self._timeout = source.timeout

    def step(self, values: Inputs, timeout: float | None = None) -> Answer:
        """One step in, one answer out.

        `values` is one row, or a mapping of input names to rows. Raises BadInput or another Refused (the sequence is as
        it was and can go on), ConnectionLost, TimedOut (the step may have been taken), SequenceEnded.
        """
        limit = calls.limit(timeout, self._timeout)
        ticket = self._connection.send(self._ledger, limit, self._ledger.send_step, values)
        self._connection.wait(ticket, limit)
        return self._ledger.answer(ticket)

    def chunk(self, values: Inputs, timeout: float | None = None) -> Answers:
        """Many steps at once, [T, ...row] for each input; all of them, or none if refused. Raises as `step`.

        They go in one message, or in several if the server takes none so large: back to back, so that steps of other
        sequences of this client wait until they are sent. Only if the model itself fails in the midst (STEP_FAILED) are
        the steps before taken: see `next_step`.
        """
        limit = calls.limit(timeout, self._timeout)
        ticket = self._connection.send(self._ledger, limit, self._ledger.send_chunk, values)
        self._connection.wait(ticket, limit)
        return self._ledger.answers(ticket)

    def stream(self, rows: Iterable[Inputs], window: int = WINDOW, timeout: float | None = None) -> Iterator[Answer]:
        """Steps from any iterable, up to `window` of them in flight; their answers in order.

        An answer is handed out once `window` steps are in flight or `rows` is at its end: with rows that come live, use
        window=1. A refused row raises at its turn, and the sequence can go on from there. `timeout` is for each answer.
        Leaving early leaves the sequence after the last row that was sent: see `next_step`.
        """
        calls.check_window(window)
        limit = calls.limit(timeout, self._timeout)
        in_flight: deque[StepsTicket] = deque()
        refusal: Refused | None = None
        for row in rows:
            try:
                in_flight.append(self._connection.send(self._ledger, limit, self._ledger.send_step, row))
            except Refused as error:
                refusal = error
                break
            if len(in_flight) >= window:
                yield self._answer(in_flight.popleft(), timeout)
        while in_flight:
            yield self._answer(in_flight.popleft(), timeout)
        if refusal is not None:
            raise refusal

    def state(self, timeout: float | None = None) -> State:
        """Its state after the steps that were sent, as a value. Raises as `step`."""
        return State.read(self._ask(self._connection.talk.read_state, timeout).state.state)

    def fork(self, timeout: float | None = None) -> "Sequence":
        """A new sequence of the same version that begins where this one stands. Raises as Client.sequence."""
        return self._source.open(self.state(timeout), self._ledger.opening, self.version, timeout)

    def rewind(self, step: int, timeout: float | None = None) -> int:
        """Goes back to the newest checkpoint at or before `step`, and says which step it takes next.

        What came after is forgotten, but for a move: it stays on its version. Raises Refused (CHECKPOINT_GONE) if no
        such checkpoint is kept.
        """
        return self._ask(self._connection.talk.rewind, timeout, step).rewound.next_step

    def move(self, version: int = 0, timeout: float | None = None) -> int:
        """Goes on with another version of the model (0: the newest that is ready); says from which step.

        Raises Refused (WRONG_STATE) if its states have other names or shapes; then nothing changed.
        """
        moved = self._ask(self._connection.talk.move, timeout, version).moved
        self._ledger.takes(self._source.inputs(self.model, moved.version, timeout))
        return moved.next_step

    def close(self, timeout: float | None = None) -> None:
        """Ends the sequence and waits until the server has done so. Leaving the context does not wait."""
        ticket = self._connection.end(self._ledger)
        self._connection.wait(ticket, calls.limit(timeout, self._timeout))
        ticket.result()

    def _ask(self, build: Callable[..., Asked], timeout: float | None, *values: object) -> pb.StreamResponse:
        ticket = self._connection.ask(build, self._ledger, *values)
        self._connection.wait(ticket, calls.limit(timeout, self._timeout))
        return ticket.result()

    def _answer(self, ticket: StepsTicket, timeout: float | None) -> Answer:
        self._connection.wait(ticket, calls.limit(timeout, self._timeout))
        return self._ledger.answer(ticket)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.leave(self._ledger)


class Fleet(FleetFacts):
    """Many sequences of one model that take their steps together; its members are numbered from 0.

    It goes on as a whole: if a member is lost, so is the fleet, and the other members are parked; `client.resume` takes
    each of them up by its id.
    """

    def __init__(self, connection: Connection, ledger: FleetLedger, timeout: float | None) -> None:
        self._connection = connection
        self._ledger = ledger
        self._timeout = timeout

    def step(
        self, values: Inputs, members: Rows[int] | NDArray[np.integer[Any]] | None = None, timeout: float | None = None
    ) -> FleetAnswers:
        """One step of every member, or of `members`: values [N, ...row] in their order. Raises as Sequence.chunk."""
        limit = calls.limit(timeout, self._timeout)
        ticket = self._connection.send(self._ledger, limit, self._ledger.send, values, members)
        self._connection.wait(ticket, limit)
        return self._ledger.answers(ticket)

    def close(self, timeout: float | None = None) -> None:
        """Ends all members and waits until the server has done so. Leaving the context does not wait."""
        ticket = self._connection.end(self._ledger)
        self._connection.wait(ticket, calls.limit(timeout, self._timeout))
        ticket.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.leave(self._ledger)
