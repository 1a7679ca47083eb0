"""How long connections are read in one turn of the event loop."""

from collections import deque
from collections.abc import Callable


class Reading:
    """Of connections of a kind: those for which a turn has no time left wait for the next one, in their order.

    Args:
        most: seconds of a turn.
        later: calls a function in the next turn of the loop.
    """

    def __init__(self, most: float, later: Callable[[Callable[[], None]], object]) -> None:
        self._most = self.left = most  # seconds, and what this turn has of them
        self._later = later
        self._waiting: deque[Callable[[], None]] = deque()
        self._due = False  # the next turn is to come
        self._begun = False  # those that waited have had their part of this turn

    def begin(self) -> None:
        """The sockets begin to be read in a turn, which has the time that those who waited have left of it."""
        if self._begun:
            self._begun = False
        else:
            self.left = self._most

    def wait(self, go_on: Callable[[], None]) -> None:
        """Calls it in a turn to come."""
        self._waiting.append(go_on)
        self._turn_later()

    def _turn_later(self) -> None:
        if self._waiting and not self._due:
            self._due = True
            self._later(self._turn)

    def _turn(self) -> None:
        self.left, self._begun = self._most, True
        for _ in range(len(self._waiting)):
            if self.left <= 0:
                break
            self._waiting.popleft()()
        self._due = False
        self._turn_later()
