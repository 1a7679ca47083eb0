"""Long work in turns: a slice for one client, then whatever else the server has to do, then a slice for the next one.

While tens of thousands of sequences are opened or closed, other clients wait for no more than a slice. Knows no
asyncio: `later` is a function of an event loop.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from math import inf
from time import perf_counter

log = logging.getLogger(__name__)

SLICE, REST = 0.0005, 0.004  # seconds
_QUIET = 0.0001  # seconds that a turn of the event loop takes in which there is nothing to do

Work = Iterator[None]  # does a small piece each time that its next element is asked for


def once(call: Callable[[], None]) -> Work:
    """Work of a single piece."""
    call()
    yield from ()


def _logged(error: Exception) -> None:
    log.error("some long work failed", exc_info=error)


class Line:
    """The long work of one client, done in order. Made by `Turns.line`."""

    __slots__ = ("_turns", "rested", "work")

    def __init__(self, turns: "Turns") -> None:
        self._turns = turns
        self.rested: Callable[[], None] | None = None  # is called once all work is done that took more than one turn
        # what is under way, and what waits; a queue only where there is some, as most lines of most clients are empty
        self.work: deque[tuple[Work, Callable[[Exception], None]]] | tuple[()] = ()

    def run(self, work: Work, failed: Callable[[Exception], None] | None = None) -> None:
        """Does some work after all that came before; short work is done when this returns.

        `failed` is called with what the work raises; without it, that is logged.
        """
        if not self.work:
            self.work = deque()
        self.work.append((work, failed or _logged))
        if len(self.work) == 1:
            self._turns.begin(self)

    def go_on(self, until: float, clock: Callable[[], float]) -> None:
        """Works until that time, and does at least one piece."""
        while self.work:
            work, failed = self.work[0]
            try:
                next(work)
            except StopIteration:
                self.work.popleft()
            except Exception as error:  # noqa: BLE001 - `failed` tells of it
                failed(error)  # further work of this goes behind all that waits
                self.work.popleft()
            if clock() >= until:
                break
        if not self.work:
            self.work = ()


class Turns:
    """The turns of all clients of a server.

    Args:
        later: calls a function once all else that is due has been done.
        slice_: how long one client's turn is, in seconds.
        rest: for how long after a turn whatever else the server has to do goes before the next one, in seconds.
        clock: seconds.
    """

    def __init__(
        self,
        later: Callable[[Callable[[], None]], object],
        slice_: float = SLICE,
        rest: float = 0.0,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._later = later
        self._slice = slice_
        self._rest = rest
        self._clock = clock
        self._asked = 0.0  # when `later` was called last
        self._until = 0.0  # when others have gone first for long enough
        self._lines: deque[Line] = deque()  # that have work, the one whose turn is next first

    def line(self) -> Line:
        return Line(self)

    def begin(self, line: Line) -> None:
        line.go_on(self._clock() + self._slice, self._clock)
        if line.work:
            self._lines.append(line)
            if len(self._lines) == 1:
                self._rest_first()

    def _rest_first(self) -> None:
        self._until = self._clock() + self._rest
        self._wait()

    def _wait(self) -> None:
        self._asked = self._clock()
        self._later(self._turn)

    def _turn(self) -> None:
        if self._rest and self._asked + _QUIET < self._clock() < self._until:  # others have something to do
            self._wait()
            return
        line = self._lines[0]
        line.go_on(self._clock() + self._slice, self._clock)
        self._lines.popleft()
        if line.work:
            self._lines.append(line)
        elif line.rested is not None:
            line.rested()
        if self._lines:
            self._rest_first()


AT_ONCE = Turns(lambda call: call(), inf)  # all of it in the first turn
