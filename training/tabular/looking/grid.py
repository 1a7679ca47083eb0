"""The table's rows in order: by series, then by time, each at a whole number of time steps.

A gap inserts nothing: a row has the number of its step (`tick`), and whoever needs the row h steps later looks for that
tick. Legend: N rows, S series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tidegate.columns.times import HOUR, comes_twice
from training.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.tabular.looking.reading import Rows
    from training.tabular.looking.roles import Roles

UNITS = ((86_400_000_000, "day"), (3_600_000_000, "hour"), (60_000_000, "minute"), (1_000_000, "second"))
MONTH_DAYS = (28, 366)
DAY = 86400.0
# So large a share of the rows may have the time of another one, or an earlier one, in a table that is in order.
FEW = 0.01


@dataclass(frozen=True)
class Step:
    """The time from one row to the next: so many microseconds, or so many months; 0 of both where no time is known."""

    microseconds: int = 0
    months: int = 0

    @property
    def seconds(self) -> float:
        """Its length, a month counted as a twelfth of a year."""
        return self.months * 365.25 * 86400 / 12 if self.months else self.microseconds / 1e6

    @property
    def with_article(self) -> str:
        """`an hour`, `30 minutes`."""
        text = str(self)
        article = "an" if text == "hour" else "a"
        return text if text[0].isdecimal() else f"{article} {text}"

    @property
    def said(self) -> str:
        """As `time_step` of a model's metadata says it; "" where rows are counted."""
        if self.months:
            return f"{self.months} months"
        return f"{self.microseconds} microseconds" if self.microseconds else ""

    def __str__(self) -> str:
        if self.months:
            return told(self.months, "month") if self.months % 12 else told(self.months // 12, "year")
        for size, unit in UNITS:
            if self.microseconds and self.microseconds % size == 0:
                return told(self.microseconds // size, unit)
        return f"{self.microseconds} microseconds" if self.microseconds else "row"


def told(count: int, unit: str) -> str:
    """`hour`, `30 minutes`."""
    return unit if count == 1 else f"{count} {unit}s"


def counted(count: int, thing: str) -> str:
    """`1 step`, `1,200 steps`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def steps_ahead(horizons: Sequence[int]) -> str:
    """`1 step ahead`, `1, 6, 24 steps ahead`."""
    return f"{', '.join(map(str, horizons))} step{'' if tuple(horizons) == (1,) else 's'} ahead"


@dataclass(frozen=True)
class Grid:
    """Rows by series and time. `row_N` is each one's number in the file, `starts_S` where each series begins."""

    step: Step
    row_N: NDArray[np.int64]
    series_N: NDArray[np.int64]
    names: tuple[str, ...]
    starts_S: NDArray[np.int64]
    tick_N: NDArray[np.int64]
    time_N: NDArray[np.datetime64] | None
    # what was found on the way
    unsorted: bool
    duplicates: int
    gaps: int
    longest_gap: int
    off_grid: int
    utc_N: NDArray[np.datetime64] | None = None
    """The times in UTC, where they say their offset and a step is shorter than a day."""
    hours_twice: tuple[np.datetime64, ...] = ()
    """The times before which clocks were put back by an hour, at the end of summer time."""

    @property
    def count(self) -> int:
        return len(self.row_N)

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """First row and the row after the last, of each series."""
        ends = [*self.starts_S[1:].tolist(), self.count]
        return list(zip(self.starts_S.tolist(), ends, strict=True))

    @property
    def regular(self) -> bool:
        """Whether every row is one step after the one before."""
        return self.gaps == 0 and self.off_grid == 0

    def ahead(self, steps: int) -> NDArray[np.int64]:
        """The row so many steps after (or, below 0, before) each one in its series, -1 where there is none."""
        first, last = int(self.tick_N.min()), int(self.tick_N.max())
        width = last - first + 1 + abs(steps)
        key_N = self.series_N * width + self.tick_N - first  # rising: rows are in order
        wanted_N = self.tick_N + steps - first
        place_N = np.searchsorted(key_N, self.series_N * width + wanted_N).clip(max=self.count - 1)
        there_N = (key_N[place_N] == self.series_N * width + wanted_N) & (wanted_N >= 0)
        return np.where(there_N, place_N, -1)

    def when(self, row: int) -> str:
        """A row's time as a text, or its number."""
        if self.time_N is None:
            return f"row {int(self.row_N[row]) + 1}"
        return str(self.time_N[row].astype("datetime64[s]")).replace("T", " ").removesuffix(" 00:00:00")


def lay_out(rows: Rows, roles: Roles) -> Grid:
    """Put a table's rows in order and number their steps; of rows of one series and time the last is kept.

    Raises:
        DataError: a row names no series.
    """
    series_N, names = series_of(rows, roles)
    if roles.clock is None:
        return without_time(series_N, names)
    time_N = roles.clock.time_N
    exact_N, twice_N = (roles.clock.utc_N, None) if roles.clock.utc_N is not None else once_each(series_N, time_N)
    order_N = np.lexsort((np.arange(rows.count), exact_N, series_N))
    unsorted = not in_order(series_N, exact_N)
    last_N = np.ones(rows.count, dtype=bool)
    last_N[:-1] = (np.diff(series_N[order_N]) != 0) | (np.diff(exact_N[order_N].astype(np.int64)) != 0)
    order_N = order_N[last_N]
    series_N, time_N, exact_N = series_N[order_N], time_N[order_N], exact_N[order_N]
    step = step_of(series_N, time_N)
    tick_N, off_grid = ticks(time_N if step.seconds >= DAY else exact_N, step)
    within_N = np.diff(series_N) == 0
    jump_N = np.where(within_N, np.diff(tick_N), 1)
    return Grid(
        step, order_N, series_N, names, first_rows(series_N), tick_N, time_N,
        unsorted, int((~last_N).sum()), int((jump_N > 1).sum()), int(jump_N.max(initial=1)) - 1, off_grid,
        exact_N if twice_N is None and step.seconds < DAY else None,
        () if twice_N is None else tuple(np.unique(twice_N)),
    )  # fmt: skip


def once_each(
    series_N: NDArray[np.int64], time_N: NDArray[np.datetime64]
) -> tuple[NDArray[np.datetime64], NDArray[np.datetime64]]:
    """Times whose hours come once each, an hour later from where clocks were put back; and where that was.

    Where rows are not in the order of time, or many have the time of another one, nothing can be said of that.
    """
    order_N = np.argsort(series_N, kind="stable")
    later_N = np.diff(time_N[order_N].astype(np.int64))
    if (later_N < 0).sum() > len(later_N) / 2:  # the newest row stands first
        order_N = order_N[::-1]
        later_N = -later_N[::-1]
    sorted_N, within_N = time_N[order_N], np.diff(series_N[order_N]) == 0
    behind = np.flatnonzero(within_N & (later_N <= 0))
    back = np.array([place for place in behind if comes_twice(sorted_N[place], sorted_N[place + 1])], dtype=np.int64)
    if len(behind) - len(back) > FEW * len(time_N):
        return time_N, time_N[:0]
    hours_N = np.zeros(len(time_N), dtype=np.int64)
    hours_N[back + 1] = 1
    hours_N = np.cumsum(hours_N)
    first_N = np.maximum.accumulate(np.where(within_N, 0, np.arange(1, len(time_N))), dtype=np.int64)
    exact_N = np.empty_like(time_N)
    exact_N[order_N] = sorted_N + (hours_N - hours_N[[0, *first_N]]) * HOUR
    return exact_N, sorted_N[back + 1]


def in_order(series_N: NDArray[np.int64], time_N: NDArray[np.datetime64]) -> bool:
    """Whether each series' rows stand in the order of time, whatever is between them."""
    order_N = np.argsort(series_N, kind="stable")
    later_N = np.diff(time_N[order_N].astype(np.int64)) >= 0
    return bool(np.all(later_N | (np.diff(series_N[order_N]) != 0)))


def without_time(series_N: NDArray[np.int64], names: tuple[str, ...]) -> Grid:
    """Rows that are one step apart, in the order of the file."""
    order_N = np.argsort(series_N, kind="stable")
    series_N = series_N[order_N]
    starts_S = first_rows(series_N)
    tick_N = np.arange(len(order_N)) - np.repeat(starts_S, np.diff([*starts_S, len(order_N)]))
    return Grid(Step(), order_N, series_N, names, starts_S, tick_N, None, False, 0, 0, 0, 0)


def series_of(rows: Rows, roles: Roles) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The number of each row's series, and the series' names in the order of the file."""
    for name in roles.series:
        missing_N = rows.columns[name].missing_N
        if missing_N.any():
            place = rows.origin.place(int(missing_N.argmax()))
            raise DataError(f"{place}, column {name!r}: the row names no series; fill it in or leave the row out")
    _, first_S, inverse_N = np.unique(rows.combinations(roles.series), return_index=True, return_inverse=True)
    rank_S = np.argsort(np.argsort(first_S))
    texts = [rows.columns[name].texts_N[np.sort(first_S)] for name in roles.series]
    names = tuple(", ".join(map(str, each)) for each in zip(*texts, strict=True)) or ("",)
    return rank_S[inverse_N].astype(np.int64), names


def first_rows(series_N: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.flatnonzero(np.diff(series_N, prepend=-1)).astype(np.int64)


def step_of(series_N: NDArray[np.int64], time_N: NDArray[np.datetime64]) -> Step:
    """The median time between rows of one series; in months where all rows are on one day of the month."""
    apart_N = np.diff(time_N.astype(np.int64))[np.diff(series_N) == 0]
    if len(apart_N) == 0:
        return Step(microseconds=86_400_000_000)
    median = int(np.sort(apart_N)[len(apart_N) // 2])
    months_N = time_N.astype("datetime64[M]")
    into_N = (time_N - months_N).astype(np.int64)
    days = median / 86_400_000_000
    if MONTH_DAYS[0] <= days <= MONTH_DAYS[1] and len(np.unique(into_N)) == 1:
        between_N = np.diff(months_N.astype(np.int64))[np.diff(series_N) == 0]
        return Step(months=int(np.sort(between_N)[len(between_N) // 2]))
    return Step(microseconds=max(median, 1))


def ticks(time_N: NDArray[np.datetime64], step: Step) -> tuple[NDArray[np.int64], int]:
    """The whole number of steps from the first row to each, and how many rows lie between two steps."""
    if step.months:
        month_N = time_N.astype("datetime64[M]").astype(np.int64)
        return (month_N - month_N.min()) // step.months, int(((month_N - month_N.min()) % step.months != 0).sum())
    since_N = (time_N - time_N.min()).astype(np.int64)
    tick_N = np.rint(since_N / step.microseconds).astype(np.int64)
    away_N = np.abs(since_N - tick_N * step.microseconds)
    return tick_N, int((away_N > step.microseconds * 0.01).sum())
