"""Rows of a model's inputs, made of what a table or a program has by the names of its columns. Pure.

A name of a category becomes its number, what is missing NaN, and a time what the calendar columns say of it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isinf, isnan, nan, prod
from sys import float_info
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.columns.column import Column, Legend, plain_names
from tidegate.columns.known_ahead import Later
from tidegate.columns.limits import expected
from tidegate.columns.numbers import NOTHING, read_number, text_of
from tidegate.columns.times import calendar, moment_of

Key = Any  # what a value of a row is found by: a name, or a place in a line
Row = list[float]
_MOST = 20  # names that an error lists
TIME = "time"  # under this name a time is taken where the columns of the model's own table are not there


class RowError(ValueError):
    """A row that the model does not take; the sentence names the column. `reason` is the contract's word for it."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a model: its name, its row's shape and what is said of it."""

    name: str
    row: tuple[int, ...]
    whole: bool  # it takes whole numbers
    legend: Legend

    @property
    def columns(self) -> Sequence[Column]:
        """One for each number of the row."""
        said = self.legend.columns
        return (
            said if len(said) == prod(self.row) else [Column(name) for name in plain_names(self.name, prod(self.row))]
        )


@dataclass(frozen=True, slots=True)
class _Time:
    """Where the time of a row is found, in which form, and which numbers of the row are made of it."""

    keys: tuple[Key, ...]
    form: str
    name: str
    columns: Sequence[tuple[int, str]]

    def fill(self, given: Any, row: Row) -> None:  # noqa: ANN401 - a list or a mapping
        try:
            moment = moment_of([given[key] for key in self.keys], self.form)
            for at, kind in self.columns:
                time = moment.utc if moment.utc is not None and kind.startswith("utc_") else moment.wall
                row[at] = float(calendar(kind, np.array([time]))[0])
        except ValueError as error:
            raise RowError("WRONG_TYPE", f"column {self.name!r}: {error}") from None


_Number = tuple[int, Key, Callable[[object], float]]  # its place in the row, what finds it, and what reads it


class Binding:
    """Rows whose values are found by known keys."""

    def __init__(self, width: int, numbers: Sequence[_Number], times: Sequence[_Time]) -> None:
        self._width, self._numbers, self._times = width, numbers, times

    def row(self, given: Any) -> Row:  # noqa: ANN401 - a list or a mapping
        """The numbers of a row in the model's order. Raises RowError."""
        row = [nan] * self._width
        for at, key, convert in self._numbers:
            row[at] = convert(given[key])
        for time in self._times:
            time.fill(given, row)
        return row


