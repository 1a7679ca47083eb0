from __future__ import annotations

import gzip
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from tidegate.columns.numbers import read_number
from tidegate.columns.times import moment_of
from training.errors import DataError
from training.tabular.looking.frame import rows_of
from training.tabular.looking.reading import from_arrays, read

if TYPE_CHECKING:
    from pathlib import Path


def written(folder: Path, text: str, name: str = "table.csv") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_numbers_times_and_texts_are_told_apart_and_missing_values_are_known(tmp_path: Path) -> None:
    rows = read([written(tmp_path, "when;load;kind\n02.04.2020 17:36;1,5;a\n02.04.2020 18:36;NA;\n")])
    assert {name: column.kind for name, column in rows.columns.items()} == {
        "when": "time",
        "load": "number",
        "kind": "text",
    }
    np.testing.assert_array_equal(rows.columns["load"].values, [1.5, np.nan])
    assert rows.columns["kind"].values.tolist() == ["a", None]
    assert rows.columns["when"].values[1] == np.datetime64("2020-04-02T18:36")


def test_a_year_of_two_digits_is_not_taken_for_the_first_century(tmp_path: Path) -> None:
    rows = read([written(tmp_path, "date,x\n5/13/25,1\n5/14/25,2\n")])
    assert rows.columns["date"].values[0] == np.datetime64("2025-05-13")


FORMS = {
    "01/31/2024 01:05:00 PM": "2024-01-31T13:05",
    "2024-1-31 13:05": "2024-01-31T13:05",
    "2024-01-31 13:05:00 UTC": "2024-01-31T13:05",
    "2024-01-31T13:05:00+02:00": "2024-01-31T13:05",  # the wall clock counts, as it does for clients
    "2024/1/31": "2024-01-31",
    "Jan-31-2024": "2024-01-31",
    "2024 Jan": "2024-01-01",
    "2024 Q3": "2024-07-01",
    "1989 W28": "1989-07-10",
}


@pytest.mark.parametrize("text", FORMS)
def test_a_time_is_read_as_a_client_reads_it_by_the_form_that_the_table_is_found_to_have(
    tmp_path: Path, text: str
) -> None:
    column = read([written(tmp_path, f"at;x\n{text};1\n{text};2\n")]).columns["at"]
    assert column.kind == "time"
    as_client = moment_of([text], column.form.replace("%ISO", "")).wall
    assert column.values[1] == np.datetime64(FORMS[text]) == as_client


@pytest.mark.parametrize(
    ("delimiter", "cells", "numbers", "note"),
    [
        (";", ("1,5", "999"), [1.5, 999], "decimal comma"),
        ("|", ("1,5", "999"), [1.5, 999], "decimal comma"),
        (",", ('"1,500"', "999"), [1500, 999], "commas between thousands"),
        (",", ("45%", "3.5 %"), [45, 3.5], "per cent"),
        (";", ("4,5%", "3 %"), [4.5, 3], "per cent"),
    ],
)
def test_what_a_comma_in_a_number_means_depends_on_what_is_between_the_cells(
    tmp_path: Path, delimiter: str, cells: tuple[str, str], numbers: list[float], note: str
) -> None:
    lines = ["a{}b", *(f"{cell}{{}}x" for cell in cells)]
    column = read([written(tmp_path, "\n".join(line.format(delimiter) for line in lines) + "\n")]).columns["a"]
    assert (column.values.tolist(), column.note) == (numbers, note)
    assert [read_number(cell.strip('"'), delimiter) for cell in cells] == numbers


def test_a_number_that_is_infinite_and_a_time_of_another_form_are_odd(tmp_path: Path) -> None:
    lines = [f"{1 + row % 9}.5,{'2024-01-01' if row % 2 else '01.02.2024'}" for row in range(20)]
    columns = read([written(tmp_path, "\n".join(["x,at", "inf,2024-01-01", *lines]))]).columns
    odd = [columns[name].odd for name in ("x", "at")]
    assert [(each.row, each.text, each.expected) for each in odd if each] == [
        (0, "inf", "number"),
        (1, "01.02.2024", "time"),
    ]


