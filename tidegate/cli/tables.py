"""Rows of numbers from a file or a pipe, in the order of a model's inputs. Knows tables, and no server."""

import csv
import gzip
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
from numpy.typing import NDArray

from tidegate.columns import RowError, Rows
from tidegate.columns.known_ahead import Numbered
from tidegate.columns.rows import Binding
from tidegate.drawing.names import printable
from tidegate.errors import TidegateError

Row = NDArray[np.float64]

_NPY = b"\x93NUMPY"
_DELIMITERS = ",;\t|"
_OPEN = 100  # lines that a quoted cell may go on for


class BadTable(TidegateError):
    """A table that does not hold what the model takes; the message says where."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows [columns] as they come, and notes for the person who gave them."""

    rows: Iterator[Row]
    notes: tuple[str, ...] = ()


def read(path: str, standard_input: TextIO, columns: Rows) -> Table:
    """The table in a CSV (.gz, too) or .npy file, or on standard input ("-"). A pipe is read as it comes, and once.

    Raises BadTable, OSError.
    """
    text = standard_input if path == "-" else _opened(path)
    raw: BinaryIO = text.buffer
    peek = getattr(raw, "peek", None)
    try:
        if peek is None or not peek(len(_NPY)).startswith(_NPY):
            return _Csv("" if path == "-" else f"{path}: ", columns).table(text)
        with text:
            pipe = BytesIO(raw.read()) if path == "-" or is_live(path) else None
        array = np.load(pipe or path, mmap_mode=None if pipe else "r", allow_pickle=False)
        return _array_table(array, columns)
    except (UnicodeDecodeError, ValueError) as error:
        raise BadTable(f"{path}: a CSV file in UTF-8, or a .npy file of numbers, was expected ({error})") from None


def _opened(path: str) -> TextIOWrapper:
    raw = gzip.open(path) if path.endswith(".gz") else Path(path).open("rb")  # noqa: SIM115 - the table has it
    return TextIOWrapper(raw, "utf-8-sig", newline="")


def is_live(path: str) -> bool:
    """Whether rows may come slowly, and only once: from a pipe, a terminal or another device. Raises OSError."""
    status = os.fstat(sys.stdin.fileno()) if path == "-" else Path(path).stat()
    return not stat.S_ISREG(status.st_mode)


# Arrays.


def _array_table(array: NDArray[np.generic], columns: Rows) -> Table:
    width = len(columns.names)
    table = array[:, np.newaxis] if array.ndim == 1 and width == 1 else array
    if table.ndim < 2 or int(np.prod(table.shape[1:])) != width:
        raise BadTable(f"the array has the shape {list(array.shape)}; [rows, {width}] was expected")
    if table.dtype.kind not in "fiub":
        raise BadTable(f"the array holds {table.dtype}; numbers were expected")
    return Table(np.asarray(row, np.float64).reshape(width) for row in table)


# CSV.


