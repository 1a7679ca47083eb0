"""Files of rows as columns of numbers, times and texts: CSV, gzip, Parquet, JSON, read by DuckDB.

Knows no target and no network. What cannot be read is named by its file and line.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import re
import zlib
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any

import duckdb
import numpy as np

from training.errors import DataError
from training.tabular.looking.kinds import TABLE, Column, column_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Times of JSON stay texts, by a form that none has: they are read as those of CSV, and as clients read them.
JSON = "read_json({file}, dateformat = 'none', timestampformat = 'none')"
READERS = {
    ".csv": "read_csv({file}, all_varchar = true, header = true, store_rejects = true)",
    ".tsv": "read_csv({file}, all_varchar = true, header = true, store_rejects = true)",
    ".txt": "read_csv({file}, all_varchar = true, header = true, store_rejects = true)",
    ".parquet": "read_parquet({file})",
    ".json": JSON,
    ".jsonl": JSON,
    ".ndjson": JSON,
}
COMPRESSED = (".gz", ".zst")


@dataclass(frozen=True)
class Origin:
    """Where rows are from: the number of each file's first row, and whether its lines can be counted."""

    names: tuple[str, ...]
    first_rows: tuple[int, ...]
    lines: tuple[bool, ...]

    def place(self, row: int) -> str:
        """`demand.csv, line 17`: a header is line 1, so a file's first row is line 2."""
        file = bisect_right(self.first_rows, row) - 1
        within = row - self.first_rows[file]
        number = f"line {within + 2}" if self.lines[file] else f"row {within + 1}"
        return f"{self.names[file]}, {number}"


@dataclass(frozen=True)
class Rows:
    """All columns of all files, in the files' order. The hash is of what was read."""

    columns: dict[str, Column]
    origin: Origin
    sha256: str

    @property
    def count(self) -> int:
        return max((len(column.values) for column in self.columns.values()), default=0)

    def combinations(self, names: Sequence[str]) -> NDArray[np.int64]:
        """A number for each row, the same in rows that have the same values in all of these columns."""
        number_N = np.zeros(self.count, dtype=np.int64)
        for name in names:
            _, value_N = np.unique(self.columns[name].texts_N.astype(str), return_inverse=True)
            _, number_N = np.unique(number_N * (value_N.max(initial=0) + 1) + value_N, return_inverse=True)
        return number_N

    @property
    def name(self) -> str:
        first, *others = self.origin.names
        return f"{first} and {len(others)} more" if others else first


