"""What is open on a server, for threads: a sequence, a fleet. They send, wait, and hand out what came."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidegate.answers import Answer, Answers, FleetAnswers
from tidegate.facts import Facts, FleetFacts, SequenceFacts
from tidegate.inputs import InputLayout, Inputs
from tidegate.protocol.conversation import Requests
from tidegate.protocol.fleet_books import FleetBooks
from tidegate.protocol.in_flight import StepsPromise
from tidegate.protocol.opening import Opening
from tidegate.protocol.promise import Promise
from tidegate.protocol.sequence_books import Sending, SequenceBooks
from tidegate.state import State
from tidegate.transport import calls
from tidegate.transport.deadline import Deadline
from tidegate.transport.threads import Connection

WINDOW = 64  # steps that `stream` keeps in flight


S = TypeVar("S")
L = TypeVar("L")
T = TypeVar("T")
B = TypeVar("B", SequenceBooks, FleetBooks)


@dataclass(frozen=True, slots=True)
class Source(Generic[S, L]):
    """Where a sequence comes from: what it takes to open another one like it, and the client's limit for a call.

    `open` makes a sequence S that begins from a state, like an opening but of a version; `inputs` gives the layout L of
    a version. With asyncio S and L are to be awaited.
    """

    timeout: float | None
    open: Callable[[State, Opening, int, float | None], S]
    inputs: Callable[[str, int, float | None], L]


class _Open(Facts[B]):
    """What is open: it can be asked for more than answers, closed, and left."""

    def __init__(self, connection: Connection, books: B, timeout: float | None) -> None:
        self._connection = connection
        self._books = books
        self._timeout = timeout

    def close(self, timeout: float | None = None) -> None:
        """Ends it and waits until the server has done so. Leaving the context does not wait."""
        self._ask(self._connection.talk.close, timeout)

    def _ask(self, build: Callable[..., tuple[Promise[T], Requests]], timeout: float | None, *values: object) -> T:
        promise = self._connection.ask(build, self._books, *values)
        self._connection.wait(promise, calls.limit(timeout, self._timeout))
        return promise.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.leave(self._books)


class Sequence(SequenceFacts, _Open[SequenceBooks]):
    """A sequence that remembers: it lives on the server and ends with this context manager.

    If the server keeps checkpoints, it survives a lost connection and a lost server: the call that notices goes on
    where it was, within the client's `resume_within`. Threads may use different sequences of one client at once.
    """

    def __init__(self, source: Source["Sequence", InputLayout], connection: Connection, books: SequenceBooks) -> None:
        super().__init__(connection, books, source.timeout)
        self._source = source

    def step(self, values: Inputs, timeout: float | None = None) -> Answer:
        """One step in, one answer out.

        `values` is one row, or a mapping of input names to rows. Raises BadInput or another Refused (the sequence is as
        it was and can go on), ConnectionLost, TimedOut (the step may have been taken), SequenceEnded.
        """
        deadline = Deadline(calls.limit(timeout, self._timeout))
        promise = self._send(deadline.left, self._books.send_step, values)
        self._connection.wait(promise, deadline.left)
        return self._books.answer(promise)

    def chunk(self, values: Inputs, timeout: float | None = None) -> Answers:
        """Many steps at once, [T, ...row] for each input; all of them, or none if refused. Raises as `step`.

        A long chunk goes in several messages, each sent as those before are answered, so that steps of other sequences
        of this client do not wait for it. Only if the model itself fails in the midst (STEP_FAILED) are the steps
        before taken: see `next_step`.
        """
        deadline = Deadline(calls.limit(timeout, self._timeout))
        promise = self._send(deadline.left, self._books.send_chunk, values)
        self._connection.wait(promise, deadline.left)
        return self._books.answers(promise)

    def stream(self, rows: Iterable[Inputs], window: int = WINDOW, timeout: float | None = None) -> Iterator[Answer]:
        """Steps from any iterable, up to `window` of them in flight; their answers in order.

        An answer is handed out once `window` steps are in flight or `rows` is at its end: with rows that come live, use
        window=1. A refused row raises at its turn, and the sequence can go on from there; so does an error of `rows`
        itself, after the answers to the rows before it. `timeout` is for each answer.
        Leaving early leaves the sequence after the last row that was sent: see `next_step`.
        """
        calls.check_window(window)
        limit = calls.limit(timeout, self._timeout)
        in_flight: deque[StepsPromise] = deque()
        failure: Exception | None = None
        source = iter(rows)
        while True:
            try:
                in_flight.append(self._send(limit, self._books.send_step, next(source)))
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 - of whatever kind: what was sent before has its answers
                failure = error
                break
            if len(in_flight) >= window:
                yield self._answer(in_flight.popleft(), timeout)
        while in_flight:
            yield self._answer(in_flight.popleft(), timeout)
        if failure is not None:
            raise failure

    def kept(self) -> tuple[int, dict[str, NDArray[Any]]]:
        return self._connection.look(super().kept)  # other threads send, and read

    def state(self, timeout: float | None = None) -> State:
        """Its state after the steps that were sent, as a value. Raises as `step`."""
        return State.read(self._ask(self._connection.talk.read_state, timeout).state.state)

    def fork(self, timeout: float | None = None) -> "Sequence":
        """A new sequence of the same version that begins where this one stands. Raises as Client.sequence."""
        return self._source.open(self.state(timeout), self._books.opening, self.version, timeout)

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
        return self._ask(self._connection.talk.move, timeout, version).moved.next_step

    def _send(self, limit: float | None, build: Callable[[Inputs], Sending], values: Inputs) -> StepsPromise:
        if not self._books.knows_inputs:  # it moved since the last step
            version = self._books.version
            self._books.takes(version, self._source.inputs(self.model, version, limit))
        return self._connection.send(self._books, limit, build, values)

    def _answer(self, promise: StepsPromise, timeout: float | None) -> Answer:
        self._connection.wait(promise, calls.limit(timeout, self._timeout))
        return self._books.answer(promise)


class Fleet(FleetFacts, _Open[FleetBooks]):
    """Many sequences of one model that take their steps together; its members are numbered from 0.

    It goes on as a whole: if a member is lost, so is the fleet, and the other members are parked; `client.resume` takes
    each of them up by its id.
    """

    def step(
        self, values: Inputs, members: Rows[int] | NDArray[np.integer[Any]] | None = None, timeout: float | None = None
    ) -> FleetAnswers:
        """One step of every member, or of `members`: values [N, ...row] in their order. Raises as Sequence.chunk."""
        deadline = Deadline(calls.limit(timeout, self._timeout))
        promise = self._connection.send(self._books, deadline.left, self._books.send, values, members)
        self._connection.wait(promise, deadline.left)
        return self._books.answers(promise)
