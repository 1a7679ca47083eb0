"""A table of any form as rows of numbers, in the order of a model's inputs. Knows no file and no server."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidegate.columns import RowError, Rows
from tidegate.columns.known_ahead import Placed
from tidegate.columns.rows import Binding
from tidegate.drawing.names import printable
from tidegate.errors import TidegateError

Row = NDArray[np.float64]


class BadTable(TidegateError):
    """A table that does not hold what the model takes; the message says where."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows [columns] as they come, and notes for the person who gave them."""

    rows: Iterator[Row]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Makes rows of cells. `file` stands before what is wrong."""

    file: str
    columns: Rows

    def named(self, names: Sequence[str], rows: Iterator[Placed], delimiter: str, first: str) -> Table:
        """A table whose columns have names. Those that the model does not take are left out.

        `first`: the place of what gave the names. Raises BadTable.
        """
        later = self.columns.later(names)
        all_names = [*names, *(name for each in later for name in each.names)]
        notes: tuple[str, ...] = ()
        try:
            binding = self.columns.bind({name: at for at, name in enumerate(all_names)}, delimiter=delimiter)
        except RowError as error:
            if self.columns.named or len(names) != len(self.columns.names):
                raise self.bad(f"{first}: {error}") from None
            binding, notes = self.columns.in_order(), (_IN_ORDER,)
        else:
            extra = self.columns.others(all_names)
            notes = (f"columns that the model does not take are left out: {', '.join(extra)}",) if extra else ()
        for each in later:
            rows = each.added(rows)
        return Table(self.rows(rows, binding), notes)

    def rows(self, placed: Iterator[Placed], binding: Binding) -> Iterator[Row]:
        """The numbers of each row. Raises BadTable."""
        try:
            for place, cells in placed:
                yield self._row(place, cells, binding)
        except ValueError as error:  # a time of a row that is read ahead
            raise self.bad(str(error)) from None

    def _row(self, place: str, cells: Sequence[object], binding: Binding) -> Row:
        try:
            return np.array(binding.row(cells))
        except RowError as error:
            raise self.bad(f"{place}: {error}") from None

    def bad(self, sentence: str) -> BadTable:
        return BadTable(printable(f"{self.file}{sentence}"))


_IN_ORDER = "columns are taken in their order: the model has no names for them"
