"""How long the requests of all streams are taken in one go, before whatever else the server has to do has its turn."""

from collections import deque
from collections.abc import Callable
from time import perf_counter

_TURN = 0.002  # seconds
_BRIEF = 0.001  # seconds, where several accounts have streams
_SLICE = 0.0005  # seconds of one stream, while others wait
_AGO = 0.010  # seconds after a turn's end, by when others surely had theirs


class Pace:
    """Of one event loop. However many streams have requests at the same time, they are not taken all at once.

    Args:
        later: calls a function once all else that is due has been done.
        clock: seconds.
        crowded: whether several accounts have streams, so that each should notice little of the others.
    """

    def __init__(
        self,
        later: Callable[[Callable[[], None]], object],
        clock: Callable[[], float] = perf_counter,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self.clock = clock
        self._crowded = crowded
        self._later = later
        self._ends = 0.0  # of the turn that goes on, or went on last
        self._waiting: deque[Callable[[], None]] = deque()
        self._due = False  # a turn is to come
        self._writes: list[Callable[[], None]] = []

    def ends(self) -> float:
        """Until when requests of one stream may be taken; that may be over."""
        now = self.clock()
        if self._waiting:
            return min(self._ends, now + _SLICE)
        if now > self._ends + _AGO:
            self._ends = now + self._length
        return self._ends

    @property
    def _length(self) -> float:
        return _BRIEF if self._crowded() else _TURN

    def wait(self, go_on: Callable[[], None]) -> None:
        """Has it called in a turn to come, after those that wait already."""
        self._waiting.append(go_on)
        self._turn_later()

    def soon(self, write: Callable[[], None]) -> None:
        """Has it called once what came in at the same time has been taken, with those of all other streams."""
        if not self._writes:
            self._later(self._write)
        self._writes.append(write)

    def _write(self) -> None:
        writes, self._writes = self._writes, []
        for write in writes:
            write()

    def _turn_later(self) -> None:
        if self._waiting and not self._due:
            self._due = True
            self._later(self._turn)

    def _turn(self) -> None:
        self._ends = self.clock() + self._length
        while self._waiting and self.clock() < self._ends:
            self._waiting.popleft()()
        self._due = False
        self._turn_later()
