"""Times as tables write them, and what a calendar says of them, beside Python's own datetime."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tidegate.columns.times import CALENDAR, Moment, calendar, comes_twice, moment_of

_at = datetime.fromisoformat
_EXPECTED = {
    "second": lambda t: t.second,
    "minute": lambda t: t.minute,
    "hour": lambda t: t.hour,
    "weekday": lambda t: t.weekday(),
    "weekend": lambda t: t.weekday() >= 5,
    "day": lambda t: t.day,
    "month": lambda t: t.month,
    "quarter": lambda t: (t.month - 1) // 3 + 1,
    "year": lambda t: t.year,
    "day_of_year": lambda t: t.timetuple().tm_yday,
    "week": lambda t: t.isocalendar().week,
    "hour_of_week": lambda t: 24 * t.weekday() + t.hour,
    "minute_of_day": lambda t: 60 * t.hour + t.minute,
    "second_of_day": lambda t: 3600 * t.hour + 60 * t.minute + t.second,
    "days": lambda t: t.toordinal() - _at("1970-01-01").toordinal(),
    "time_of_day": lambda t: (t - _at(f"{t:%Y-%m-%d}")) / timedelta(days=1),
    "utc_days": lambda t: t.toordinal() - _at("1970-01-01").toordinal(),
    "utc_second_of_day": lambda t: 3600 * t.hour + 60 * t.minute + t.second,
    "time_of_year": lambda t: (t - _at(f"{t.year}-01-01")) / (_at(f"{t.year + 1}-01-01") - _at(f"{t.year}-01-01")),
}


@pytest.mark.parametrize("kind", CALENDAR)
def test_what_a_calendar_says_is_what_datetime_says(kind: str) -> None:
    seconds = np.random.default_rng(1).integers(0, 6 * 10**9, 2000)
    times = [_at("1900-01-01") + timedelta(seconds=int(each)) for each in seconds]
    times += map(_at, ("2024-12-30", "2021-01-03 23:59:59", "2020-02-29", "1969-12-31 23:00"))
    expected = [float(_EXPECTED[kind](time)) for time in times]
    assert calendar(kind, np.array([moment_of([time]).wall for time in times])).tolist() == pytest.approx(
        expected, abs=1e-12
    )


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        ("2024-01-31 13:30:00", "", "2024-01-31T13:30"),
        ("2024-01-31T13:30:00.5Z", "", "2024-01-31T13:30:00.5"),
        ("2024-01-31T08:00+10:00", "", "2024-01-31T08:00"),
        ("2024-01-31", "", "2024-01-31"),
        (" 31.1.2024 7:05 ", "%d.%m.%Y %H:%M", "2024-01-31T07:05"),
        ("2010 1 2 23", "%Y %m %d %H", "2010-01-02T23"),
        ("86400.5", "unix", "1970-01-02T00:00:00.5"),
        ("-1", "unix_ms", "1969-12-31T23:59:59.999"),
        ("1998 Q1", "quarter", "1998-01-01"),
        ("1998Q4", "quarter", "1998-10-01"),
        ("1989 W28", "week", "1989-07-10"),
        ("2021-W01", "week", "2021-01-04"),
        (datetime(2024, 1, 31, 13, tzinfo=UTC), "unix", "2024-01-31T13"),
        (np.datetime64("2024-01-31T13"), "", "2024-01-31T13"),
    ],
)
def test_a_time_is_read_in_its_form_and_shows_its_own_wall_clock(text: object, form: str, expected: str) -> None:
    assert moment_of([text], form).wall == np.datetime64(expected)


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        ("31/1/2024", "", "one like 2024-01-31 13:30:00"),
        ("2024-01-31", "%d.%m.%Y", "the form %d.%m.%Y"),
        ("noon", "unix", "seconds since 1970"),
        ("nan", "unix_ms", "milliseconds since 1970"),
        ("1e300", "unix", "seconds since 1970"),
        ("1998 Q5", "quarter", "a quarter like 1998 Q1"),
        ("1998 W54", "week", "a week like 1998 W07"),
        ("", "", "one like"),
    ],
)
def test_what_is_no_time_is_named_with_what_was_expected(text: str, form: str, expected: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is no time; expected {expected}"):
        moment_of([text], form)


@pytest.mark.parametrize(
    ("cells", "form", "wall", "utc"),
    [
        (["2024-10-27 02:30:00+01:00"], "", "2024-10-27T02:30", "2024-10-27T01:30"),
        (["2024-10-27T02:30:00+0200"], "", "2024-10-27T02:30", "2024-10-27T00:30"),
        (["2024-10-27T02:30Z"], "", "2024-10-27T02:30", "2024-10-27T02:30"),
        (["2024-10-27 02:30"], "", "2024-10-27T02:30", None),
        (["27.10.2024", "02:30"], "%d.%m.%Y %H:%M", "2024-10-27T02:30", None),
        ([2024, 10.0, 27, 2], "%Y %m %d %H", "2024-10-27T02:00", None),
        ([86400], "unix", "1970-01-02", "1970-01-02"),
        (["2024-10-27 02:30:00 UTC"], "%Y-%m-%d %H:%M:%S UTC", "2024-10-27T02:30", "2024-10-27T02:30"),
        ([datetime(2024, 10, 27, 2, tzinfo=UTC)], "", "2024-10-27T02:00", "2024-10-27T02:00"),
        ([np.datetime64("2024-10-27T02:00")], "", "2024-10-27T02:00", None),
    ],
)
def test_a_time_is_known_in_utc_where_it_says_its_offset(
    cells: list[object], form: str, wall: str, utc: str | None
) -> None:
    assert moment_of(cells, form) == Moment(np.datetime64(wall), None if utc is None else np.datetime64(utc))


@pytest.mark.parametrize(
    ("before", "now", "twice"),
    [
        ("2024-10-27T02:00", "2024-10-27T02:00", True),  # Berlin, hours
        ("2024-10-27T02:45", "2024-10-27T02:00", True),
        ("2024-11-03T01:30", "2024-11-03T01:00", True),  # New York
        ("2024-04-07T02:30", "2024-04-07T02:00", True),  # Sydney
        ("2018-02-17T23:50", "2018-02-17T23:00", True),  # Sao Paulo, on a Saturday
        ("2024-10-27T02:00", "2024-10-27T03:00", False),
        ("2024-10-27T03:00", "2024-10-27T02:00", False),  # a whole hour back, and none of it comes twice
        ("2024-10-28T02:00", "2024-10-28T02:00", False),  # a Monday
        ("2024-10-27T12:00", "2024-10-27T12:00", False),
        ("2024-07-07T02:00", "2024-07-07T02:00", False),
    ],
)
def test_an_hour_that_comes_twice_is_known_by_its_night(before: str, now: str, twice: bool) -> None:
    assert comes_twice(np.datetime64(before), np.datetime64(now)) == twice
