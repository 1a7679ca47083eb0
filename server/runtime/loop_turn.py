"""The time of one turn of the event loop, which whatever can wait for the next turn shares.

Reading, requests, answers and writes each have a bound of their own; without a common one they would add up in a turn.
"""

from collections.abc import Callable
from math import inf

MOST = 0.003  # seconds
_LITTLE = 0.0002  # seconds, which need not be counted turn by turn


class LoopTurn:
    """Of one event loop. Knows no asyncio: `later` is a function of an event loop.

    Args:
        later: calls a function in the next turn of the loop.
        most: seconds.
    """

    def __init__(self, later: Callable[[Callable[[], None]], object], most: float = MOST) -> None:
        self.later = later
        self._most = most
        self.left = most  # seconds of this turn; below 0: what was begun took longer
        self._due = False  # `_next` is to be called

    def spend(self, seconds: float) -> None:
        """So much of this turn is over."""
        self.left -= seconds
        if not self._due and self._most - self.left > _LITTLE:
            self._due = True
            self.later(self._next)

    def _next(self) -> None:
        self._due = False
        self.left = self._most

    def end(self) -> None:
        """All sockets that were ready have been read, which is the last thing in a turn."""
        self.left = self._most


ENDLESS = LoopTurn(lambda _: None, inf)  # nothing waits
