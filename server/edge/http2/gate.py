"""How many calls begin or end in one turn of the event loop."""

from collections import deque
from collections.abc import Callable

MOST = 4  # that is about a millisecond


class Gate:
    """Of one event loop. A thousand calls that come or go at the same time leave others their turns.

    Args:
        later: calls a function in the next turn of the loop.
    """

    def __init__(self, later: Callable[[Callable[[], None]], object]) -> None:
        self._later = later
        self._left = MOST  # in this turn
        self._waiting: deque[Callable[[], object]] = deque()

    def take(self, call: Callable[[], object]) -> None:
        """Calls it at once, or in a turn to come, after those that wait already."""
        if self._left == MOST:
            self._later(self._turn)
        if self._left:
            self._left -= 1
            call()
        else:
            self._waiting.append(call)

    def _turn(self) -> None:
        self._left = MOST
        for _ in range(min(MOST, len(self._waiting))):
            self.take(self._waiting.popleft())
