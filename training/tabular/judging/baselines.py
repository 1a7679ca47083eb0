"""Forecasts that need no network, to be beaten: nothing changes, the same moment of the last season, always the median.

Legend: N rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.tabular.looking.leaks import shifted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.tabular.looking.grid import Grid

# What may go round, in seconds: an hour, a day, a week, a year.
YEAR = 365.25 * 86400
CYCLES = (3600.0, 86400.0, 7 * 86400.0, YEAR)
LONGEST = 1000
# A season must leave less than this share of the error that the mean leaves.
USEFUL = 0.8


def season(grid: Grid, y_N: NDArray[np.float32], learnt_N: NDArray[np.bool_]) -> int | None:
    """The number of steps after which the training part is most like itself, and more than after half of them.

    None if it is never much more like itself than like its mean.
    """
    tried = {steps: unlike(grid, y_N, learnt_N, steps) for steps in candidates(grid)}
    halves = {steps: unlike(grid, y_N, learnt_N, max(steps // 2, 1)) for steps in tried}
    known = {steps: error for steps, error in tried.items() if error < halves[steps]}  # a NaN is not
    if not known:
        return None
    level = float(np.nanmean(np.abs(y_N[learnt_N] - np.nanmean(y_N[learnt_N]))))
    best = min(known, key=lambda steps: known[steps])
    return best if known[best] < USEFUL * level else None


def candidates(grid: Grid) -> list[int]:
    """Numbers of steps that a season may have: of the calendar, or, without times or by the year, any that is short."""
    if grid.time_N is None or grid.step.seconds >= YEAR:
        return list(range(2, min(60, grid.count // 4)))
    steps = {round(cycle / grid.step.seconds) for cycle in CYCLES}
    return sorted(count for count in steps if 2 <= count <= min(LONGEST, grid.count // 3))


def unlike(grid: Grid, y_N: NDArray[np.float32], learnt_N: NDArray[np.bool_], steps: int) -> float:
    """Mean absolute difference between rows of the training part so many steps apart; NaN if none are."""
    before_N = np.where(learnt_N, grid.ahead(-steps), -1)
    apart_N = np.where(before_N >= 0, y_N - y_N[before_N], np.nan)
    return float(np.nanmean(np.abs(apart_N))) if not np.isnan(apart_N).all() else float("nan")


def median(grid: Grid, y_N: NDArray[np.float32], learnt_N: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The median of each series' rows that are learnt from; of all of them, for a series without any."""
    known_N = np.where(learnt_N, y_N, np.nan)
    found_N = np.full(grid.count, np.nanmedian(known_N), dtype=np.float32)
    for start, end in grid.bounds:
        if not np.isnan(known_N[start:end]).all():
            found_N[start:end] = np.nanmedian(known_N[start:end])
    return found_N


def persistence(grid: Grid, y_N: NDArray[np.float32]) -> NDArray[np.float32]:
    """The value last measured, up to and with each row; NaN before the first of a series."""
    row_N = np.arange(grid.count)
    start_N = np.repeat(grid.starts_S, np.diff([*grid.starts_S, grid.count]))
    last_N = np.maximum.accumulate(np.where(np.isnan(y_N), -1, row_N))
    return np.where(last_N >= start_N, y_N[last_N], np.nan)


def seasonal(grid: Grid, y_N: NDArray[np.float32], ahead: int, period: int) -> NDArray[np.float32]:
    """What is `ahead` steps later whole seasons earlier, the last that is known; else persistence."""
    back = period * -(-ahead // period) - ahead
    found_N = shifted(y_N.astype(np.float64), grid.ahead(-back)) if back else y_N
    return np.where(np.isnan(found_N), persistence(grid, y_N), found_N)
