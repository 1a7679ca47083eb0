"""The rows to learn from, those that decide when to stop (validation), and those held back for the test.

By time there is a gap between two parts, of at least the longest horizon, whose rows belong to none. Legend: N rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.tabular.looking.grid import Grid

TRAINING, VALIDATION, TEST, NONE = 0, 1, 2, -1
PARTS = {"training": TRAINING, "validation": VALIDATION, "test": TEST}
FEWEST_SERIES = 6


@dataclass(frozen=True)
class Parts:
    """The part of each row; `by` is what was split, "time" or "series"; the gap is in steps."""

    part_N: NDArray[np.int64]
    by: str
    gap: int

    def rows(self, part: int) -> int:
        return int((self.part_N == part).sum())

    def targets(self, grid: Grid, steps: int) -> NDArray[np.int64]:
        """The row so many steps ahead of each, -1 where there is none in the same part: no target crosses a border."""
        ahead_N = grid.ahead(steps)
        within_N = (ahead_N >= 0) & (self.part_N[ahead_N] == self.part_N) & (self.part_N != NONE)
        return np.where(within_N, ahead_N, -1)

    def spans(self, grid: Grid, part: int, lead: int) -> list[tuple[int, int, int]]:
        """For each series that has rows in the part: where to begin (so many rows earlier), its first row, its end."""
        found = []
        for start, end in grid.bounds:
            there = np.flatnonzero(self.part_N[start:end] == part)
            if len(there):
                found.append(
                    (max(start, start + int(there[0]) - lead), start + int(there[0]), start + int(there[-1]) + 1)
                )
        return found


def by_time(grid: Grid, training: float, validation: float, gap: int) -> Parts:
    """Three stretches of time; without times, of each series."""
    part_N = np.full(grid.count, NONE)
    every = [(0, grid.count)] if grid.time_N is not None else grid.bounds
    for start, end in every:
        tick_N = grid.tick_N[start:end]
        ordered = np.sort(tick_N)
        first, second = (
            int(ordered[min(int(len(ordered) * share), len(ordered) - 1)])
            for share in (training, training + validation)
        )
        within = np.full(end - start, NONE)
        within[tick_N < first] = TRAINING
        within[(tick_N >= first + gap) & (tick_N < second)] = VALIDATION
        within[tick_N >= second + gap] = TEST
        part_N[start:end] = within
    return required(Parts(part_N, "time", gap))


def by_series(grid: Grid, training: float, validation: float, seed: int) -> Parts:
    """Whole series, drawn by the seed; a part has at least one."""
    count = len(grid.names)
    if count < FEWEST_SERIES:
        raise DataError(
            f"--split series: {count} series are too few to hold back; give {FEWEST_SERIES}, or --split time"
        )
    order_S = np.random.default_rng(seed).permutation(count)
    first = min(max(int(count * training), 1), count - 2)
    second = min(max(int(count * (training + validation)), first + 1), count - 1)
    part_S = np.full(count, TEST)
    part_S[order_S[:first]], part_S[order_S[first:second]] = TRAINING, VALIDATION
    return required(Parts(part_S[grid.series_N], "series", 0))


def required(parts: Parts) -> Parts:
    for name, part in PARTS.items():
        if parts.rows(part) < 1:
            raise DataError(
                f"the {name} part has no row, with a gap of {parts.gap} steps; give more rows or shorter --horizons"
            )
    return parts
