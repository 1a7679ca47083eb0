"""Tables from a file or a pipe as rows of numbers, in the order of a model's inputs. Knows no server."""

import gzip
import os
import stat
import sys
from collections.abc import Iterator
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
from numpy.typing import NDArray

from tidegate.cli.csv_table import CsvTable
from tidegate.cli.records import json_table, parquet_table
from tidegate.cli.table import BadTable, Row, RowMaker, Table
from tidegate.columns import Rows

__all__ = ["BadTable", "Row", "Table", "is_live", "read"]

_NPY = b"\x93NUMPY"
_FORMS = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}


def read(path: str, standard_input: TextIO, columns: Rows, form: str | None = None) -> Table:
    """The table in a file, or on standard input ("-"). A pipe is read as it comes, and once.

    `form`: csv (also a .npy file), json or parquet; without one, the end of the file's name says it.

    Raises BadTable, OSError.
    """
    maker = RowMaker("" if path == "-" else f"{path}: ", columns)
    form = form or _FORMS.get(Path(path.removesuffix(".gz")).suffix.lower(), "csv")
    if form == "parquet":
        Path(path).open("rb").close()  # one that is not there is said so, as of other files
        return parquet_table(path, maker)
    text = standard_input if path == "-" else _opened(path)
    try:
        if form == "json":
            return json_table(text if path == "-" else _closed_after(text), maker)
        return _csv_or_array(path, text, maker)
    except (UnicodeDecodeError, ValueError) as error:
        expected = "JSON in UTF-8" if form == "json" else "a CSV file in UTF-8, or a .npy file of numbers,"
        raise BadTable(f"{path}: {expected} was expected ({error})") from None


def _csv_or_array(path: str, text: TextIO, maker: RowMaker) -> Table:
    raw: BinaryIO = text.buffer
    peek = getattr(raw, "peek", None)
    if peek is None or not peek(len(_NPY)).startswith(_NPY):
        return CsvTable(maker).table(text if path == "-" else _closed_after(text))
    with text:
        pipe = BytesIO(raw.read()) if path == "-" or is_live(path) else None
    array = np.load(pipe or path, mmap_mode=None if pipe else "r", allow_pickle=False)
    return _array_table(array, maker.columns)


def _opened(path: str) -> TextIOWrapper:
    raw = gzip.open(path) if path.endswith(".gz") else Path(path).open("rb")  # noqa: SIM115 - the table has it
    return TextIOWrapper(raw, "utf-8-sig", newline="")


def _closed_after(text: TextIO) -> Iterator[str]:
    with text:
        yield from text


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
    return Table(np.asarray(row, np.float64).reshape(width) for row in table)
