"""Rows made of what a table or a program has by the names of its columns."""

from datetime import datetime
from typing import Any

import numpy as np
import pytest

from tests.table_model import INPUTS
from tidegate.columns import Input, RowError, Rows, read_legend

ROWS = Rows([Input("x", (4,), whole=False, legend=read_legend(INPUTS, "x", (4,)))])
GIVEN = {"temp": 20.5, "wind": "NW", "load": 50, "Date": "31.01.2024", "Time": "13:30"}
NAN = np.nan


def _row(**changes: Any) -> list[float]:  # noqa: ANN401 - whatever a table may hold
    return ROWS.named_row({**GIVEN, **changes})


def test_a_row_is_made_of_names_categories_and_the_times_of_a_table() -> None:
    assert _row() == [20.5, 1, 13, 50]
    assert ROWS.wanted == ["Temperature (C)", "wind", "load", "Date", "Time"]


def test_a_program_may_give_a_datetime_and_leave_out_what_may_be_missing() -> None:
    row = ROWS.named_row({"wind": "SE", "load": "50", "time": datetime.fromisoformat("2024-01-31T07:05")})
    np.testing.assert_array_equal(row, [NAN, 2, 7, 50])


@pytest.mark.parametrize("gone", [None, "", " ", "NA", "nan", "null", "?", "-", ".", "Missing", NAN])
def test_what_is_missing_is_nan_where_it_may_be(gone: object) -> None:
    np.testing.assert_array_equal(_row(temp=gone), [NAN, 1, 13, 50])
    with pytest.raises(RowError, match=r"column 'load' holds .*, and a number was expected: none may be missing there"):
        _row(load=gone)


@pytest.mark.parametrize(("wind", "number"), [("NW", 1), (" SE ", 2), ("N", 0), ("", 0), (None, 0)])
def test_a_category_is_its_number_and_one_that_was_never_seen_has_a_place(wind: object, number: int) -> None:
    assert _row(wind=wind)[1] == number


@pytest.mark.parametrize(("given", "number"), [(7, 0), (7.0, 0), ("7", 0), (True, 1), (np.int64(7), 0), ("true", 1)])
def test_numbers_and_truths_are_categories_as_a_table_writes_them(given: object, number: int) -> None:
    legend = read_legend({"categories": {"k": ["7", "true"]}}, "k", ())
    assert Rows([Input("k", (), whole=True, legend=legend)]).named_row({"k": given}) == [number]


def test_a_truth_is_the_category_one_or_nought_where_the_model_knows_no_true() -> None:
    rows = Rows([Input("k", (), whole=True, legend=read_legend({"categories": {"k": ["", "0", "1"]}}, "k", ()))])
    assert [rows.named_row({"k": given}) for given in (False, True, None)] == [[1], [2], [0]]


@pytest.mark.parametrize(
    ("changes", "reason", "sentence"),
    [
        ({"load": 101}, "OUT_OF_RANGE", "column 'load' holds 101; 0 to 100 % is taken"),
        ({"load": "much"}, "WRONG_TYPE", "column 'load' holds 'much', which is no number"),
        ({"load": [1]}, "WRONG_TYPE", "column 'load' holds"),
        ({"load": "inf"}, "NOT_FINITE", "column 'load' holds 'inf'; only finite numbers"),
        ({"Date": "2024-01-31"}, "WRONG_TYPE", "column 'Date Time': '2024-01-31 13:30' is no time; expected the form"),
        ({"wnd": "NW"}, "WRONG_NAME", "the row has wnd, which the model does not take; it takes Temperature"),
    ],
)
def test_what_a_row_may_not_hold_is_named_with_its_column(changes: dict[str, Any], reason: str, sentence: str) -> None:
    with pytest.raises(RowError, match=sentence) as caught:
        _row(**changes)
    assert caught.value.reason == reason


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(RowError, match="there is no column wind, Date, Time; the model takes Temperature"):
        ROWS.named_row({"load": 3})


def test_a_category_without_a_place_for_others_refuses_them_by_name() -> None:
    rows = Rows([Input("k", (), whole=True, legend=read_legend({"categories": {"k": ["a", "b"]}}, "k", ()))])
    with pytest.raises(RowError, match="column 'k' holds 'c', which is none of its categories: a, b"):
        rows.named_row({"k": "c"})


def test_values_in_the_models_order_need_no_names() -> None:
    binding = ROWS.in_order()
    assert binding.row(["20.5", "SE", "13", "50"]) == binding.row(["20.5", "2", "13", "50"]) == [20.5, 2, 13, 50]
    with pytest.raises(RowError, match="column 'wind' holds '3'; the number of one of its 3 categories is taken"):
        binding.row(["20.5", "3", "13", "50"])
