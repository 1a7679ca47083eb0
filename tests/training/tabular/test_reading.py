from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

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


def test_the_hash_is_of_the_content_and_not_of_the_name(tmp_path: Path) -> None:
    first, second = (read([written(tmp_path, "x\n1\n", name)]) for name in ("a.csv", "b.csv"))
    assert first.sha256 == second.sha256 != read([written(tmp_path, "x\n2\n")]).sha256
    x = {"x": np.array([1.0])}
    assert from_arrays(x, "").sha256 != from_arrays({"x": np.array([2.0])}, "").sha256
