"""How long a hold goes on: until its time is up and its counts are reached, and at most half as long again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.hold.tally import Tally

KILLS, FUZZED = 1_000, 1_000_000  # an hour
CAP = 1.5  # times the minutes that were asked for, after which a run ends with the counts that it has
AHEAD = 0.97  # of the time in which the kills are due, so that they are done when the time is up


@dataclass
class Goal:
    """Of one run."""

    minutes: float
    began: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """The time counts from now on: all servers serve."""
        self.began = time.monotonic()

    @property
    def kills(self) -> int:
        """As many as the time is long."""
        return round(KILLS * self.minutes / 60)

    @property
    def fuzzed(self) -> int:
        """As many messages as the time is long."""
        return round(FUZZED * self.minutes / 60)

    @property
    def lasted(self) -> float:
        """Minutes so far."""
        return (time.monotonic() - self.began) / 60

    def reached(self, tally: Tally) -> bool:
        """Whether all has been done that was to be done."""
        return tally.kills >= self.kills and tally.fuzzed >= self.fuzzed

    def over(self, tally: Tally) -> bool:
        """Whether the run is to end."""
        return self.lasted >= self.minutes * (1.0 if self.reached(tally) else CAP)

    def due(self, number: int, share: float, chance: float) -> float:
        """Seconds until a kill: at a moment (`chance`, 0 to 1) of the span that its number has in this share of all."""
        span = 3600 * AHEAD / (KILLS * share)
        return self.began + (number + chance) * span - time.monotonic()
