"""What one turn of the event loop takes: so many calls or connections that begin or end, and how long they are read."""

from collections import deque
from collections.abc import Callable

from server.runtime.loop_turn import LoopTurn

MOST = 3  # that is about a millisecond


class Gate:
    """Of one event loop. A thousand calls that come or go at the same time leave others their turns.

    Args:
        later: calls a function in the next turn of the loop.
        most: how many in one turn.
    """

    def __init__(self, later: Callable[[Callable[[], None]], object], most: int = MOST) -> None:
        self._later = later
        self._most = self._left = most  # in this turn
        self._waiting: deque[Callable[[], bool | None]] = deque()
        self._due = False  # the next turn is to come

    def take(self, call: Callable[[], bool | None]) -> None:
        """Calls it at once, or in a turn to come, after those that wait already; False: it had nothing to do."""
        try:
            if self._left:
                self._pass(call)
            else:
                self._waiting.append(call)
        finally:
            self._turn_later()

    def _turn_later(self) -> None:
        if self._left < self._most and not self._due:
            self._due = True
            self._later(self._turn)

    def _turn(self) -> None:
        self._due, self._left = False, self._most
        try:
            while self._waiting and self._left:
                self._pass(self._waiting.popleft())
        finally:
            self._turn_later()

    def _pass(self, call: Callable[[], bool | None]) -> None:
        self._left -= 1
        if call() is False:
            self._left += 1


class TurnTime:
    """For how long connections of a kind are read, or written, in a turn: those that it has no time for wait.

    Args:
        most: seconds of a turn.
        turn: of the event loop, which all kinds share.
        least: seconds of a turn that no other kind takes from them.
    """

    def __init__(self, most: float, turn: LoopTurn, least: float = 0.0) -> None:
        self._most, self._least = most, least
        self.left = most  # seconds that this turn has
        self._turn = turn
        self._waiting: deque[Callable[[], None]] = deque()
        self._due = False  # the next turn is to come
        self._begun = False  # those that waited have had their part of this turn

    def begin(self) -> None:
        """The sockets begin to be read in a turn, which has the time that those who waited have left of it."""
        if self._begun:
            self._begun = False
        else:
            self._have_time()

    def _have_time(self) -> None:
        self.left = min(self._most, max(self._turn.left, self._least))

    def spend(self, seconds: float) -> None:
        """A connection was read, or written, for so long."""
        self.left -= seconds
        self._turn.spend(seconds)

    def wait(self, go_on: Callable[[], None]) -> None:
        """Calls it in a turn to come."""
        self._waiting.append(go_on)
        self._turn_later()

    def _turn_later(self) -> None:
        if self._waiting and not self._due:
            self._due = True
            self._turn.later(self._go_on)

    def _go_on(self) -> None:
        self._have_time()
        self._begun = True
        self._turn.read(len(self._waiting))
        try:
            for _ in range(len(self._waiting)):
                self._waiting.popleft()()
                if self.left <= 0:
                    break
        finally:
            self._turn.has_read()
            self._due = False
            self._turn_later()
