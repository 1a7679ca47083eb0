"""What has happened to the sequences of a version, in numbers that only grow. Knows no metrics."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import accumulate

import numpy as np

_MANY = 8  # values, from which numpy is quicker
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SECONDS = (25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1.0, 10.0)


class Histogram:
    """Counts values by size. `bounds`: the largest value of each class but the last, rising."""

    __slots__ = ("_edges", "bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self._edges = np.asarray(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += times * value

    def add_all(self, values: Sequence[float]) -> None:
        """Many at once."""
        if len(values) < _MANY:
            for value in values:
                self.add(value)
            return
        classes = np.bincount(np.searchsorted(self._edges, values), minlength=len(self.counts))
        self.counts = [before + more for before, more in zip(self.counts, classes.tolist(), strict=True)]
        self.sum += sum(values)

    @property
    def cumulated(self) -> list[int]:
        """How many values were at most as large as each bound; the last is of them all."""
        return list(accumulate(self.counts))

    def copy(self) -> "Histogram":
        return self + Histogram(self.bounds)

    def __add__(self, other: "Histogram") -> "Histogram":
        both = Histogram(self.bounds)
        both.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        both.sum = self.sum + other.sum
        return both


@dataclass(slots=True, eq=False)
class Counters:
    """Of one version since the server began; a file that replaces another goes on with them."""

    # sequences
    opened: int = 0
    closed: int = 0
    parked: int = 0
    resumed: int = 0
    # checkpoints
    written: int = 0
    # steps
    replayed: int = 0
    rows: Histogram = field(default_factory=lambda: Histogram(ROWS))  # of each run, which is one step of each row
    running: Histogram = field(default_factory=lambda: Histogram(SECONDS))  # of each run
    waiting: Histogram = field(default_factory=lambda: Histogram(SECONDS))  # of each message, until its first step runs

    def ran(self, rows: int, steps: int, seconds: float) -> None:
        """Notes `steps` runs of so many rows, which took `seconds` together."""
        self.rows.add(rows, steps)
        self.running.add(seconds / steps, steps)

    def ran_alone(self, seconds: float) -> None:
        """Notes one step of one sequence that did not wait. Called for each such step, so it is quick."""
        self.rows.counts[0] += 1
        self.rows.sum += 1
        self.waiting.counts[0] += 1
        self.running.add(seconds)

    @property
    def steps(self) -> int:
        """How many steps were taken, of all sequences."""
        return int(self.rows.sum)

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Counters)))
