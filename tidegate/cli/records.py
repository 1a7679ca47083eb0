"""The rows of a JSON or Parquet file: values by the names of their columns. What a row lacks is an empty cell.

JSON is an object in each line, which are read as they come, or an array of them. Parquet is read by DuckDB or
PyArrow, neither of which the client requires.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import import_module
from itertools import chain
from typing import Any

from tidegate.cli.table import Sheet, bad
from tidegate.columns import Rows

Record = tuple[str, Mapping[str, Any]]  # where it stands, and its values
_EXPECTED = 'an object like {"a": 1, "b": null} in each line, or an array of them, was expected'
_DELIMITER = ";"  # of numbers that are texts a comma is a decimal one, as in training
_AT_ONCE = 1000


def json_sheet(lines: Iterable[str], file: str, columns: Rows) -> Sheet | None:
    """What a JSON array, or JSON lines, hold; None: nothing. `file` stands before a place. Raises BadTable."""
    return _sheet(_json(lines, file), columns)


def parquet_sheet(path: str, file: str) -> Sheet | None:
    """What a Parquet file holds. Raises BadTable."""
    return _sheet(_parquet(path, file))


def _sheet(records: Iterator[Record], may_lack: Rows | None = None) -> Sheet | None:
    first = next(records, None)
    if first is None:
        return None
    place, given = first
    lacking = may_lack.lacking(given) if may_lack else []
    names = [*given, *lacking]
    rows = ((where, [_cell(record.get(name)) for name in names]) for where, record in chain([first], records))
    note = f"columns that the first row lacks, and that are empty where a row lacks them: {', '.join(lacking)}"
    return Sheet(place, names, rows, _DELIMITER, notes=(note,) if lacking else ())


def _cell(value: object) -> object:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)  # as training takes times of Parquet, which have no wall clock of their own
    return "" if value is None else value


def _json(lines: Iterable[str], file: str) -> Iterator[Record]:
    whole = (line.removeprefix("\ufeff") for line in lines)
    numbered = ((number, line) for number, line in enumerate(whole, 1) if line.strip())
    for number, line in numbered:
        if line.lstrip().startswith("["):
            values = _parsed(line + "".join(line for _, line in numbered), number, file)
            yield from (_record(f"{file}row {row}", value) for row, value in enumerate(values, 1))
        else:
            yield _record(f"{file}line {number}", _parsed(line, number, file))


def _parsed(text: str, line: int, file: str) -> Any:  # noqa: ANN401 - what JSON gives
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place, why = f"line {line + error.lineno - 1}, character {error.colno}", error.msg
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets within brackets
        place, why = f"line {line}", str(error)
    raise bad(f"{file}{place}: this is no JSON ({why}); {_EXPECTED}")


def _record(place: str, value: object) -> Record:
    if not isinstance(value, dict):
        raise bad(f"{place}: {json.dumps(value):.60} came, and {_EXPECTED}")
    return place, value


def _parquet(path: str, file: str) -> Iterator[Record]:
    for name, error, read in (("duckdb", "Error", _by_duckdb), ("pyarrow", "ArrowException", _by_pyarrow)):
        try:
            library = import_module(name)
        except ImportError:
            continue
        try:
            yield from ((f"{file}row {row}", record) for row, record in enumerate(read(library, path), 1))
        except getattr(library, error) as wrong:
            raise bad(f"{file}this is no Parquet ({str(wrong).splitlines()[0]})") from None
        return
    remedy = "pip install duckdb, or write the table as CSV or JSON lines"
    raise bad(f"{file}Parquet is read by DuckDB or PyArrow, and neither is installed; {remedy}")


def _by_duckdb(duckdb: Any, path: str) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - a library
    with duckdb.connect() as database:
        answer = database.execute("select * from read_parquet(?)", [path])
        names = [str(column[0]) for column in answer.description]
        while block := answer.fetchmany(_AT_ONCE):
            yield from (dict(zip(names, cells, strict=True)) for cells in block)


def _by_pyarrow(_: Any, path: str) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - a library
    with import_module("pyarrow.parquet").ParquetFile(path) as file:
        for batch in file.iter_batches(_AT_ONCE):
            yield from batch.to_pylist()
