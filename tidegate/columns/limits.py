"""What the numbers of an input may be, tried on whole rows at once. Pure; numpy alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor, isfinite, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.columns.column import NOTHING, Column, Legend
from tidegate.columns.words import span

Array = NDArray[Any]
_AT_ONCE = 2**14  # numbers that are compared at a time: they stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Fault:
    """A number that may not be sent. `finite`: it is one, and outside its column's bounds."""

    row: int
    finite: bool
    sentence: str


class Limits:
    """What the numbers of rows [..., *row] of one input may be: finite ones, and what its columns say."""

    def __init__(self, port: str, row: Sequence[int], dtype: np.dtype[Any], legend: Legend = NOTHING) -> None:
        self._port, self._columns, self._row = port, legend.columns, tuple(row)
        bounds = [column.bounds for column in self._columns]
        floating = dtype.kind == "f"
        missing = np.array([column.missing and floating for column in self._columns], bool)
        whole = np.array([bool(column.categories) and floating for column in self._columns], bool)
        self.bounded = dtype.kind in "fiu" and bool(missing.any() or any(map(isfinite, sum(bounds, ()))))
        if self.bounded:
            kind = np.finfo(dtype) if floating else np.iinfo(dtype)
            lowest = [kind.min if low <= kind.min else low if floating else ceil(low) for low, _ in bounds]
            highest = [kind.max if high >= kind.max else high if floating else floor(high) for _, high in bounds]
            sides = *(np.array(side, dtype) for side in (lowest, highest)), missing, whole
            self._bounds: Sequence[Array] = [self._shaped(side) for side in sides]
            self._some_missing, self._some_whole = bool(missing.any()), bool(whole.any())
        self.hold = self._within if self.bounded else _finite if floating else _anything

    def _shaped(self, values: Array) -> Array:
        return values.reshape(self._row) if values.size == prod(self._row) else values

    def _within(self, x: Array) -> bool:
        rows = _AT_ONCE // max(1, prod(self._row))
        if x.shape[1:] != self._row or x.ndim == len(self._row) or not 0 < rows < len(x):
            return bool(self._fitting(x, self._bounds).all())
        parts = (x[at : at + rows] for at in range(0, len(x), rows))
        return all(bool(self._fitting(part, self._for_many).all()) for part in parts)

    @cached_property
    def _for_many(self) -> Sequence[Array]:
        """The bounds again for each row: short rows are compared twenty times as fast as with one row of bounds."""
        shape = _AT_ONCE // max(1, prod(self._row)), *self._row
        return [np.broadcast_to(side, shape).copy() for side in self._bounds]

    def _fitting(self, x: Array, bounds: Sequence[Array]) -> Array:
        lowest, highest, missing, whole = (side[: len(x)] for side in bounds) if bounds is not self._bounds else bounds
        fits: Array = (x >= lowest) & (x <= highest)
        if self._some_whole:
            fits &= (np.floor(x) == x) | ~whole
        return fits | (np.isnan(x) & missing) if self._some_missing else fits

    def fault(self, x: Array) -> Fault:
        """The first number of rows [N, *row] that may not be sent; one of them is there."""
        fitting = _AT_ONCE // max(1, prod(self._row))  # rows; 0: a row is longer
        rows, bounds = max(1, fitting), (self._for_many if fitting else self._bounds) if self.bounded else ()
        for first in range(0, len(x), rows):  # what is looked at ends with the first part that has one
            part = x[first : first + rows]
            fits = self._fitting(part, bounds) if self.bounded else np.isfinite(part)
            if not fits.all():
                break
        row, *place = map(int, np.unravel_index(np.argmin(fits), fits.shape))
        value, row = part[(row, *place)], first + row
        at = int(np.ravel_multi_index(place, self._row)) % max(1, len(self._columns)) if place else 0
        column = self._columns[at] if self._columns else None
        where = f"row {row}, " + (f"element {place}" if column is None else f"column '{column.name}'")
        head = f"input '{self._port}' holds {value} in {where}; "
        if not np.isfinite(value):
            taken = "a number or NaN is" if column and column.missing else "only finite numbers are"
            return Fault(row, False, f"{head}{taken} taken")
        assert column is not None
        return Fault(row, True, head + expected(column))


def expected(column: Column) -> str:
    """What may be sent in a column, for an error."""
    low, high = column.bounds
    if column.categories:
        return f"the number of one of its {len(column.categories)} categories is taken, {low:g} to {high:g}"
    return f"{span(low, high)} {column.unit}".rstrip() + " is taken"


def _finite(x: Array) -> bool:
    """Whether there is neither NaN nor Inf. A finite sum of squares proves it quickly."""
    return isfinite(np.vdot(x, x)) or bool(np.isfinite(x).all())


def _anything(_: Array) -> bool:
    """Whole numbers are finite."""
    return True
