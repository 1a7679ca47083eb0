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
SEVERAL = Meter()  # of steps that are computed together, of several accounts with a few of them each


class Places:
    """So many at a time, so many of them of one, and the last eighth for those that have few.

    The first few of each are taken from all, what goes beyond them from the other seven eighths alone: so who gives
    some back can take them again, however many others have taken few meanwhile.

    Args:
        most: of all.
        of_one: the most of one account or address; where one may have all, none are kept for others.
        bounded: whether one may have no more than that, or is bounded elsewhere.
    """

    def __init__(self, most: int, of_one: int, *, bounded: bool = True) -> None:
        self.most = most
        self.of_one = of_one if bounded else most
        self.count = 0
        self.of = Counter[str]()
        kept = max(0, min(most - of_one, most // 8))
        self._few = max(1, most // 128)
        self._most_beyond = most - kept - self._few if kept else most
        self._beyond = 0  # what all have together beyond their first few

    def room(self, account: str) -> int:
        """How many more it may take."""
        own = self.of[account]
        allowed = max(0, self._few - own) + self._most_beyond - self._beyond
        return max(0, min(self.of_one - own, self.most - self.count, allowed))

    def take(self, account: str, count: int = 1) -> bool:
        """Takes so many; False: there are not as many for it, and none is taken."""
        if self.room(account) < count:
            return False
        self._change(account, count)
        return True

    def give_back(self, account: str, count: int = 1) -> None:
        self._change(account, -count)

    def _change(self, account: str, by: int) -> None:
        before = self.of[account]
        self.of[account] = after = before + by
        self.count += by
        self._beyond += max(0, after - self._few) - max(0, before - self._few)
        if not after:
            del self.of[account]
