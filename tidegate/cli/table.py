"""A table of any form as rows of numbers, in the order of a model's inputs. Knows no file and no server."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tidegate.columns import RowError, Rows
from tidegate.columns.known_ahead import Placed, Series, series_of
from tidegate.columns.numbers import NAMELESS
from tidegate.columns.rows import Binding
from tidegate.drawing.names import printable
from tidegate.errors import TidegateError

Row = NDArray[np.float64]


class BadTable(TidegateError):
    """A table that does not hold what the model takes; the message says where."""


def bad(sentence: str) -> BadTable:
    return BadTable(printable(sentence))


@dataclass(frozen=True, slots=True)
class Sheet:
    """Rows of cells, each with its place, under the `names` of columns; without names, in the model's order.

    `head` is the place of what gave the names, `delimiter` is between the cells, see `read_number`. `doubt`: what is
    said if the names are not those that the model takes.
    """

    head: str
    names: Sequence[str]
    rows: Iterator[Placed]
    delimiter: str
    doubt: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """Rows [columns] as they come, each behind its series, and notes for the person who gave them."""

    by_series: Iterator[tuple[Series, Row]]
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> Iterator[Row]:
        return (row for _, row in self.by_series)


def joined(first: Sheet, others: Iterator[Sheet]) -> Sheet:
    """One below the other; columns may stand in another order. Raises BadTable, for each at its turn."""
    _named(first)

    def rows() -> Iterator[Placed]:
        yield from first.rows
        for other in others:
            _named(other)
            lacking = [name for name in first.names if name not in other.names]
            if lacking:
                raise bad(f"{other.head}: there is no column {', '.join(lacking)}, which the file before it has")
            places = [other.names.index(name) for name in first.names]
            yield from ((place, [cells[at] for at in places]) for place, cells in other.rows)

    return replace(first, rows=rows())


def _named(sheet: Sheet) -> None:
    if not sheet.names:
        raise bad(f"{sheet.head}: the names of the columns were expected, by which several files are one table")


def table_of(sheet: Sheet, columns: Rows) -> Table:
    """The rows of a model: columns that it does not take are left out. Raises BadTable."""
    if not sheet.names:
        return Table(_rows(sheet.rows, columns.in_order(), columns), notes_in_order(columns))
    lacking = [name for name in columns.series if name not in sheet.names]
    if lacking:
        why = "whose values tell the model's series apart, each with a state of its own"
        raise bad(f"{sheet.head}: there is no column {', '.join(lacking)}, {why}{sheet.doubt}")
    apart = [sheet.names.index(name) for name in columns.series]
    later = columns.later(sheet.names)
    names = [*sheet.names, *(name for each in later for name in each.names)]
    notes = sheet.notes
    try:
        binding = columns.bind({name: at for at, name in enumerate(names)}, delimiter=sheet.delimiter)
    except RowError as error:
        if columns.named or len(names) != len(columns.names):
            raise bad(f"{sheet.head}: {error}{sheet.doubt}") from None
        binding, notes = columns.in_order(), (_IN_ORDER, *notes)
    else:
        extra = columns.others(names)
        if extra:
            notes = (f"columns that the model does not take are left out: {', '.join(map(repr, extra))}", *notes)
    rows = sheet.rows
    for each in later:
        rows = each.added(rows, apart)
    return Table(_rows(rows, binding, columns, apart), notes)


def notes_in_order(columns: Rows) -> tuple[str, ...]:
    """What is said of a table whose columns have no names."""
    return (_ONE_SERIES,) if columns.series else ()


def _rows(
    placed: Iterator[Placed], binding: Binding, columns: Rows, apart: Sequence[int] = ()
) -> Iterator[tuple[Series, Row]]:
    try:
        for place, cells in placed:
            yield _series(place, cells, columns, apart), _row(place, cells, binding)
    except ValueError as error:  # a time of a row that is read ahead
        raise bad(str(error)) from None


def _series(place: str, cells: Sequence[object], columns: Rows, apart: Sequence[int]) -> Series:
    series = series_of(cells, apart)
    for name, value in zip(columns.series, series, strict=False):
        if value.lower() in NAMELESS:
            raise bad(f"{place}: column {name!r} holds {value!r}, which names no series")
    return series


def _row(place: str, cells: Sequence[object], binding: Binding) -> Row:
    try:
        return np.array(binding.row(cells))
    except RowError as error:
        raise bad(f"{place}: {error}") from None


_IN_ORDER = "columns are taken in their order: the model has no names for them"
_ONE_SERIES = "the table has no names of columns: all of its rows are taken for those of one series"
