import io
from pathlib import Path

import numpy as np
import pytest

from tests.tidegate.fake_server import find
from tidegate.cli.tables import BadTable, read
from tidegate.columns import RowError, Rows
from tidegate.inputs import InputLayout
from tidegate.model import Model

TOY = InputLayout(Model.read(find("toy", 1)).inputs).rows
PAIR = InputLayout(Model.read(find("pair", 1)).inputs).rows


def table(text: str, columns: Rows = TOY) -> tuple[list[list[float]], tuple[str, ...]]:
    found = read("-", io.TextIOWrapper(io.BytesIO(text.encode())), columns)
    return [row.tolist() for row in found.rows], found.notes


@pytest.mark.parametrize(
    "text", ["1,2\n3,4\n", "1;2\r\n3;4", "left,right\n1,2\n\n3,4\n", "\ufeffright\tleft\n2\t1\n4\t3\n"]
)
def test_rows_come_with_or_without_a_header_in_the_models_order(text: str) -> None:
    assert table(text)[0] == [[1, 2], [3, 4]]


def test_columns_that_the_model_does_not_take_are_left_out_with_a_note() -> None:
    rows, notes = table('time,right,left\n"a, b",2,1\n')
    assert rows == [[1, 2]]
    assert notes == ("columns that the model does not take are left out: time",)


def test_a_quoted_cell_may_hold_lines_and_a_quotation_mark_within_a_cell_is_one() -> None:
    lines = 'note,left,right\n"one\ntwo, ""three""\nfour",1,2\n5" pipe,3,4\n,x,6\n'
    with pytest.raises(BadTable, match="line 6: column 'left' holds 'x'"):
        table(lines)
    assert table(lines.replace(",x,6", ",5,6"))[0] == [[1, 2], [3, 4], [5, 6]]
    with pytest.raises(BadTable, match="line 2: a quotation mark is not closed"):
        table('note,left,right\n"one,1,2\n' + "two,1,2\n" * 200)


def test_a_comma_in_a_number_is_a_decimal_one_where_semicolons_part_the_cells_and_else_parts_thousands() -> None:
    assert table("left;right\n1,5;-,25\n")[0] == [[1.5, -0.25]]
    assert table("left|right\n1,5|2\n")[0] == [[1.5, 2]]
    assert table('left,right\n"1,500",2\n"-12,345,678.5",999\n')[0] == [[1500, 2], [-12345678.5, 999]]
    for text in ("left;right\n1.234,5;2\n", 'left,right\n"1,5",2\n'):
        with pytest.raises(BadTable, match=r"line 2: column 'left' holds '.*', which is no number"):
            table(text)


def test_per_cent_signs_are_left_out_of_numbers() -> None:
    assert table("left,right\n45%,12.5 %\n")[0] == [[45, 12.5]]


def test_columns_without_a_name_or_with_the_name_of_another_stand_for_no_other() -> None:
    assert table("left,,right,LEFT,\n1,8,2,9,\n")[0] == [[1, 2]]
    assert table("left,,right,LEFT,\n1,8,2,9,\n")[1] == (
        "columns that the model does not take are left out: , LEFT_1, ",
    )


def test_an_empty_table_has_no_rows() -> None:
    assert table("") == ([], ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("left,up\n1,2\n", "no column right; the model takes left, right"),
        ("1,2,3\n", "3 columns; 2 were expected: left, right"),
        ("1,x\n", "it was taken for the names of columns, because 'x' is no number"),
        ("1,2\n3\n", "line 2: 1 columns; 2 were expected, as in the first line"),
        ("left,right\n1,x\n", "line 2: column 'right' holds 'x', which is no number"),
        ("left,right\n1,\n", "line 2: column 'right' holds ''"),
    ],
)
def test_a_table_that_does_not_fit_says_where(text: str, words: str) -> None:
    with pytest.raises(BadTable, match=words):
        table(text)


def test_names_that_the_model_does_not_have_are_taken_in_their_order() -> None:
    rows, notes = table("first,second\n1,2\n", PAIR)
    assert rows == [[1, 2]]
    assert "in their order" in notes[0]


def test_columns_of_several_inputs_stand_one_after_the_other() -> None:
    inputs = PAIR.arrays(np.array([[0.5, 3.0], [1.5, 4.0]]))
    assert inputs["a"].tolist() == [[0.5], [1.5]]
    assert (inputs["token"].tolist(), inputs["token"].dtype) == ([3, 4], np.int64)
    with pytest.raises(RowError, match="whole numbers"):
        PAIR.arrays(np.array([0.5, 3.5]))


def test_an_array_comes_from_a_file_or_a_pipe(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.int32).reshape(3, 2)
    np.save(tmp_path / "x.npy", array)
    from_file = read(str(tmp_path / "x.npy"), io.TextIOWrapper(io.BytesIO()), TOY)
    piped = io.BufferedReader(io.BytesIO((tmp_path / "x.npy").read_bytes()))
    from_pipe = read("-", io.TextIOWrapper(piped), TOY)
    for found in (from_file, from_pipe):
        np.testing.assert_array_equal(list(found.rows), array)


@pytest.mark.parametrize(
    ("array", "words"),
    [(np.zeros((3, 5)), r"shape \[3, 5\]; \[rows, 2\]"), (np.zeros(4), r"\[4\]"), (np.array([["a", "b"]]), "<U1")],
)
def test_an_array_that_does_not_fit_says_what_was_expected(tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(BadTable, match=words):
        read(str(tmp_path / "x.npy"), io.TextIOWrapper(io.BytesIO()), TOY)
