"""The time of one turn of the event loop, which whatever can wait for the next turn shares.

Reading, requests, answers and writes each have a bound of their own; without a common one they would add up in a turn.
"""

from collections.abc import Callable, Sequence
from math import inf
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

MOST = 0.004  # seconds
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
        self._due = self._ended = False  # `_next` is to be called; sockets were read since it was asked for
        self._reads_several = False  # several sockets, or calls of one, are being read
        self._read: list[Callable[[], None]] = []  # what is to be called once they are

    def spend(self, seconds: float) -> None:
        """So much of this turn is over."""
        self.left -= seconds
        if not self._due and self._most - self.left > _LITTLE:
            self._begin_soon()

    def counted(self, work: Callable[..., T], *given: object) -> T:
        """Does some work that takes of this turn."""
        began = perf_counter()
        try:
            return work(*given)
        finally:
            self.spend(perf_counter() - began)

    def read(self, several: int) -> None:
        """So many sockets, or calls of one, are read from now on, until `has_read`."""
        self._reads_several = several > 1

    def read_all(self, reads: Sequence[Callable[[], None]]) -> None:
        """Calls these, each of which reads one of them."""
        within = self._reads_several  # others are being read, of which these are a part
        if not within:
            self.read(len(reads))
        try:
            for read in reads:
                read()
        finally:
            if not within:
                self.has_read()

    def after_reading(self, call: Callable[[], None]) -> bool:
        """Calls it once those that are being read have been; False: there are none, or only one."""
        if self._reads_several:
            self._read.append(call)
        return self._reads_several

    def has_read(self) -> None:
        """They have been read."""
        self._reads_several = False
        calls, self._read = self._read, []
        for call in calls:
            call()

    def end(self) -> None:
        """All sockets that were ready have been read, which is the last thing in a turn that has some."""
        self.left, self._ended = self._most, True
        self.has_read()

    def _begin_soon(self) -> None:
        self._due, self._ended = True, False
        self.later(self._next)

    def _next(self) -> None:
        """The next turn has begun, which did not need to be told if sockets were read in between."""
        self._due = False
        if not self._ended:
            self.left = self._most
        self.spend(0.0)  # what was counted since then is of the turn that has begun


ENDLESS = LoopTurn(lambda _: None, inf)  # nothing waits
