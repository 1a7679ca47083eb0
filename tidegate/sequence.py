"""What is open on a server, for threads: a sequence, a fleet. They send, wait, and hand out what came."""

from collections import deque
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Rows
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tidegate import calls
from tidegate.answers import Answer, Answers, FleetAnswers
from tidegate.connection import Connection
from tidegate.errors import Refused
from tidegate.facts import FleetFacts, SequenceFacts
from tidegate.fleet_ledger import FleetLedger
from tidegate.inputs import Inputs
from tidegate.ledger import Ledger, StepsTicket

WINDOW = 64  # steps that `stream` keeps in flight


class Sequence(SequenceFacts):
    """A sequence that remembers: it lives on the server and ends with this context manager.

    Threads may use different sequences of one client at the same time.
    """

    def __init__(self, connection: Connection, ledger: Ledger, timeout: float | None) -> None:
        self._connection = connection
        self._ledger = ledger
        self._timeout = timeout

    def step(self, values: Inputs, timeout: float | None = None) -> Answer:
        """One step in, one answer out.

        `values` is one row, or a mapping of input names to rows. Raises BadInput or another Refused (the sequence is as
        it was and can go on), ConnectionLost, TimedOut (the step may have been taken), SequenceEnded.
        """
        ticket = self._connection.send(self._ledger.send_step, values)
        return self._answer(ticket, timeout)

    def chunk(self, values: Inputs, timeout: float | None = None) -> Answers:
        """Many steps at once, [T, ...row] for each input; all of them, or none if refused. Raises as `step`.

        They go in one message, or in several if the server takes none so large: back to back, so that steps of other
        sequences of this client wait until they are sent. Only if the model itself fails in the midst (STEP_FAILED) are
        the steps before taken: see `next_step`.
        """
        ticket = self._connection.send(self._ledger.send_chunk, values)
        self._connection.wait(ticket, calls.limit(timeout, self._timeout))
        return self._ledger.answers(ticket)

    def stream(self, rows: Iterable[Inputs], window: int = WINDOW, timeout: float | None = None) -> Iterator[Answer]:
        """Steps from any iterable, up to `window` of them in flight; their answers in order.

        An answer is handed out once `window` steps are in flight or `rows` is at its end: with rows that come live, use
        window=1. A refused row raises at its turn, and the sequence can go on from there. `timeout` is for each answer.
        Leaving early leaves the sequence after the last row that was sent: see `next_step`.
        """
        in_flight: deque[StepsTicket] = deque()
        refusal: Refused | None = None
        for row in rows:
            try:
                in_flight.append(self._connection.send(self._ledger.send_step, row))
            except Refused as error:
                refusal = error
                break
            if len(in_flight) >= window:
                yield self._answer(in_flight.popleft(), timeout)
        while in_flight:
            yield self._answer(in_flight.popleft(), timeout)
        if refusal is not None:
            raise refusal

    def close(self, timeout: float | None = None) -> None:
        """Ends the sequence and waits until the server has done so. Leaving the context does not wait."""
        ticket = self._connection.end(self._ledger)
        self._connection.wait(ticket, calls.limit(timeout, self._timeout))
        ticket.result()

    def _answer(self, ticket: StepsTicket, timeout: float | None) -> Answer:
        self._connection.wait(ticket, calls.limit(timeout, self._timeout))
        return self._ledger.answer(ticket)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.end(self._ledger)


class Fleet(FleetFacts):
    """Many sequences of one model that take their steps together; its members are numbered from 0."""

    def __init__(self, connection: Connection, ledger: FleetLedger, timeout: float | None) -> None:
        self._connection = connection
        self._ledger = ledger
        self._timeout = timeout

    def step(
        self, values: Inputs, members: Rows[int] | NDArray[np.integer[Any]] | None = None, timeout: float | None = None
    ) -> FleetAnswers:
        """One step of every member, or of `members`: values [N, ...row] in their order. Raises as Sequence.chunk."""
        ticket = self._connection.send(self._ledger.send, values, members)
        self._connection.wait(ticket, calls.limit(timeout, self._timeout))
        return self._ledger.answers(ticket)

    def close(self, timeout: float | None = None) -> None:
        """Ends all members and waits until the server has done so. Leaving the context does not wait."""
        ticket = self._connection.end(self._ledger)
        self._connection.wait(ticket, calls.limit(timeout, self._timeout))
        ticket.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.end(self._ledger)
