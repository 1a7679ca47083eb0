import gzip
import io
import json
import os
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest

from tests.tidegate.fake_server import find
from tidegate.cli.tables import BadTable, read
from tidegate.columns import Input, RowError, Rows, read_legend
from tidegate.inputs import InputLayout
from tidegate.model import Model

TOY = InputLayout(Model.read(find("toy", 1)).inputs).rows
PAIR = InputLayout(Model.read(find("pair", 1)).inputs).rows


def table(text: str, columns: Rows = TOY, form: str | None = None) -> tuple[list[list[float]], tuple[str, ...]]:
    found = read("-", io.TextIOWrapper(io.BytesIO(text.encode())), columns, form)
    return [row.tolist() for row in found.rows], found.notes


@pytest.mark.parametrize(
    "text", ["1,2\n3,4\n", "1;2\r\n3;4", "left,right\n1,2\n\n3,4\n", "\ufeffright\tleft\n2\t1\n4\t3\n"]
)
def test_rows_come_with_or_without_a_header_in_the_models_order(text: str) -> None:
    assert table(text)[0] == [[1, 2], [3, 4]]


def test_columns_that_the_model_does_not_take_are_left_out_with_a_note() -> None:
    rows, notes = table('time,right,left\n"a, b",2,1\n')
    assert rows == [[1, 2]]
    assert notes == ("columns that the model does not take are left out: 'time'",)


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
        "columns that the model does not take are left out: '', 'LEFT_1', ''",
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
        ("left,right\n1,2\n".encode("utf-16-le").decode(), "line 1: UTF-8 was expected, and this is UTF-16; save it"),
    ],
)
def test_a_table_that_does_not_fit_says_where(text: str, words: str) -> None:
    with pytest.raises(BadTable, match=words):
        table(text)


def test_names_that_the_model_does_not_have_are_taken_in_their_order() -> None:
    rows, notes = table("first,second\n1,2\n", PAIR)
    assert rows == [[1, 2]]
    assert "in their order" in notes[0]


@pytest.mark.parametrize(
    "text",
    [
        '{"left": 1, "right": 2}\n\n{"right": "4", "left": 3.0, "more": 5}\n',
        '\ufeff\n[\n  {"left": 1,\n   "right": 2},\n  {"left": 3, "right": 4}\n]\n',
        '[{"left": true, "right": "2,0"}, {"left": 3, "right": 4}]',
        '{"first": 1, "second": 2}\n{"first": 3, "second": 4}',
    ],
)
def test_json_is_an_object_in_each_line_or_an_array_of_them(text: str, tmp_path: Path) -> None:
    columns = PAIR if "first" in text else TOY
    assert table(text, columns, "json")[0] == [[1, 2], [3, 4]]
    for name in ("t.json", "t.jsonl", "t.ndjson", "t.json.gz", "T.JSON.GZ"):
        content = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
        rows = read(str(tmp_path / name), io.TextIOWrapper(io.BytesIO()), columns).rows
        np.testing.assert_array_equal(list(rows), [[1, 2], [3, 4]])


def test_lines_of_json_are_rows_before_the_next_line_has_come() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as pipe, os.fdopen(writing, "w") as file:
        print(json.dumps({"left": 1, "right": 0}), file=file, flush=True)
        rows = read("-", pipe, TOY, "json").rows
        assert next(rows).tolist() == [1, 0]
        print(json.dumps({"left": 2, "right": 0}), file=file, flush=True)
        assert next(rows).tolist() == [2, 0]


def test_what_an_object_lacks_or_has_as_null_is_an_empty_cell() -> None:
    legend = read_legend({"features": ["a", "k"], "missing": ["a"], "categories": {"k": ["", "x"]}}, "x", (2,))
    columns = Rows([Input("x", (2,), False, legend)])
    rows, notes = table('{"a": 5}\n{"k": "x", "a": null}\n{"k": null}\n', columns, "json")
    np.testing.assert_array_equal(rows, [[5, 0], [np.nan, 1], [np.nan, 0]])
    assert notes == ("columns that the first row lacks, and that are empty where a row lacks them: k",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"left": 1, "up": 2}', "^line 1: there is no column right; the model takes left, right$"),
        ('{"left": 1, "right": 2}\n{"left": 3}', "^line 2: column 'right' holds '', and a number was expected"),
        (
            '[{"left": 1, "right": 2},\n {"left": "x", "right": 4}]',
            "^row 2: column 'left' holds 'x', which is no number",
        ),
        ('{"left": 1, "right": [2]}', r"line 1: column 'right' holds \[2\], which is no number"),
        (f'{{"left": 1, "right": {"9" * 400}}}', "line 1: column 'right' holds 99*; only finite numbers are taken"),
        (f'{{"left": 1, "right": {"9" * 5000}}}', "line 1: this is no JSON .*digits"),
        ('{"left": 1, "right": 2}\n{"left": 3,', r"line 2, character 12: this is no JSON \(.*\); an object like"),
        ('{\n "left": 1\n}', "line 2, character 1: this is no JSON .* in each line, or an array of them, was expected"),
        ('[{"left": 1, "right": 2},\n {"left": 1}', "line 2, character 13: this is no JSON"),
        ("[" * 100_000, "line 1: this is no JSON"),
        ("[[1, 2]]", r"row 1: \[1, 2\] came, and an object like .* was expected"),
        ("1,2", "line 1, character 2: this is no JSON"),
    ],
)
def test_json_that_does_not_fit_says_where_and_what_was_expected(text: str, words: str) -> None:
    with pytest.raises(BadTable, match=words):
        table(text, form="json")


