"""Tables from a file or a pipe as rows of numbers, in the order of a model's inputs. Knows no server."""

import gzip
import os
import stat
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
from numpy.typing import NDArray

from tidegate.cli.csv_table import csv_sheet
from tidegate.cli.records import json_sheet, parquet_sheet
from tidegate.cli.table import BadTable, Row, Sheet, Table, bad, joined, notes_in_order, table_of
from tidegate.columns import Rows

__all__ = ["BadTable", "Row", "Table", "is_live", "read"]

_NPY = b"\x93NUMPY"
_FORMS = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}


def read(paths: str | Sequence[str], standard_input: TextIO, columns: Rows, form: str | None = None) -> Table:
    """The table in a file, in several one below the other, or on standard input ("-"). A pipe is read as it comes.

    `form`: csv (also a .npy file), json or parquet; without one, the end of a file's name says it.

    Raises BadTable, OSError.
    """
    given = [paths] if isinstance(paths, str) else paths
    for path in given:
        if path != "-":
            Path(path).stat()  # raises OSError: each that is not there is said before anything is read
    if len(given) == 1:
        found = _content(given[0], standard_input, columns, form)
        if isinstance(found, np.ndarray):
            return _array_table(found, columns)
        return Table(iter(())) if found is None else table_of(found, columns)
    found_in = (_sheet(path, standard_input, columns, form) for path in given)
    sheets = (sheet for sheet in found_in if sheet is not None)
    first = next(sheets, None)
    return Table(iter(())) if first is None else table_of(joined(first, sheets), columns)


def _sheet(path: str, standard_input: TextIO, columns: Rows, form: str | None) -> Sheet | None:
    found = _content(path, standard_input, columns, form)
    if isinstance(found, np.ndarray):
        raise bad(f"{path}: several files are one table by the names of columns, and a .npy file has none")
    return found


def _content(path: str, standard_input: TextIO, columns: Rows, form: str | None) -> Sheet | NDArray[np.generic] | None:
    """None: the file is empty."""
    file = "" if path == "-" else f"{path}: "
    form = form or _FORMS.get(Path(path.lower().removesuffix(".gz")).suffix, "csv")
    if form == "parquet":
        return parquet_sheet(path, file)
    text = standard_input if path == "-" else _opened(path)
    lines = _lines(path, text, form)
    if form == "json":
        return json_sheet(lines, file, columns)
    with _readable(path, form):
        raw: BinaryIO = text.buffer
        peek = getattr(raw, "peek", None)
        if peek is None or not peek(len(_NPY)).startswith(_NPY):
            return csv_sheet(lines, file, columns)
        with text:
            pipe = BytesIO(raw.read()) if path == "-" or is_live(path) else None
        array: NDArray[np.generic] = np.load(pipe or path, mmap_mode=None if pipe else "r", allow_pickle=False)
        return array


def _opened(path: str) -> TextIOWrapper:
    return TextIOWrapper(_raw(path), "utf-8-sig", newline="")


def _raw(path: str) -> BinaryIO:
    return gzip.open(path) if path.lower().endswith(".gz") else Path(path).open("rb")  # type: ignore[return-value] # a reader


def _lines(path: str, text: TextIO, form: str) -> Iterator[str]:
    """Raises BadTable."""
    with _readable(path, form), nullcontext() if path == "-" else text:
        yield from text


@contextmanager
def _readable(path: str, form: str) -> Iterator[None]:
    """Inside, what cannot be read raises BadTable, which says where."""
    expected = "JSON in UTF-8" if form == "json" else "a CSV file in UTF-8, or a .npy file of numbers,"
    try:
        yield
    except UnicodeDecodeError:
        line = "a line" if path == "-" or is_live(path) else f"line {_first_odd_line(path)}"
        how = "where it is text, save it as such, as by iconv -f latin1 -t utf-8"
        raise bad(f"{path}: {expected} was expected, and {line} is not UTF-8; {how}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise bad(f"{path}: it cannot be unpacked, it is damaged or was cut off ({error})") from None
    except ValueError as error:  # of an array
        raise bad(f"{path}: {expected} was expected ({error})") from None


def _first_odd_line(path: str) -> int:
    with _raw(path) as raw:
        for number, line in enumerate(raw, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0


def is_live(path: str) -> bool:
    """Whether rows may come slowly, and only once: from a pipe, a terminal or another device. Raises OSError."""
    status = os.fstat(sys.stdin.fileno()) if path == "-" else Path(path).stat()
    return not stat.S_ISREG(status.st_mode)


def _array_table(array: NDArray[np.generic], columns: Rows) -> Table:
    width = len(columns.names)
    table = array[:, np.newaxis] if array.ndim == 1 and width == 1 else array
    if table.ndim < 2 or int(np.prod(table.shape[1:])) != width:
        raise BadTable(f"the array has the shape {list(array.shape)}; [rows, {width}] was expected")
    if table.dtype.kind not in "fiub":
        raise BadTable(f"the array holds {table.dtype}; numbers were expected")
    numbers = (np.asarray(row, np.float64).reshape(width) for row in table)
    return Table((((), row) for row in numbers), notes_in_order(columns))
