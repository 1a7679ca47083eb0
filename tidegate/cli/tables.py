"""Rows of numbers from a file or a pipe, in the order of a model's inputs. Knows tables, and no server."""

import csv
import math
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
from numpy.typing import NDArray

from tidegate.drawing.names import column_names
from tidegate.errors import TidegateError, refused
from tidegate.inputs import Inputs
from tidegate.model import Model

Row = NDArray[np.float64]

_NPY = b"\x93NUMPY"
_DELIMITERS = ",;\t"


class BadTable(TidegateError):
    """A table that does not hold what the model takes; the message says where."""


class Columns:
    """The columns that a model takes, over all its inputs."""

    def __init__(self, model: Model) -> None:
        self._specs = model.inputs
        self.names = [name for spec in model.inputs for name in column_names(spec)]
        # Whether the model's author gave the columns their names; else we made them up, and no table knows them.
        self.named = all(spec.features or not spec.shape for spec in model.inputs)

    def inputs(self, rows: NDArray[np.float64]) -> Inputs:
        """What `step` (rows [columns]) or `chunk` (rows [T, columns]) takes. Raises BadInput."""
        taken: dict[str, NDArray[np.generic]] = {}
        ends = np.cumsum([math.prod(spec.shape) for spec in self._specs])
        for spec, columns in zip(self._specs, np.split(rows, ends[:-1], axis=-1), strict=True):
            part = columns.reshape((*rows.shape[:-1], *spec.shape))
            taken[spec.name] = part if spec.dtype.kind == "f" else _whole(spec.name, part)
        return taken


def _whole(name: str, values: NDArray[np.float64]) -> NDArray[np.int64]:
    if not (np.isfinite(values).all() and (values == np.floor(values)).all()):
        raise refused("WRONG_TYPE", f"input {name!r} takes whole numbers")
    return values.astype(np.int64)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows [columns] as they come, and notes for the person who gave them."""

    rows: Iterator[Row]
    notes: tuple[str, ...] = ()


def read(path: str, standard_input: TextIO, columns: Columns) -> Table:
    """The table in a CSV or .npy file, or on standard input ("-"). A pipe is read line by line as it comes, and once.

    Raises BadTable, OSError.
    """
    text = standard_input if path == "-" else _opened(path)
    raw: BinaryIO = text.buffer
    peek = getattr(raw, "peek", None)
    try:
        if peek is None or not peek(len(_NPY)).startswith(_NPY):
            return _csv_table(text, columns)
        with text:
            pipe = BytesIO(raw.read()) if path == "-" or is_live(path) else None
        array = np.load(pipe or path, mmap_mode=None if pipe else "r", allow_pickle=False)
        return _array_table(array, columns)
    except (UnicodeDecodeError, ValueError) as error:
        raise BadTable(f"{path}: a CSV file in UTF-8, or a .npy file of numbers, was expected ({error})") from None


def _opened(path: str) -> TextIOWrapper:
    return TextIOWrapper(Path(path).open("rb"), "utf-8-sig", newline="")


def is_live(path: str) -> bool:
    """Whether rows may come slowly, and only once: from a pipe, a terminal or another device. Raises OSError."""
    status = os.fstat(sys.stdin.fileno()) if path == "-" else Path(path).stat()
    return not stat.S_ISREG(status.st_mode)


# Arrays.


def _array_table(array: NDArray[np.generic], columns: Columns) -> Table:
    width = len(columns.names)
    table = array[:, np.newaxis] if array.ndim == 1 and width == 1 else array
    if table.ndim < 2 or int(np.prod(table.shape[1:])) != width:
        raise BadTable(f"the array has the shape {list(array.shape)}; [rows, {width}] was expected")
    if table.dtype.kind not in "fiub":
        raise BadTable(f"the array holds {table.dtype}; numbers were expected")
    return Table(np.asarray(row, np.float64).reshape(width) for row in table)


# CSV.


def _csv_table(lines: Iterable[str], columns: Columns) -> Table:
    """With a header, columns are found by their names; without one, they stand in the model's order."""
    numbered: Iterator[tuple[int, str]] = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    first = next(numbered, None)
    if first is None:
        return Table(iter(()))
    delimiter = max(_DELIMITERS, key=first[1].count)
    cells = _split(first[1], delimiter)
    order: Sequence[int] = range(len(cells))
    notes: tuple[str, ...] = ()
    if not all(map(_is_number, cells)):
        order, notes = _by_name(cells, columns)
    elif len(cells) != len(columns.names):
        raise BadTable(_count(cells, columns))
    else:
        numbered = chain([first], numbered)
    return Table((_row(number, _split(line, delimiter), order, columns) for number, line in numbered), notes)


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter))]
    except csv.Error as error:
        raise BadTable(f"a line that is no CSV: {error}") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _by_name(header: Sequence[str], columns: Columns) -> tuple[list[int], tuple[str, ...]]:
    """Where each of the model's columns stands in the table. Columns that the model does not take are left out."""
    names = [name.removeprefix("\ufeff") for name in header]
    missing = [name for name in columns.names if name not in names]
    if missing and not columns.named and len(names) == len(columns.names):
        return list(range(len(names))), ("columns are taken in their order: the model has no names for them",)
    if missing:
        raise BadTable(f"the table has no column {_listed(missing)}; the model takes {_listed(columns.names)}")
    extra = [name for name in names if name not in columns.names]
    notes = (f"columns that the model does not take are left out: {_listed(extra)}",) if extra else ()
    return [names.index(name) for name in columns.names], notes


def _row(number: int, cells: Sequence[str], order: Sequence[int], columns: Columns) -> Row:
    if len(cells) <= max(order):
        raise BadTable(f"line {number}: {_count(cells, columns)}")
    try:
        return np.array([float(cells[at]) for at in order])
    except ValueError:
        at, name = next((at, n) for at, n in zip(order, columns.names, strict=True) if not _is_number(cells[at]))
        raise BadTable(f"line {number}: column {name!r} holds {cells[at]!r}, which is no number") from None


def _count(cells: Sequence[str], columns: Columns) -> str:
    return f"{len(cells)} columns; {len(columns.names)} were expected: {_listed(columns.names)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
