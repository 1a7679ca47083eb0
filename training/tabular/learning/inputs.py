"""The rows as the network is sent them: one number for each input, NaN where nothing was measured.

Legend: N rows, F inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from tidegate.columns.times import calendar
from training.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from training.tabular.looking.look import Look

Kind = Literal["number", "category", "calendar", "clock"]
DAY, YEAR, MONTH = 86400.0, 365.25 * 86400, 31 * 86400.0
NEVER_SEEN = ""
# More series than this are not told apart by an input: there is too little of each to learn from.
SERIES = 500


@dataclass(frozen=True)
class Input:
    """One number of a row: `categories` name its values, `cycle` is after how many of its units it begins anew.

    `ahead`: it is what the table has under `source` so many time steps later.
    """

    name: str
    kind: Kind
    missing: bool = False
    categories: tuple[str, ...] = ()
    calendar: str = ""
    cycle: float = 0.0
    harmonics: int = 1
    source: str = ""
    ahead: int = 0


@dataclass(frozen=True)
class Inputs:
    """All inputs in order, and their values, x_NF."""

    columns: tuple[Input, ...]
    x_NF: NDArray[np.float32]

    def places(self, kind: Kind) -> list[int]:
        return [place for place, column in enumerate(self.columns) if column.kind == kind]

    def place(self, name: str) -> int:
        return [column.name for column in self.columns].index(name)


def inputs_of(look: Look, learnt_N: NDArray[np.bool_], *, series: bool) -> Inputs:
    """Every input of the table; categories are those that occur where `learnt_N`. `series`: its names are some, too.

    Raises:
        DataError: two inputs would have one name.
    """
    own = [*numbers(look), *categories(look, learnt_N, series=series)]
    made = [*own, *known_ahead(look, own), *times(look)]
    names = [column.name for column in made]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{look.rows.name}, column {name!r}: an input that we make has this name; rename it")
    return as_before(look, tuple(made))


def as_before(look: Look, columns: tuple[Input, ...]) -> Inputs:
    """These inputs from a table, which may be one that goes on with an earlier run.

    Raises:
        DataError: the table lacks one of them, or lacks values where the earlier one had all.
    """
    made = [values_of(look, column) for column in columns]
    return Inputs(columns, np.stack(made, axis=1).astype(np.float32))


def values_of(look: Look, column: Input) -> NDArray[np.float64]:
    if column.calendar:
        if look.grid.time_N is None:
            raise DataError(
                f"{look.rows.name} has no times, which the run of --from has; name their column with --time"
            )
        if not column.calendar.startswith("utc_"):
            return calendar(column.calendar, look.grid.time_N)
        if look.grid.utc_N is None:
            raise DataError(
                f"{look.rows.name}: times do not say their offset from UTC, as those of the run of --from do"
            )
        return calendar(column.calendar, look.grid.utc_N)
    name = column.source or column.name
    found = look.rows.columns.get(name)
    if found is None or (column.kind == "number" and found.kind != "number"):
        kind = {"number": "numbers", "category": "categories"}[column.kind]
        raise DataError(f"{look.rows.name} has no column of {kind} {name!r}, which the run of --from has")
    if column.kind == "category":
        index = {text: place for place, text in enumerate(column.categories)}
        texts_N = found.texts_N[look.grid.row_N].tolist()
        return ahead(look, column, np.array([index.get(text, 0) for text in texts_N], dtype=np.float64), 0)
    if found.missing_N.any() and not column.missing:
        place = look.rows.origin.place(int(found.missing_N.argmax()))
        raise DataError(
            f"{place}, column {column.name!r}: a value is missing, and the run of --from had all; fill it in"
        )
    return ahead(look, column, np.asarray(found.values[look.grid.row_N], dtype=np.float64), np.nan)


def ahead(look: Look, column: Input, values_N: NDArray[np.float64], nothing: float) -> NDArray[np.float64]:
    """What a column that is known ahead is at the time that is forecast; `nothing` where the table has no such row."""
    if not column.ahead:
        return values_N
    place_N = look.grid.ahead(column.ahead)
    return np.where(place_N >= 0, values_N[place_N], nothing)


def numbers(look: Look) -> Iterator[Input]:
    """Columns of numbers; those called hour or month go round."""
    composed = look.roles.clock is not None and len(look.roles.clock.columns) > 1
    for name in look.roles.numbers:
        cycle = {"hour": 24.0, "month": 12.0}.get(name.lower(), 0.0) if composed else 0.0
        yield Input(name, "number", bool(look.rows.columns[name].missing_N.any()), cycle=cycle)


def categories(look: Look, learnt_N: NDArray[np.bool_], *, series: bool) -> Iterator[Input]:
    """Columns of names as indices: 0 for what was never seen where it was learnt, or is missing."""
    names = (*look.roles.categories, *(look.roles.series if series else ()))
    for name in names:
        texts_N = look.rows.columns[name].texts_N[look.grid.row_N]
        known = sorted({text for text in texts_N[learnt_N].tolist() if text is not None})
        yield Input(name, "category", categories=(NEVER_SEEN, *known))


def known_ahead(look: Look, own: list[Input]) -> Iterator[Input]:
    """Of columns that are known ahead, what they are at each time that is forecast; missing behind the table's end."""
    for column in own:
        for steps in look.horizons if column.name in look.roles.known else ():
            name = f"{column.name}_in_{steps}"
            missing = column.kind == "number"  # of such the graph keeps the last value, which it does not of a wave
            yield replace(column, name=name, source=column.name, ahead=steps, missing=missing, cycle=0.0)