def test_columns_of_parquet_that_are_nested_are_texts_and_truths_are_numbers(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"list": [[1.0]], "whole": [[1]], "struct": [{"a": 1}], "truth": [True], "day": [date(2024, 1, 5)]}
    )
    frame.write_parquet(tmp_path / "t.parquet")
    columns = read([str(tmp_path / "t.parquet")]).columns
    assert [column.kind for column in columns.values()] == ["text", "text", "text", "number", "time"]
    assert columns["list"].note == "is double[]"


def test_eight_digits_are_a_date_in_a_column_that_is_called_one(tmp_path: Path) -> None:
    rows = read([written(tmp_path, "date,count\n19580329,19580329\n19580405,19580405\n")])
    assert [rows.columns[name].kind for name in ("date", "count")] == ["time", "number"]


def test_csv_gzip_parquet_and_json_give_the_same_numbers(tmp_path: Path) -> None:
    text = "x,name\n1.5,a\n2.5,b\n"
    frame = pl.DataFrame({"x": [1.5, 2.5], "name": ["a", "b"]})
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_ndjson(tmp_path / "t.jsonl")
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write(text)
    written(tmp_path, text)
    for name in ("table.csv", "t.csv.gz", "t.parquet", "t.jsonl"):
        columns = read([str(tmp_path / name)]).columns
        assert columns["x"].values.tolist() == [1.5, 2.5], name
        assert columns["name"].values.tolist() == ["a", "b"], name
    assert rows_of(frame).columns["x"].values.tolist() == [1.5, 2.5]


def test_times_of_json_are_read_as_those_of_csv_and_keep_the_wall_clock_that_they_show(tmp_path: Path) -> None:
    for text in ("2024-01-31T13:05:00+02:00", "31-01-2024", "31.01.2024 13:05"):
        csv, json = (
            read([written(tmp_path, given, name)]).columns["at"]
            for given, name in ((f"at\n{text}\n", "t.csv"), (f'[{{"at": "{text}"}}]', "t.json"))
        )
        assert (json.kind, json.form, json.values.tolist()) == (csv.kind, csv.form, csv.values.tolist())


def test_files_of_a_glob_are_one_table_and_a_row_knows_its_file_and_line(tmp_path: Path) -> None:
    for number in (1, 2):
        written(tmp_path, f"x,y\n{number},a\n{number}0,b\n", f"part{number}.csv")
    rows = read([str(tmp_path / "part*.csv")])
    assert rows.columns["x"].values.tolist() == [1, 10, 2, 20]
    assert rows.origin.place(3) == "part2.csv, line 3"
    assert rows.name == "part1.csv and 1 more"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n3\n", r"table.csv, line 3: Expected Number of Columns: 2 Found: 1 in '3'; correct the line"),
        ("a,b\n1,2\n3,4,5\n", r"line 3: Expected Number of Columns: 2 Found: 3"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read([written(tmp_path, text)])


def test_lines_may_end_in_different_ways_and_are_named_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    for lines in (b"a,b\n1,2\r\n3,4\n", b"a,b\r\n1,2\r\n3,4\n", b"a,b\n1,2\n3,4\r\n"):
        path.write_bytes(lines)
        assert read([str(path)]).columns["a"].values.tolist() == [1, 3]
    path.write_bytes(b"a,b\n1,2\r\n" + 3000 * b"3,4\n" + b"5\r\n")
    with pytest.raises(DataError, match=r"table\.csv, line 3003: Expected Number of Columns: 2 Found: 1"):
        read([str(path)])


@pytest.mark.parametrize(
    ("encoding", "called", "line"), [("latin-1", "latin1", 2), ("utf-16", "utf-16", 1), ("utf-16-le", "utf-16", 1)]
)
def test_a_file_that_is_not_utf_8_is_named_with_the_command_that_makes_it_so(
    tmp_path: Path, encoding: str, called: str, line: int
) -> None:
    content = "a,b\n1,Köln\n2,Bonn\n".encode(encoding)
    (tmp_path / "table.csv").write_bytes(content)
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(content))
    for name in ("table.csv", "table.csv.gz"):
        with pytest.raises(
            DataError, match=rf"line {line}: the file is not UTF-8; .* iconv -f {called} -t utf-8 {name}"
        ):
            read([str(tmp_path / name)])