@dataclass(frozen=True, slots=True)
class _Csv:
    """With a header, columns are found by their names; without one, they stand in the model's order.

    `where` stands before what is wrong.
    """

    where: str
    columns: Rows

    def table(self, lines: Iterable[str]) -> Table:
        numbered: Iterator[tuple[int, str]] = ((number, line) for number, line in self._closed(lines) if line.strip())
        first = next(numbered, None)
        if first is None:
            return Table(iter(()))
        delimiter = _delimiter(first[1])
        cells = self._split(first[1], delimiter)
        later = [] if _is_row(cells) else self.columns.later(_names(cells))
        binding, notes = self._bound([*cells, *(name for each in later for name in each.names)], delimiter)
        if _is_row(cells):
            numbered = chain([first], numbered)
        rows = self._whole(numbered, delimiter, len(cells))
        for each in later:
            rows = each.added(rows)
        return Table(self._rows(rows, binding), notes)

    def _rows(self, numbered: Iterator[Numbered], binding: Binding) -> Iterator[Row]:
        try:
            for number, cells in numbered:
                yield self._row(number, cells, binding)
        except ValueError as error:  # a time of a row that is read ahead
            raise self._bad(str(error)) from None

    def _row(self, number: int, cells: Sequence[str], binding: Binding) -> Row:
        try:
            return np.array(binding.row(cells))
        except RowError as error:
            raise self._bad(f"line {number}: {error}") from None

    def _whole(self, numbered: Iterable[tuple[int, str]], delimiter: str, width: int) -> Iterator[Numbered]:
        """Lines as cells, as many as the first has."""
        for number, line in numbered:
            cells = self._split(line, delimiter)
            if len(cells) < width:
                raise self._bad(f"line {number}: {len(cells)} columns; {width} were expected, as in the first line")
            yield number, cells[:width]

    def _closed(self, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
        """Lines with their numbers; one with a quoted cell that goes on is joined to those after it."""
        numbered = enumerate(lines, 1)
        for number, first in numbered:
            line, more = first, 0
            while _is_open(line):
                following = next(numbered, None)
                more += 1
                if following is None or more > _OPEN:
                    raise self._bad(f"line {number}: a quotation mark is not closed")
                line += following[1]
            yield number, line

    def _bound(self, cells: Sequence[str], delimiter: str) -> tuple[Binding, tuple[str, ...]]:
        """How rows are made of lines, by the cells of the first. Columns that the model does not take are left out."""
        if _is_row(cells):
            if len(cells) != len(self.columns.names):
                raise self._bad(self._count(cells))
            return self.columns.in_order(), ()
        names = _names(cells)
        try:
            binding = self.columns.bind({name: at for at, name in enumerate(names)}, delimiter=delimiter)
        except RowError as error:
            if not self.columns.named and len(names) == len(self.columns.names):
                return self.columns.in_order(), ("columns are taken in their order: the model has no names for them",)
            odd = next(name for name in names if name and not _is_number(name))
            why = f"; it was taken for the names of columns, because '{odd}' is no number"
            raise self._bad(f"line 1: {error}{why if any(map(_is_number, names)) else ''}") from None
        extra = self.columns.others(names)
        return binding, (f"columns that the model does not take are left out: {_listed(extra)}",) if extra else ()

    def _split(self, line: str, delimiter: str) -> list[str]:
        try:
            return [cell.strip() for cell in next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter))]
        except csv.Error as error:
            raise self._bad(f"a line that is no CSV: {error}") from None

    def _count(self, cells: Sequence[str]) -> str:
        return f"{len(cells)} columns; {len(self.columns.names)} were expected: {_listed(self.columns.names)}"

    def _bad(self, sentence: str) -> BadTable:
        return BadTable(printable(f"{self.where}{sentence}"))


def _names(cells: Sequence[str]) -> list[str]:
    """The names of a header. A second column of one name, whatever its capitals, is called load_1, as in training."""
    found: list[str] = []
    used: set[str] = set()
    counts = Counter[str]()
    for cell in cells:
        name = given = cell.removeprefix("\ufeff")
        while name and name.lower() in used:
            counts[given.lower()] += 1
            name = f"{given}_{counts[given.lower()]}"
        used.add(name.lower())
        found.append(name)
    return found


def _is_row(cells: Sequence[str]) -> bool:
    """Whether the first line of a table is a row and no header: it holds numbers, and perhaps empty cells."""
    given = [cell for cell in cells if cell]
    return bool(given) and all(map(_is_number, given))


def _delimiter(line: str) -> str:
    """What is between the cells of a line."""
    return max(_DELIMITERS, key=line.count)


def _is_open(line: str) -> bool:
    """Whether a quoted cell goes on in the next line."""
    if line.count('"') % 2 == 0:
        return False
    try:
        next(csv.reader([line], delimiter=_delimiter(line), strict=True))
    except csv.Error as error:
        return "unexpected end of data" in str(error)
    return False


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