def called(file: str) -> str:
    """A file's name without its endings, as a folder may be called."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", Path(file).name.split(".")[0]).strip("._-") or "table"


def read(patterns: Sequence[str]) -> Rows:
    """Read files, or globs of them, one below the other.

    Raises:
        DataError: a file is missing, is of no known kind, or has a row that does not fit; with its line.
    """
    paths = found(patterns)
    database = connected()
    try:
        starts = [append(database, path, first=number == 0) for number, path in enumerate(paths)]
        origin = Origin(tuple(path.name for path in paths), tuple(starts), tuple(countable(path) for path in paths))
        columns = columns_of(database, delimiter(paths[0]))
    finally:
        database.close()
    return Rows(columns, origin, digest(paths))


def connected() -> duckdb.DuckDBPyConnection:
    """DuckDB, which gives the times of a file that are instants in UTC, wherever the machine is."""
    database = duckdb.connect()
    database.execute("set timezone = 'UTC'")
    return database


def delimiter(path: Path) -> str:
    """What is between the cells of a file, by its first line; a semicolon of one that has no such thing."""
    if not countable(path):
        return ";"
    if path.suffix.lower() == ".zst":
        return ","
    with opened(path) as file:
        line = file.readline().decode(errors="replace")
    return max(",;\t|", key=line.count)


def opened(path: Path) -> IO[bytes]:
    """A file of texts, which may be gzipped."""
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value] # a reader


def literal(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def columns_of(database: duckdb.DuckDBPyConnection, delimiter: str) -> dict[str, Column]:
    described = database.execute(f"describe {TABLE}").fetchall()
    return {str(row[0]): column_of(database, str(row[0]), str(row[1]), delimiter) for row in described}


def found(patterns: Sequence[str]) -> list[Path]:
    """The files that are meant, each once."""
    paths: list[Path] = []
    for pattern in patterns:
        matches = [Path(match) for match in sorted(glob.glob(pattern))] or [Path(pattern)]  # noqa: PTH207 - "/data/*.csv" too
        paths += [path for path in matches if path not in paths]
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path} does not exist" if not path.exists() else f"{path} is no file")
        if kind(path) not in READERS:
            raise DataError(f"{path} is of no known kind; give CSV, Parquet or JSON, which may be gzipped")
    return paths


def kind(path: Path) -> str:
    """The ending that says how to read it."""
    return (Path(path.stem) if path.suffix.lower() in COMPRESSED else path).suffix.lower()


def countable(path: Path) -> bool:
    """Whether one line of the file is one row."""
    return kind(path) in (".csv", ".tsv", ".txt")


def digest(paths: Sequence[Path]) -> str:
    """A hash of what is in the files, whatever they are called."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def append(database: duckdb.DuckDBPyConnection, path: Path, *, first: bool) -> int:
    """Put a file's rows below those that are there, and return the number of its first one."""
    try:
        with opened(path) as file:
            head = file.read(64)
        if countable(path) and (head.startswith((b"\xff\xfe", b"\xfe\xff")) or head.count(0) > len(head) // 4):
            raise not_utf8(path, 1, "utf-16")
        try:
            before = load(database, path, path, first=first)
        except duckdb.Error as error:
            before = load_alike(database, path, error, first=first)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        why = f"it is damaged or was cut off ({error}); get it anew"
        raise DataError(f"{path} cannot be unpacked, {why}") from None
    refuse_rejects(database, path)
    return before


def load(database: duckdb.DuckDBPyConnection, path: Path, named: Path, *, first: bool) -> int:
    """Have DuckDB read a file. `named`: as it is called in what is said of it."""
    source = READERS[kind(path)].format(file=literal(path))
    if first:
        database.execute(f"create table {TABLE} as select * from {source}")
        return 0
    (before,) = one(database, f"select count(*) from {TABLE}")
    require_same_columns(database, source, named)
    database.execute(f"insert into {TABLE} by name select * from {source}")
    return int(before)


def load_alike(database: duckdb.DuckDBPyConnection, path: Path, error: duckdb.Error, *, first: bool) -> int:
    """Once more, with lines that all end in the same way; DuckDB takes no others."""
    unreadable = DataError(f"{path} cannot be read: {sentence(error)}")
    if not countable(path) or path.suffix.lower() == ".zst":
        raise unreadable from None
    with TemporaryDirectory() as folder, opened(path) as file:
        copy = Path(folder) / f"alike{kind(path)}"
        copy.write_bytes(file.read().replace(b"\r\n", b"\n"))
        try:
            return load(database, copy, path, first=first)
        except duckdb.Error:
            raise unreadable from None


def not_utf8(path: Path, line: int, encoding: str) -> DataError:
    """What is said of a file of texts as other programs save them."""
    remedy = f"save it as such, as by iconv -f {encoding} -t utf-8 {path.name} > utf-8-{path.name}"
    return DataError(f"{path}, line {line}: the file is not UTF-8; {remedy}")


def require_same_columns(database: duckdb.DuckDBPyConnection, source: str, path: Path) -> None:
    """Several files are one table only if they have the same columns."""
    here = {str(row[0]) for row in database.execute(f"describe select * from {source}").fetchall()}
    there = {str(row[0]) for row in database.execute(f"describe {TABLE}").fetchall()}
    for name in sorted(here ^ there):
        has, lacks = (path.name, "the files before it") if name in here else ("the files before it", path.name)
        raise DataError(f"{path}: column {name!r} is in {has} and not in {lacks}; give files with the same columns")


def refuse_rejects(database: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Lines that have too few or too many values."""
    if not countable(path):
        return
    bad = database.execute("select line, error_message, csv_line from reject_errors order by line").fetchall()
    if bad:
        line, message, text = bad[0]
        if "unicode" in message:
            raise not_utf8(path, line, "latin1")
        more = f" (and {len(bad) - 1} more lines)" if len(bad) > 1 else ""
        raise DataError(f"{path}, line {line}: {sentence(message)} in {text[:80]!r}{more}; correct the line")


def sentence(error: object) -> str:
    """The first line of DuckDB's message, without its kind and its advice."""
    return str(error).strip().splitlines()[0].rpartition("Error: ")[2].rstrip(".")


def one(database: duckdb.DuckDBPyConnection, question: str) -> tuple[Any, ...]:
    row = database.execute(question).fetchone()
    assert row is not None
    return row


def from_arrays(arrays: dict[str, NDArray[Any]], name: str) -> Rows:
    """Columns that are in memory already, all of the same length."""
    total = hashlib.sha256()
    for column, values in arrays.items():
        total.update(repr((column, values.tolist())).encode())
    database = connected()
    try:
        database.register("in_memory", arrays)
        database.execute(f"create table {TABLE} as select * from in_memory")
        columns = columns_of(database, ";")
    finally:
        database.close()
    return Rows(columns, Origin((name,), (0,), (False,)), total.hexdigest())
