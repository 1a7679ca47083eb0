from __future__ import annotations

import io

import numpy as np
import pytest

from tidegate.cli.tables import BadTable, read
from tidegate.columns import Input, LegendError, Rows, read_legend

ENTRY = {
    "features": ["load", "holiday_in_1", "price_in_2"],
    "missing": ["load", "price_in_2"],
    "categories": {"holiday_in_1": ["", "no", "yes"]},
    "source": {"holiday_in_1": "holiday", "price_in_2": "price"},
    "ahead": {"holiday_in_1": 1, "price_in_2": 2},
}
TIMED = ENTRY | {"timestamp": ["day", "hour"], "time_format": "%Y-%m-%d %H:%M", "time_step": "3600 seconds"}
NONE = float("nan")


def rows_of(text: str, entry: dict[str, object]) -> list[list[float]]:
    legend = read_legend(entry, "x", (3,))
    found = read("-", io.TextIOWrapper(io.BytesIO(text.encode())), Rows([Input("x", (3,), False, legend)]))
    return [row.tolist() for row in found.rows]


def test_a_table_is_read_ahead_for_columns_that_are_known_ahead() -> None:
    text = "load,price,holiday\n1,10,no\n2,20,yes\n3,30,no\n,40,yes\n"
    found = rows_of(text, ENTRY)
    np.testing.assert_equal(found, [[1, 2, 30], [2, 1, 40], [3, 2, NONE], [NONE, 0, NONE]])


def test_steps_ahead_are_counted_by_time_and_a_row_that_is_not_there_leaves_nothing() -> None:
    text = (
        "day,hour,load,price,holiday\n2024-01-01,22:00,1,10,no\n2024-01-01,23:00,2,20,yes\n"
        "2024-01-02,01:00,3,30,no\n2024-01-02,02:00,4,40,yes\n"
    )
    np.testing.assert_equal(rows_of(text, TIMED), [[1, 2, NONE], [2, 0, 30], [3, 2, NONE], [4, 0, NONE]])


def test_months_are_counted_by_the_calendar() -> None:
    entry = ENTRY | {"timestamp": "day", "time_step": "1 months"}
    text = "day,load,price,holiday\n2024-01-31,1,10,no\n2024-02-29,2,20,yes\n2024-03-31,3,30,no\n"
    np.testing.assert_equal(rows_of(text, entry), [[1, 2, 30], [2, 1, NONE], [3, 0, NONE]])


def test_what_is_ahead_ends_where_the_time_of_a_table_goes_back() -> None:
    text = (
        "day,hour,load,price,holiday\n2024-01-01,22:00,1,10,no\n2024-01-01,23:00,2,20,yes\n"
        "2024-01-01,22:00,3,30,no\n2024-01-01,23:00,4,40,yes\n"
    )
    np.testing.assert_equal(rows_of(text, TIMED), [[1, 2, NONE], [2, 0, NONE], [3, 2, NONE], [4, 0, NONE]])


def test_an_hour_that_comes_twice_is_two_steps_and_an_offset_from_utc_says_which_is_which() -> None:
    half = TIMED | {"time_step": "1800 seconds", "timestamp": "at", "time_format": ""}
    clocks = ["01:30", "02:00", "02:30", "02:00", "02:30", "03:00"]
    expected = [[0, 2, 12], [1, 1, 13], [2, 2, 14], [3, 1, 15], [4, 2, NONE], [5, 0, NONE]]
    for offsets in ([""] * 6, ["+02:00"] * 3 + ["+01:00"] * 3):
        rows = [
            f"2024-10-27 {clock}{offset},{at},{10 + at},{['no', 'yes'][at % 2]}"
            for at, (clock, offset) in enumerate(zip(clocks, offsets, strict=True))
        ]
        np.testing.assert_equal(rows_of("\n".join(["at,load,price,holiday", *rows]), half), expected)


def test_what_is_ahead_is_that_of_the_rows_own_series_and_rows_keep_their_order() -> None:
    text = "site,load,price,holiday\na,1,10,no\nb,2,50,yes\na,3,20,yes\na,4,30,no\nb,5,60,no\nb,6,70,no\n"
    found = rows_of(text, ENTRY | {"series": "site"})
    np.testing.assert_equal(found, [[1, 2, 30], [2, 1, 70], [3, 1, NONE], [4, 0, NONE], [5, 1, NONE], [6, 0, NONE]])


def test_a_table_that_has_the_columns_themselves_is_not_read_ahead() -> None:
    text = "load,holiday_in_1,price_in_2,holiday,price\n1,yes,5,no,6\n2,no,,no,8\n"
    np.testing.assert_equal(rows_of(text, ENTRY), [[1, 2, 5], [2, 1, NONE]])


def test_what_is_known_ahead_is_never_taken_from_the_row_itself() -> None:
    rows = Rows([Input("x", (3,), False, read_legend(ENTRY, "x", (3,)))])
    np.testing.assert_equal(rows.named_row({"load": 1, "holiday_in_1": "yes", "price": 6}), [1, 2, NONE])


def test_a_time_that_cannot_be_read_is_named_by_its_line() -> None:
    with pytest.raises(BadTable, match="line 3: '2024-01-01 noon' is no time"):
        rows_of("day,hour,load,price,holiday\n2024-01-01,22:00,1,10,no\n2024-01-01,noon,2,20,yes\n", TIMED)


@pytest.mark.parametrize(
    "said",
    [
        {"ahead": {"load": 0}},
        {"time_step": "an hour"},
        {"time_step": "0 seconds"},
        {"series": [""]},
        {"series": ["a", "a"]},
        {"series": 3},
    ],
)
def test_what_makes_no_sense_is_refused(said: dict[str, object]) -> None:
    with pytest.raises(LegendError):
        read_legend(ENTRY | said, "x", (3,))
