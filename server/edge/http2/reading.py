"""How long connections are read in one turn of the event loop."""

from collections import deque
from collections.abc import Callable

_NOTED = 0.0005  # seconds of a turn from which on its end has to be known


class Reading:
    """Of connections of a kind: those for which a turn has no time left wait for the next one, in their order.

    Whoever comes in the rest of that turn goes before those that still wait then.

    Args:
        most: seconds of a turn.
        later: calls a function in the next turn of the loop.
    """

    def __init__(self, most: float, later: Callable[[Callable[[], None]], object]) -> None:
        self._most = self.left = most  # seconds, and what this turn has of them
        self._later = later
        self._due = False  # the next turn is to come
        self._waiting: deque[Callable[[], None]] = deque()

    def took(self, seconds: float) -> None:
        """A connection was read for so long."""
        self.left -= seconds
        if self.left < self._most - _NOTED:
            self._turn_later()

    def wait(self, go_on: Callable[[], None]) -> None:
        """Calls it in a turn to come."""
        self._waiting.append(go_on)
        self._turn_later()

    def _turn_later(self) -> None:
        if not self._due:
            self._due = True
            self._later(self._turn)

    def _turn(self) -> None:
        self.left = self._most
        for _ in range(len(self._waiting)):
            if self.left <= 0:
                break
            self._waiting.popleft()()
        self._due, self.left = False, self._most
        if self._waiting:
            self._turn_later()
