"""How long the requests of all streams are taken in one go, before whatever else the server has to do has its turn."""

from collections import deque
from collections.abc import Callable
from time import perf_counter

from server.runtime.loop_turn import ENDLESS, LoopTurn

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
        turn: of the event loop, which all this has a part of.
    """

    def __init__(
        self,
        later: Callable[[Callable[[], None]], object],
        clock: Callable[[], float] = perf_counter,
        crowded: Callable[[], bool] = lambda: False,
        turn: LoopTurn = ENDLESS,
    ) -> None:
        self.clock = clock
        self._crowded = crowded
        self._later = later
        self._loop_turn = turn
        self._ends = 0.0  # of the turn that goes on, or went on last
        self._waiting: deque[Callable[[], None]] = deque()
        self._due = False  # a turn is to come
        self._writes: deque[Callable[[], None]] = deque()
        self._will_write = False

    def ends(self) -> float:
        """Until when requests of one stream may be taken; that may be over."""
        now, seconds = self.clock(), self._loop_turn.left
        if self._waiting:
            seconds = min(seconds, _SLICE)
        elif now > self._ends + _AGO:
            self._ends = now + self._length
        return min(self._ends, now + seconds)

    @property
    def _length(self) -> float:
        return _BRIEF if self._crowded() else _TURN

    def wait(self, go_on: Callable[[], None]) -> None:
        """Has it called in a turn to come, after those that wait already."""
        self._waiting.append(go_on)
        self._turn_later()

    def soon(self, write: Callable[[], None]) -> None:
        """Has it called once what came in at the same time has been taken, with those of all other streams."""
        self._writes.append(write)
        self._write_later()

    def _write_later(self) -> None:
        if self._writes and not self._will_write:
            self._will_write = True
            self._later(self._write)

    def _write(self) -> None:
        self._will_write = False
        try:
            self._go_on(self._writes, self._loop_turn.left)
        finally:
            self._write_later()

    def _go_on(self, those: deque[Callable[[], None]], seconds: float) -> None:
        """Calls those that are here now, for so long; one at least."""
        began = now = self.clock()
        for _ in range(len(those)):
            those.popleft()()
            now = self.clock()
            if now >= began + seconds:
                break
        self._loop_turn.spend(now - began)

    def _turn_later(self) -> None:
        if self._waiting and not self._due:
            self._due = True
            self._later(self._turn)

    def _turn(self) -> None:
        seconds = min(self._length, self._loop_turn.left)
        self._ends = self.clock() + seconds
        self._due = False
        try:
            self._go_on(self._waiting, seconds)
        finally:
            self._turn_later()