class Rows:
    """What the inputs of a model take, over all of them."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self._inputs = inputs
        self._columns = [column for each in inputs for column in each.columns]
        self.names = [column.name for column in self._columns]
        self._last: tuple[tuple[str, ...], Binding] | None = None  # of rows by name, which are alike as a rule
        # The columns of a table that tell series apart.
        self.series = next((each.legend.series for each in inputs if each.legend.series), ())
        # Whether the model's author gave the columns their names; else no table knows them.
        self.named = all(each.legend.columns or not each.row for each in inputs)

    @property
    def wanted(self) -> list[str]:
        """The columns of a table that a row is made of."""
        plain = [column.source or column.name for column in self._columns if not column.calendar]
        timed = (each for each in self._inputs if any(column.calendar for column in each.columns))
        return list(dict.fromkeys([*plain, *(name for each in timed for name in each.legend.timestamp or (TIME,))]))

    def bind(self, keys: Mapping[str, Key], lenient: bool = False, delimiter: str = "") -> Binding:
        """How rows are made of values under these names, which are found by these keys.

        `lenient`: what may be missing may lack its name. `delimiter`: see `read_number`. Raises RowError: a column is
        not there.
        """
        numbers: list[_Number] = []
        times: list[_Time] = []
        absent: list[str] = []
        at = 0
        for each in self._inputs:
            told, stamp = each.legend, _stamp(each.legend, keys)
            calendars = [(at + i, c.calendar) for i, c in enumerate(each.columns) if c.calendar and stamp]
            if calendars:
                times.append(_Time(tuple(keys[n] for n in stamp), told.time_format, " ".join(stamp), calendars))
            for i, column in enumerate(each.columns):
                names = (column.name,) if column.ahead else (column.source, column.name)
                name = next((n for n in names if n and n in keys), None)
                if column.calendar and stamp:
                    continue
                if name is not None:
                    read = (
                        _category(column, name) if column.categories else _number(column, name, each.whole, delimiter)
                    )
                    numbers.append((at + i, keys[name], read))
                elif not (lenient and column.missing):
                    absent += (told.timestamp or (TIME,)) if column.calendar else (column.source or column.name,)
            at += len(each.columns)
        if absent:
            listed = ", ".join(dict.fromkeys(absent))
            raise RowError("WRONG_NAME", f"there is no column {listed}; the model takes {', '.join(self.wanted)}")
        return Binding(at, numbers, times)

    def in_order(self) -> Binding:
        """How rows are made of values in the model's own order, those of a calendar as numbers."""
        kinds = [(column, each.whole) for each in self._inputs for column in each.columns]
        return Binding(len(kinds), [(at, at, _numbered(c, c.name, w)) for at, (c, w) in enumerate(kinds)], ())

    def named_row(self, values: Mapping[str, Any]) -> Row:
        """The numbers of a row by the names of its columns. Raises RowError: one is not known, missing or wrong."""
        names = tuple(values)
        if self._last is None or self._last[0] != names:
            strange = self.others(names)
            if strange:
                listed, wanted = ", ".join(map(str, strange)), ", ".join(self.wanted)
                raise RowError("WRONG_NAME", f"the row has {listed}, which the model does not take; it takes {wanted}")
            self._last = names, self.bind({name: name for name in names}, lenient=True)
        return self._last[1].row(values)

    def lacking(self, names: Collection[str]) -> list[str]:
        """The columns of a table that are not among these names, and of which each row may have an empty cell."""
        may_be_empty = (c for c in self._columns if not c.calendar and (c.missing or "" in c.categories))
        return list(dict.fromkeys(c.source or c.name for c in may_be_empty if not {c.source, c.name} & set(names)))

    def others(self, names: Sequence[str]) -> list[str]:
        """Those of these names that no row is made of."""
        time = [TIME] if any(column.calendar for column in self._columns) else []
        known = {*self.wanted, *self.names, *self.series, *time}
        return [name for name in names if name not in known]

    def later(self, names: Sequence[str]) -> list[Later]:
        """What a table with these columns has of what is known ahead, where it has no column of that name itself."""
        found = []
        for each in self._inputs:
            stamp = _stamp(each.legend, dict.fromkeys(names))
            cells = tuple(
                (column.name, names.index(column.source), column.ahead)
                for column in each.columns
                if column.ahead and column.source in names and column.name not in names
            )
            if cells and (stamp or not each.legend.time_step):
                found.append(
                    Later(cells, tuple(map(names.index, stamp)), each.legend.time_format, each.legend.time_step)
                )
        return found

    def arrays(self, rows: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """What each input takes of rows [..., numbers]. Raises RowError."""
        ends = np.cumsum([prod(each.row) for each in self._inputs])
        parts = np.split(rows, ends[:-1], axis=-1)
        return {each.name: _part(each, part) for each, part in zip(self._inputs, parts, strict=True)}


def _part(each: Input, numbers: NDArray[np.float64]) -> NDArray[Any]:
    part = numbers.reshape((*numbers.shape[:-1], *each.row))
    if not each.whole:
        return part
    if not (np.isfinite(part).all() and (part == np.floor(part)).all()):
        raise RowError("WRONG_TYPE", f"input {each.name!r} takes whole numbers")
    return part.astype(np.int64)


def _stamp(legend: Legend, keys: Mapping[str, Key]) -> tuple[str, ...]:
    """The names under which a time is found; none if it is not there."""
    if legend.timestamp and all(name in keys for name in legend.timestamp):
        return legend.timestamp
    return (TIME,) if TIME in keys else ()


# One value ------------------------------------------------------------------------------------------------------------


def _number(column: Column, name: str, whole: bool, delimiter: str = "") -> Callable[[object], float]:
    low, high = max(column.lowest, -float_info.max), min(column.highest, float_info.max)

    def convert(given: object) -> float:
        try:
            value = float(given)  # type: ignore[arg-type] # of whatever type is given
        except OverflowError:
            value = inf
        except (TypeError, ValueError):
            value = nan if _is_empty(given) else _written(given, name, delimiter)
        if low <= value <= high and (not whole or value.is_integer()):
            return value
        if column.missing and not whole and isnan(value):
            return value
        held = f"column {name!r} holds {given!r:.60}"
        if isnan(value):
            raise RowError("NOT_FINITE", f"{held}, and a number was expected: none may be missing there")
        if isinf(value):
            raise RowError("NOT_FINITE", f"{held}; only finite numbers are taken")
        if low <= value <= high:
            raise RowError("WRONG_TYPE", f"{held}, and a whole number was expected")
        raise RowError("OUT_OF_RANGE", f"{held}; {expected(column)}")

    return convert


def _written(given: object, name: str, delimiter: str) -> float:
    """A number that Python does not write so. Raises RowError."""
    try:
        return read_number(str(given), delimiter)
    except ValueError:
        raise RowError("WRONG_TYPE", f"column {name!r} holds {given!r:.60}, which is no number") from None


def _category(column: Column, name: str) -> Callable[[object], float]:
    numbers = {category: float(number) for number, category in enumerate(column.categories)}
    unseen = numbers.get("")

    def convert(given: object) -> float:
        text = given.strip() if isinstance(given, str) else text_of(given)
        if text not in numbers and isinstance(given, bool | np.bool_):
            text = str(int(given))  # so is it called where the table that was learnt from has truths and no texts
        if text in numbers:
            return numbers[text]
        if column.missing and _is_empty(given):
            return nan
        if unseen is not None:
            return unseen
        known = ", ".join(column.categories[:_MOST]) + (", ..." if len(column.categories) > _MOST else "")
        raise RowError("OUT_OF_RANGE", f"column {name!r} holds {given!r:.60}, which is none of its categories: {known}")

    return convert


def _numbered(column: Column, name: str, whole: bool) -> Callable[[object], float]:
    """As `_category` and `_number`, but that a category may come as its number, too."""
    lowest, highest = column.bounds
    number = _number(replace(column, lowest=lowest, highest=highest), name, whole or bool(column.categories))
    numbers = {category: float(at) for at, category in enumerate(column.categories)}
    return lambda given: numbers[given] if given in numbers else number(given)


def _is_empty(given: object) -> bool:
    return given is None or str(given).strip().lower() in NOTHING
