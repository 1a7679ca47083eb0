"""What is open on a server, for threads: a sequence, a fleet."""

from collections import deque
from collections.abc import Iterable, Iterator
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
from tidegate.protocol.in_flight import StepsPromise
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
        calls.check_window(window)
        limit = calls.limit(timeout, self._source.timeout)
        in_flight: deque[StepsPromise] = deque()
        failure: Exception | None = None
        source = iter(rows)
        while True:
            try:
                in_flight.append(run(self._send, self._books.send_step, next(source), Deadline(limit)))
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 - of whatever kind: what was sent before has its answers
                failure = error
                break
            if len(in_flight) >= window:
                yield run(self._answer, in_flight.popleft(), limit)
        while in_flight:
            yield run(self._answer, in_flight.popleft(), limit)
        if failure is not None:
            raise failure


class Fleet(OpenFleet, _Open[FleetBooks]):
    """Many sequences of one model that take their steps together; its members are numbered from 0.

    It goes on as a whole: if a member is lost, so is the fleet, and the other members are parked; `client.resume` takes
    each of them up by its id.
    """

    step = blocking(FleetCalls.step)
