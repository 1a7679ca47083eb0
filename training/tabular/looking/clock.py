"""The time of a row: which column, or columns, it is read from. Legend: N rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from training.errors import DataError
from training.tabular.looking.kinds import FORMATS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.tabular.looking.kinds import Column
    from training.tabular.looking.reading import Rows
    from training.tabular.looking.roles import Asked

# A column of numbers is one of times if it is called so and they are seconds, or milliseconds, since 1970 within these;
# and one of years within these.
TIMELY, SECONDS, YEARS = ("time", "date", "stamp", "epoch"), (1e8, 4.2e9), (1000, 3000)
BOUNDS = {"%m": (1, 12), "%d": (1, 31), "%H": (0, 23), "%M": (0, 59)}
PARTS = (("year", "%Y"), ("month", "%m"), ("day", "%d"), ("hour", "%H"), ("minute", "%M"))


@dataclass(frozen=True)
class Clock:
    """The columns that a row's time is read from, the form of their texts ("" for ISO 8601), and the times.

    `utc_N`: the same in UTC, where they say their offset from it.
    """

    columns: tuple[str, ...]
    form: str
    time_N: NDArray[np.datetime64]
    utc_N: NDArray[np.datetime64] | None = None


def is_part(clock: Clock, column: Column) -> bool:
    """Whether a column is a part of the time that says something by itself: the month, the hour."""
    return len(clock.columns) > 1 and column.name in clock.columns and column.name.lower() in ("month", "hour")


def clock_of(rows: Rows, asked: Asked) -> Clock | None:
    """The column of times, or the columns year, month, day, hour, minute; None if the table has neither."""
    if asked.time is not None:
        column = rows.columns[asked.time]
        counted = epoch(column)
        if column.kind == "time" or counted:
            return clock_from(rows, counted or column)
        parts = composed(rows, asked) if column.name.lower() == "year" else None
        if parts is None:
            raise DataError(unreadable_time(rows, column))
        return parts
    open_to = [column for name, column in rows.columns.items() if name not in (*asked.ignore, *asked.target)]
    times = [column for column in open_to if column.kind == "time"]
    times = times or [found for column in open_to if named_as_time(column.name) and (found := epoch(column))]
    if times:
        return clock_from(rows, max(times, key=lambda column: len(np.unique(column.values))))
    for column in open_to:
        if column.odd and column.odd.expected == "time":
            raise DataError(unreadable_time(rows, column))
    return composed(rows, asked)


def named_as_time(name: str) -> bool:
    """Whether a column is called as one of times is."""
    return any(word in name.lower() for word in TIMELY) or name.lower() in ("ts", "ds")


def epoch(column: Column) -> Column | None:
    """A column of numbers as times, if they are seconds or milliseconds since 1970."""
    if column.kind != "number" or column.missing_N.all():
        return None
    lowest, highest = np.nanmin(column.values), np.nanmax(column.values)
    for form, share in (("unix", 1.0), ("unix_ms", 1e-3)):
        if SECONDS[0] <= lowest * share and highest * share <= SECONDS[1]:
            times_N = np.rint(np.nan_to_num(column.values) * share * 1e6).astype("datetime64[us]")
            times_N[column.missing_N] = np.datetime64("NaT")
            return replace(column, kind="time", values=times_N, form=form, utc_N=times_N)
    return None


def clock_from(rows: Rows, column: Column) -> Clock:
    """A column's times, all of which must be there."""
    if column.missing_N.any():
        place = rows.origin.place(int(column.missing_N.argmax()))
        raise DataError(f"{place}, column {column.name!r}: the time is missing; fill it in or leave the row out")
    return Clock((column.name,), "" if column.form == "%ISO" else column.form, column.values, column.utc_N)


def composed(rows: Rows, asked: Asked) -> Clock | None:
    """A time out of the columns year, month, day, hour and minute, of which the later ones may be lacking.

    Years, or months, alone are taken for times only where each is that of one row of a series.
    """
    open_to = [column for name, column in rows.columns.items() if name not in (*asked.ignore, *asked.target)]
    by_name = {column.name.lower(): column for column in open_to if column.kind == "number"}
    parts = [(by_name[name], form) for name, form in PARTS if name in by_name]
    forms = [form for _, form in PARTS[: len(parts)]]
    if not parts or [form for _, form in parts] != forms or any(part.missing_N.any() for part, _ in parts):
        return None
    values = [part.values for part, _ in parts]
    if not (np.all(values[0] == np.floor(values[0])) and YEARS[0] <= values[0].min() <= values[0].max() < YEARS[1]):
        return None
    for part, form in parts[1:]:
        require_part(rows, part, form)
    year, month, day, *rest = (each.astype(np.int64) for each in [*values, *[np.ones(rows.count)] * (3 - len(values))])
    months_N = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    time_N = months_N.astype("datetime64[D]").astype("datetime64[us]") + (day - 1).astype("timedelta64[D]")
    beyond_N = time_N.astype("datetime64[M]") != months_N
    if beyond_N.any():
        row = int(beyond_N.argmax())
        raise DataError(f"{rows.origin.place(row)}, column {parts[2][0].name!r}: the month has no day {day[row]}")
    for each, unit in zip(rest, ("h", "m"), strict=False):
        time_N = time_N + each.astype(f"timedelta64[{unit}]")
    if len(parts) < 3 and asked.time is None and shared(rows, asked, time_N):
        return None
    return Clock(tuple(part.name for part, _ in parts), " ".join(forms), time_N)


def require_part(rows: Rows, part: Column, form: str) -> None:
    """Refuse an hour that is none, as 24, and its like, by which a row would have the time of another one."""
    lowest, highest = BOUNDS[form]
    odd_N = (part.values < lowest) | (part.values > highest) | (part.values != np.floor(part.values))
    if odd_N.any():
        row = int(odd_N.argmax())
        raise DataError(
            f"{rows.origin.place(row)}, column {part.name!r}: {part.values[row]:g} is no part of a time, which is a "
            f"whole number from {lowest} to {highest}; correct it, or give --time COLUMN or --ignore {part.name}"
        )


def shared(rows: Rows, asked: Asked, time_N: NDArray[np.datetime64]) -> bool:
    series_N = rows.combinations(asked.series)
    return len(set(zip(series_N.tolist(), time_N.tolist(), strict=True))) < rows.count


def unreadable_time(rows: Rows, column: Column) -> str:
    """Why a column holds no times, with the first one that cannot be read."""
    remedy = "write times as 2024-03-31 17:00, or as one of " + ", ".join(FORMATS[4:7])
    given = np.flatnonzero(~column.missing_N)
    row = column.odd.row if column.odd else int(given[0]) if len(given) else 0
    value = column.odd.text if column.odd else column.texts_N[row]
    form = f" as {column.odd.form}, as others of the column are" if column.odd and column.odd.form != "%ISO" else ""
    return f"{rows.origin.place(row)}, column {column.name!r}: {str(value)[:40]!r} is no time{form}; {remedy}"