def test_json_that_is_taken_for_csv_is_said_to_need_the_option() -> None:
    with pytest.raises(BadTable, match="if it is JSON, say --input json"):
        table('{"left": 1, "right": 2}\n')


def test_parquet_needs_a_library_and_without_one_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, nothing = str(tmp_path / "t.parquet"), io.TextIOWrapper(io.BytesIO())
    duckdb.sql("select 1").write_parquet(path)
    for library in ("duckdb", "pyarrow"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        BadTable, match=r"t\.parquet: Parquet is read by .* installed; pip install duckdb, or write the"
    ):
        read(path, nothing, TOY)


@pytest.mark.parametrize("library", ["duckdb", "pyarrow"])
def test_parquet_is_read_with_its_names_and_instants_are_taken_in_utc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    pytest.importorskip(library)
    if library == "pyarrow":
        monkeypatch.setitem(sys.modules, "duckdb", None)
    path, nothing = str(tmp_path / "t.parquet"), io.TextIOWrapper(io.BytesIO())
    duckdb.sql('select * from (values (1, 2.0), (3, 4)) t("left", "right")').write_parquet(path)
    np.testing.assert_array_equal(list(read(path, nothing, TOY).rows), [[1, 2], [3, 4]])
    legend = read_legend({"features": ["hour"], "calendar": {"hour": "hour"}, "timestamp": "at"}, "x", (1,))
    for zone in ("Asia/Tokyo", "UTC"):
        with duckdb.connect() as database:
            database.execute(f"set timezone = '{zone}'")
            database.sql("select timestamptz '2024-01-31 13:00:00+02' as at").write_parquet(path)
        rows = read(path, nothing, Rows([Input("x", (1,), False, legend)])).rows
        assert next(rows).tolist() == [11]
    duckdb.sql('select 1 as "left", null::int as "right"').write_parquet(path)
    with pytest.raises(BadTable, match=r"t\.parquet: row 1: column 'right' holds '', and a number was expected"):
        list(read(path, nothing, TOY).rows)
    legend = read_legend({"features": ["a", "b"], "missing": ["b"]}, "x", (2,))
    duckdb.sql("select 1 as a").write_parquet(path)
    with pytest.raises(BadTable, match=r"t\.parquet: row 1: there is no column b; the model takes a, b"):
        read(path, nothing, Rows([Input("x", (2,), False, legend)]))
    Path(path).write_text("left,right\n1,2\n")
    with pytest.raises(BadTable, match=r"t\.parquet: this is no Parquet"):
        read(path, nothing, TOY)


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


def test_several_files_are_one_table_by_the_names_of_their_columns(tmp_path: Path) -> None:
    nothing = io.TextIOWrapper(io.BytesIO())
    files = {"a.csv": "left,right\n1,2\n", "b.jsonl": '{"right": 4, "left": 3, "more": 0}\n', "empty.csv": ""}
    files |= {"c.csv": "right;left\n6;5\n", "d.csv": "left,up\n1,2\n", "e.csv": "1,2\n", "f.csv": "left,right\n1,x\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    def rows(*names: str) -> list[list[float]]:
        return [row.tolist() for row in read([str(tmp_path / name) for name in names], nothing, TOY).rows]

    assert rows("a.csv", "empty.csv", "b.jsonl", "c.csv") == [[1, 2], [3, 4], [5, 6]]
    assert rows("empty.csv", "empty.csv") == []
    for name, words in (
        ("d.csv", r"d\.csv: line 1: there is no column right, which the file before it has"),
        ("e.csv", r"e\.csv: line 1: the names of the columns were expected, by which several files are one table"),
        ("f.csv", r"f\.csv: line 2: column 'right' holds 'x', which is no number"),
    ):
        with pytest.raises(BadTable, match=words):
            rows("a.csv", name)
    with pytest.raises(FileNotFoundError):
        rows("a.csv", "none.csv")


@pytest.mark.parametrize("name", ["t.csv", "t.json"])
def test_a_text_that_cannot_be_read_to_its_end_is_named_with_its_line(tmp_path: Path, name: str) -> None:
    record = '{"left": 1, "right": 2}\n' if name.endswith("json") else "1,2\n"
    lines = [record.encode() for _ in range(5000)]
    path, nothing = tmp_path / name, io.TextIOWrapper(io.BytesIO())
    path.write_bytes(b"".join([*lines, "ä\n".encode("latin1"), *lines]))
    with pytest.raises(BadTable, match=rf"{name}: .* in UTF-8.* was expected, and line 5001 is not UTF-8; .* iconv"):
        list(read(str(path), nothing, TOY).rows)
    path.write_text("left,right\n1,2\n", encoding="utf-16")
    with pytest.raises(BadTable, match=rf"{name}: .* in UTF-8.* was expected, and line 1 is not UTF-8"):
        list(read(str(path), nothing, TOY).rows)
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(b"".join(lines))[:-50])
    with pytest.raises(BadTable, match=rf"{name}\.gz: it cannot be unpacked, it is damaged or was cut off \("):
        list(read(str(packed), nothing, TOY).rows)
    packed.write_bytes(b"".join(lines))
    with pytest.raises(BadTable, match=rf"{name}\.gz: it cannot be unpacked.*Not a gzipped file"):
        list(read(str(packed), nothing, TOY).rows)
