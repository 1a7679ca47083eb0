"""What one account may use and how fast: shared by all of its streams and calls in this process. Pure."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

_BURST = 1.0  # seconds: after a pause so many seconds' steps may come at once


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one token; 0 stands for what the server has for every client."""

    open: int = 0  # sequences
    parked: int = 0  # sequences
    steps_per_second: float = 0.0
    message_bytes: int = 0
    weight: float = 1.0  # its part of the work where others wait too, beside theirs


NO_LIMITS = Limits()
LimitsOf = Callable[[str], Limits]  # of an account


def unlimited(_: str) -> Limits:
    return NO_LIMITS


class Meter:
    """Counts the steps of one account. `limits` is replaced when they change."""

    def __init__(self, limits: Limits = NO_LIMITS, clock: Callable[[], float] = monotonic) -> None:
        self.limits = limits
        self._clock = clock
        self._paid = clock() - _BURST  # until when the steps so far would have taken at the rate of the limit

    def charge(self, steps: int) -> None:
        """So many steps are taken; they may be more than `wait` had room for."""
        if rate := self.limits.steps_per_second:
            self._paid = max(self._paid, self._clock() - _BURST) + steps / rate

    def wait(self) -> float:
        """For how many seconds the next steps have to wait."""
        return max(0.0, self._paid - self._clock()) if self.limits.steps_per_second else 0.0


EVERYBODY = Meter()  # of work that is no single account's


class Places:
    """So many at a time, so many of them of one, and the last eighth for those that have few.

    Args:
        most: of all.
        of_one: the most of one account or address; where one may have all, none are kept for others.
    """

    def __init__(self, most: int, of_one: int) -> None:
        self.most = most
        self.of_one = of_one
        self.count = 0
        self.of = Counter[str]()
        self._kept = max(0, min(most - of_one, most // 8))
        self._few = max(1, most // 128)

    def take(self, account: str) -> bool:
        """Takes one; False: there is none for it."""
        own = self.of[account]
        if own >= self.of_one or self.count >= self.most - (self._kept if own >= self._few else 0):
            return False
        self.count += 1
        self.of[account] += 1
        return True

    def give_back(self, account: str) -> None:
        self.count -= 1
        self.of[account] -= 1
        if not self.of[account]:
            del self.of[account]