@pytest.mark.parametrize("name", ["table.csv.gz", "table.jsonl.gz"])
def test_a_gzip_that_was_cut_off_or_is_none_is_named(tmp_path: Path, name: str) -> None:
    content = gzip.compress("\n".join(f'{{"a": {number}}}' for number in range(9000)).encode())
    for held in (content[: len(content) // 2], b"a,b\n1,2\n"):
        (tmp_path / name).write_bytes(held)
        with pytest.raises(DataError, match=rf"{name} cannot be (unpacked|read)"):
            read([str(tmp_path / name)])


def test_files_that_cannot_be_read_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.csv does not exist"):
        read([str(tmp_path / "nothing.csv")])
    with pytest.raises(DataError, match=r"is of no known kind; give CSV, Parquet or JSON"):
        read([written(tmp_path, "x", "table.xlsx")])
    with pytest.raises(DataError, match=r"cannot be read"):
        read([written(tmp_path, "no parquet", "table.parquet")])
    with pytest.raises(DataError, match=r"column 'y' is in the files before it and not in b\.csv"):
        read([written(tmp_path, "x,y\n1,2\n", "a.csv"), written(tmp_path, "x\n1\n", "b.csv")])


def test_a_frame_of_any_library_is_a_table_and_anything_else_is_not() -> None:
    frame = pl.DataFrame({"when": pl.Series(["2024-01-01", None]).str.to_datetime(), "n": [1, None], "s": [None, "a"]})
    columns = rows_of(frame).columns
    assert [columns[name].kind for name in ("when", "n", "s")] == ["time", "number", "text"]
    assert [bool(column.missing_N[1]) for column in columns.values()] == [True, True, False]
    with pytest.raises(DataError, match="a dict is no table"):
        rows_of({"x": [1]})


def test_the_index_of_a_frame_of_pandas_is_no_less_than_its_columns() -> None:
    pandas = pytest.importorskip("pandas")
    times = pandas.date_range("2024-01-01", periods=2, freq="h")
    values = {"load": [1.0, 2.0], "holiday": pandas.array([True, None], dtype="boolean")}
    for index, names in (
        (times, ["index"]),
        (times.rename("at"), ["at"]),
        (pandas.MultiIndex.from_arrays([["a", "b"], times], names=["site", "at"]), ["site", "at"]),
        (pandas.Index([5, 3]), []),
    ):
        columns = rows_of(pandas.DataFrame(values, index=index)).columns
        assert list(columns) == [*names, "load", "holiday"]
        assert columns["holiday"].missing_N.tolist() == [False, True]
    for frame, says in (
        (pandas.DataFrame({("a", "x"): [1.0]}), r"the columns of the frame are called \[\('a', 'x'\)\]; give a frame"),
        (pandas.DataFrame([[1.0, 2.0]]), r"are called \[0, 1\]; give a frame whose columns have texts as names"),
        (pandas.DataFrame([[1.0, 2.0]], columns=["x", "x"]), "'x' 2 times; rename one of them"),
        (pandas.DataFrame(), "the columns of the frame are called"),
    ):
        with pytest.raises(DataError, match=says):
            rows_of(frame)


def test_the_hash_is_of_the_content_and_not_of_the_name(tmp_path: Path) -> None:
    first, second = (read([written(tmp_path, "x\n1\n", name)]) for name in ("a.csv", "b.csv"))
    assert first.sha256 == second.sha256 != read([written(tmp_path, "x\n2\n")]).sha256
    x = {"x": np.array([1.0])}
    assert from_arrays(x, "").sha256 != from_arrays({"x": np.array([2.0])}, "").sha256
