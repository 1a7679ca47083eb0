"""What is open on a server, for threads: a sequence, a fleet."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Self

from tidegate.answers import Answer
from tidegate.inputs import Inputs
from tidegate.opened import (
    WINDOW,
    B,
    Closing,
    FleetCalls,
    Opened,
    OpenFleet,
    OpenSequence,
    SequenceCalls,
    blocking,
    run,
)
from tidegate.protocol.fleet_books import FleetBooks
from tidegate.protocol.sequence_books import SequenceBooks
from tidegate.transport import calls
from tidegate.transport.deadline import Deadline


class _Open(Opened[B]):
    close = blocking(Closing.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.leave(self._books)


class Sequence(OpenSequence["Sequence"], _Open[SequenceBooks]):
    """A sequence that remembers: it lives on the server and ends with this context manager.

    If the server keeps checkpoints, it survives a lost connection and a lost server: the call that notices goes on
    where it was, within the client's `resume_within`. Threads may use different sequences of one client at once.
    """

    step = blocking(SequenceCalls.step)
    chunk = blocking(SequenceCalls.chunk)
    state = blocking(SequenceCalls.state)
    rewind = blocking(SequenceCalls.rewind)
    move = blocking(SequenceCalls.move)

    def stream(self, rows: Iterable[Inputs], window: int = WINDOW, timeout: float | None = None) -> Iterator[Answer]:
        """Steps from any iterable, up to `window` of them in flight; their answers in order.

        An answer is handed out once `window` steps are in flight or `rows` is at its end: with rows that come live, use
        window=1. A refused row raises at its turn, and the sequence can go on from there; so does an error of `rows`
        itself, after the answers to the rows before it. `timeout` is for each answer.
        Leaving early leaves the sequence after the last row that was sent: see `next_step`.
        """
        return in_turn(((self, row) for row in rows), window, timeout)

    def _sent(self, values: Inputs, timeout: float | None) -> Callable[[], Answer]:
        """Sends a step; returns what waits for its answer."""
        limit = calls.limit(timeout, self._source.timeout)
        promise = run(self._send, self._books.send_step, values, Deadline(limit))
        return lambda: run(self._answer, promise, limit)


def in_turn(
    steps: Iterable[tuple[Sequence, Inputs]], window: int = WINDOW, timeout: float | None = None
) -> Iterator[Answer]:
    """Steps of several sequences, up to `window` of them in flight; their answers in the order of the steps.

    See Sequence.stream, which is this for one sequence.
    """
    calls.check_window(window)
    in_flight: deque[Callable[[], Answer]] = deque()
    failure: Exception | None = None
    source = iter(steps)
    while True:
        try:
            sequence, values = next(source)
            in_flight.append(sequence._sent(values, timeout))  # noqa: SLF001 - of this module
        except StopIteration:
            break
        except Exception as error:  # noqa: BLE001 - of whatever kind: what was sent before has its answers
            failure = error
            break
        if len(in_flight) >= window:
            yield in_flight.popleft()()
    while in_flight:
        yield in_flight.popleft()()
    if failure is not None:
        raise failure


class Fleet(OpenFleet, _Open[FleetBooks]):
    """Many sequences of one model that take their steps together; its members are numbered from 0.

    It goes on as a whole: if a member is lost, so is the fleet, and the other members are parked; `client.resume` takes
    each of them up by its id.
    """

    step = blocking(FleetCalls.step)
