"""Which numbers may be sent, tried on whole rows at once."""

import numpy as np
import pytest

from tidegate.columns import Column, Legend, Limits

F4, I8 = np.dtype(np.float32), np.dtype(np.int64)
TEMP = Column("temp", "degC", missing=True, lowest=-60, highest=60)
LIMITS = Limits("x", (3,), F4, Legend((TEMP, Column("wind", categories=("", "NW")), Column("p"))))
NAN, INF = np.nan, np.inf


def _rows(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float32)


@pytest.mark.parametrize("row", [(0, 0, 0), (-60, 1, 3e38), (60, 1, -3e38), (NAN, 0, 0)])
def test_numbers_within_their_bounds_hold_and_missing_ones_where_they_may_be(row: tuple[float, ...]) -> None:
    assert LIMITS.hold(_rows((1, 1, 1), row))
    assert LIMITS.hold(_rows(row)[0])


@pytest.mark.parametrize(
    ("row", "finite", "sentence"),
    [
        ((85, 0, 0), True, "input 'x' holds 85.0 in row 1, column 'temp'; -60 to 60 degC is taken"),
        ((INF, 0, 0), False, "holds inf in row 1, column 'temp'; a number or NaN is taken"),
        ((0, NAN, 0), False, "holds nan in row 1, column 'wind'; only finite numbers are taken"),
        ((0, 2, 0), True, "column 'wind'; the number of one of its 2 categories is taken, 0 to 1"),
        ((0, 0.5, 0), True, "holds 0.5 in row 1, column 'wind'; the number of one of"),
        ((0, 0, NAN), False, "column 'p'; only finite numbers are taken"),
        ((0, 0, -INF), False, "holds -inf in row 1, column 'p'"),
    ],
)
def test_a_number_that_may_not_be_sent_is_named_with_its_row_and_column(
    row: tuple[float, ...], finite: bool, sentence: str
) -> None:
    x = _rows((1, 1, 1), row)
    assert not LIMITS.hold(x)
    fault = LIMITS.fault(x)
    assert (fault.row, fault.finite) == (1, finite)
    assert sentence in fault.sentence


def test_of_many_rows_each_is_compared() -> None:
    rows = np.tile(np.array([60, 1, 3], np.float32), (20_000, 1))
    assert LIMITS.hold(rows)
    for at in (0, 5_460, 5_461, 19_999):
        wrong = rows.copy()
        wrong[at, 0] = 61
        assert not LIMITS.hold(wrong)
        assert LIMITS.fault(wrong).row == at


def test_whole_numbers_have_bounds_too_and_no_gaps() -> None:
    limits = Limits("x", (), I8, Legend((Column("x", missing=True, lowest=-0.5),)))
    assert limits.hold(np.array([0, 2**63 - 1]))
    assert not limits.hold(np.array([-1]))
    assert "at least -0.5 is taken" in limits.fault(np.array([-1])).sentence


def test_a_row_without_bounds_is_only_asked_to_be_finite() -> None:
    limits = Limits("x", (2, 2), F4, Legend((Column("a", "m"), Column("b"))))
    assert not limits.bounded
    assert limits.hold(np.zeros((5, 2, 2), np.float32))
    assert "holds nan in row 0, column 'b'" in limits.fault(np.full((1, 2, 2), [0, NAN], np.float32)).sentence
    assert "element [0, 1]" in Limits("x", (2, 2), F4).fault(np.full((1, 2, 2), [0, NAN], np.float32)).sentence


@pytest.mark.parametrize("count", [2, 4])
def test_columns_of_a_row_of_two_axes_are_its_last_axis_or_all_its_numbers(count: int) -> None:
    columns = (*(Column(f"c{i}") for i in range(count - 1)), Column("last", highest=1))
    limits = Limits("x", (2, 2), F4, Legend(columns))
    assert limits.hold(np.array([[[9, 1], [9, 1]]], np.float32))
    assert not limits.hold(np.array([[[9, 1], [9, 2]]], np.float32))
    assert limits.hold(np.array([[[9, 2], [9, 1]]], np.float32)) == (count == 4)


def test_a_number_that_may_not_be_sent_is_found_without_a_look_at_what_comes_after_it() -> None:
    rows = np.tile(np.array([60, 1, 3], np.float32), (100_000, 1))
    rows[10_000, 2] = NAN
    looked: list[int] = []
    limits = Limits("x", (3,), F4, Legend((TEMP, Column("wind", categories=("", "NW")), Column("p"))))
    fitting = limits._fitting
    limits._fitting = lambda x, bounds: looked.append(len(x)) or fitting(x, bounds)  # type: ignore[method-assign]
    assert "row 10000, column 'p'" in limits.fault(rows).sentence
    assert sum(looked) < 20_000
    assert "row 10000, element [2]" in Limits("x", (3,), F4).fault(rows).sentence


def test_a_number_in_a_row_that_is_longer_than_what_is_compared_at_a_time_is_found() -> None:
    columns = tuple(Column(f"c{n}", lowest=0.0, highest=1.0) for n in range(20_000))
    limits = Limits("x", (len(columns),), np.dtype("f4"), Legend(columns))
    x = np.zeros((3, len(columns)), np.float32)
    assert limits.hold(x)
    x[1, 17_000] = 7
    assert not limits.hold(x)
    fault = limits.fault(x)
    assert (fault.row, fault.finite) == (1, True)
    assert "holds 7.0 in row 1, column 'c17000'" in fault.sentence
