"""Times of rows: read from a table's texts, and what a calendar says of them. Pure; numpy alone.

The one place for both: training uses it on its table, the client on the rows that it sends. A calendar speaks
of the wall clock that a time itself shows. How far two times are apart is counted in UTC where they say their offset;
elsewhere an hour that comes twice, at the end of summer time, is known by its night.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.columns.numbers import text_of

Times = NDArray[np.datetime64]
HOUR, DAY = np.timedelta64(1, "h"), np.timedelta64(1, "D")
# The months in which summer time ends somewhere, and the hours of a Sunday that come twice; or 23 on the day before.
_AUTUMN, _NIGHT = (2, 3, 4, 5, 9, 10, 11), (0, 1, 2, 3)
_UNIX = {"unix": 1e6, "unix_ms": 1e3}  # microseconds of one
_PARTS = {"quarter": (r"(\d{4})[ -]?Q([1-4])", "1998 Q1"), "week": (r"(\d{4})[ -]?W(\d\d)", "1998 W07")}


@dataclass(frozen=True, slots=True)
class Moment:
    """A time as its wall clock shows it, and in UTC if it says its offset from it."""

    wall: np.datetime64
    utc: np.datetime64 | None


def moment_of(cells: Sequence[object], form: str = "") -> Moment:
    """The time that the cells of a row hold together, to microseconds.

    `form`: "" for ISO 8601 (a date, or date and time, with or without an offset), "unix" or "unix_ms" for seconds or
    milliseconds since 1970 in UTC, "quarter" for 1998 Q1 and "week" for 1998 W07 (of ISO 8601), of which the first day
    counts, else a format as `datetime.strptime` has it. A datetime is taken as it is.

    Raises:
        ValueError: they hold no time of this form; the sentence names it.
    """
    given = cells[0] if len(cells) == 1 else " ".join(text_of(cell).strip() for cell in cells)
    wall = _time(given, form)
    if says_utc(form):
        return Moment(wall, wall)
    stated = given if isinstance(given, datetime) else None
    if not form and isinstance(given, str):
        stated = datetime.fromisoformat(given.strip())
    if stated is None or stated.tzinfo is None:
        return Moment(wall, None)
    return Moment(wall, np.datetime64(stated.astimezone(UTC).replace(tzinfo=None), "us"))


def says_utc(form: str) -> bool:
    """Whether all times of a form are in UTC."""
    return form in _UNIX or form.endswith("UTC")


def comes_twice(before: np.datetime64, now: np.datetime64) -> bool:
    """Whether clocks were put back by an hour between a row and the next, so that `now` shows an hour once more."""
    if not before - HOUR < now <= before:
        return False
    (weekday,), (hour,), (month,) = (calendar(kind, np.array([now])) for kind in ("weekday", "hour", "month"))
    return month in _AUTUMN and ((weekday == 6 and hour in _NIGHT) or (weekday == 5 and hour == 23))


def _time(given: object, form: str) -> np.datetime64:
    try:
        if isinstance(given, datetime):
            return np.datetime64(given.replace(tzinfo=None), "us")
        if isinstance(given, np.datetime64):
            taken: np.datetime64 = given.astype("datetime64[us]")
            return taken
        text = str(given).strip()
        if form in _UNIX:
            return np.datetime64(round(float(text) * _UNIX[form]), "us")
        if form and form not in _PARTS:
            read = datetime.strptime(text, form)  # noqa: DTZ007 - as it stands
        else:
            read = datetime.fromisoformat(_first_day(text, form) if form else text)
        return np.datetime64(read.replace(tzinfo=None), "us")
    except (ValueError, OverflowError):
        raise ValueError(f"{given!r:.60} is no time; expected {expected(form)}") from None


def _first_day(text: str, form: str) -> str:
    """Of a quarter or a week, as ISO 8601 writes it."""
    found = re.fullmatch(_PARTS[form][0], text)
    if found is None:
        raise ValueError
    year, number = found.groups()
    return f"{year}-{3 * int(number) - 2:02}-01" if form == "quarter" else f"{year}-W{number}"


def expected(form: str) -> str:
    """What a time of a form looks like, for an error."""
    if form in _PARTS:
        return f"a {form} like {_PARTS[form][1]}"
    if form in _UNIX:
        return f"{'milliseconds' if form == 'unix_ms' else 'seconds'} since 1970"
    return f"the form {form}" if form else "one like 2024-01-31 13:30:00"


def calendar(kind: str, times: Times) -> NDArray[np.float64]:
    """What a calendar says of times [N], as floats [N]; `kind` is one of CALENDAR.

    Raises:
        ValueError: a time is none (NaT).
    """
    if np.isnat(times).any():
        raise ValueError("a row has no time, and what a calendar says of it is an input of the model")
    return np.asarray(CALENDAR[kind](times), np.float64)


def _since(times: Times, larger: str, smaller: str) -> NDArray[Any]:
    """How many of the smaller unit have passed since the larger one began."""
    start = times.astype(f"datetime64[{larger}]")
    passed: NDArray[Any] = times.astype(f"datetime64[{smaller}]") - start.astype(f"datetime64[{smaller}]")
    return passed.astype(np.int64)


def _days(times: Times) -> NDArray[np.int64]:
    return times.astype("datetime64[D]").astype(np.int64)


def _weekday(times: Times) -> NDArray[np.int64]:
    return np.asarray((_days(times) + 3) % 7)  # 1970 began on a Thursday


def _month(times: Times) -> NDArray[np.int64]:
    return times.astype("datetime64[M]").astype(np.int64) % 12


def _year(times: Times) -> NDArray[np.int64]:
    return times.astype("datetime64[Y]").astype(np.int64) + 1970


def _week(times: Times) -> NDArray[np.int64]:
    """Of ISO 8601: the first week of a year is the one with its first Thursday."""
    thursday: Times = times.astype("datetime64[D]") + (3 - _weekday(times)).astype("timedelta64[D]")
    return np.asarray(_since(thursday, "Y", "D") // 7 + 1)


def _of_year(times: Times) -> NDArray[np.float64]:
    year = times.astype("datetime64[Y]")
    length = ((year + np.timedelta64(1, "Y")).astype("datetime64[D]") - year.astype("datetime64[D]")).astype(np.int64)
    return np.asarray(_since(times, "Y", "us") / 86_400e6 / length)


# What a client computes from a row's time; whole numbers, but fractions from 0 to below 1 of a day and a year.
CALENDAR: Mapping[str, Callable[[Times], NDArray[Any]]] = {
    "second": lambda times: _since(times, "m", "s"),
    "minute": lambda times: _since(times, "h", "m"),
    "hour": lambda times: _since(times, "D", "h"),
    "weekday": _weekday,  # Monday is 0
    "weekend": lambda times: _weekday(times) >= 5,
    "day": lambda times: _since(times, "M", "D") + 1,
    "month": lambda times: _month(times) + 1,
    "quarter": lambda times: _month(times) // 3 + 1,
    "year": _year,
    "day_of_year": lambda times: _since(times, "Y", "D") + 1,
    "week": _week,
    "hour_of_week": lambda times: 24 * _weekday(times) + _since(times, "D", "h"),
    "minute_of_day": lambda times: _since(times, "D", "m"),
    "second_of_day": lambda times: _since(times, "D", "s"),
    "days": _days,  # since 1970-01-01
    "time_of_day": lambda times: _since(times, "D", "us") / 86_400e6,
    "time_of_year": _of_year,
    # of a time in UTC, if it says its offset
    "utc_days": _days,
    "utc_second_of_day": lambda times: _since(times, "D", "s"),
}