def times(look: Look) -> Iterator[Input]:
    """What a row's time says: where in the day, the week and the year it is.

    Where rows are not one step apart, also the time itself, of which the graph takes the difference to the row before.
    """
    clock, grid = look.roles.clock, look.grid
    if clock is None or grid.time_N is None:
        return
    step, span = grid.step.seconds, float((grid.time_N.max() - grid.time_N.min()) / np.timedelta64(1, "s"))
    whole = len(clock.columns) == 1
    zone = "" if grid.utc_N is None else "utc_"
    wanted = [
        (
            Input("time_of_day", "calendar", calendar="time_of_day", cycle=1.0, harmonics=2),
            step < DAY and span > 2 * DAY and whole,
        ),
        (Input("weekday", "calendar", calendar="weekday", cycle=7.0, harmonics=3), step <= DAY and span > 14 * DAY),
        (
            Input("time_of_year", "calendar", calendar="time_of_year", cycle=1.0, harmonics=2),
            step <= MONTH and span > 1.5 * YEAR and whole,
        ),
        (Input(f"{zone}days", "clock", calendar=f"{zone}days"), not grid.regular),
        (Input(f"{zone}second_of_day", "clock", calendar=f"{zone}second_of_day"), not grid.regular),
    ]
    yield from (column for column, needed in wanted if needed)


def legend(inputs: Inputs, look: Look) -> dict[str, object]:
    """What a client is told of the inputs, by the keys of `tidegate.inputs`."""
    columns = inputs.columns
    clock = look.roles.clock
    found: dict[str, object] = {
        "missing": [column.name for column in columns if column.missing],
        "categories": {column.name: list(column.categories) for column in columns if column.categories},
        "calendar": {column.name: column.calendar for column in columns if column.calendar},
        "source": {column.name: column.source for column in columns if column.source},
        "ahead": {column.name: column.ahead for column in columns if column.ahead},
        "series": list(look.roles.series),
    }
    if found["ahead"]:
        found["time_step"] = look.grid.step.said
    if clock is not None and (found["calendar"] or found["ahead"]):
        found |= {
            "timestamp": clock.columns[0] if len(clock.columns) == 1 else list(clock.columns),
            "time_format": clock.form,
        }
    return {key: value for key, value in found.items() if value or key == "time_format"}
