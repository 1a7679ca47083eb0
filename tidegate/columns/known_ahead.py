"""Columns that are known ahead: cells of later rows of a series as cells of the row that takes them. Pure."""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidegate.columns.numbers import text_of
from tidegate.columns.times import DAY, HOUR, Moment, comes_twice, moment_of

Cells = Sequence[Any]
Placed = tuple[str, Cells]  # where a row stands, as "line 17", and its cells
Series = tuple[str, ...]  # what the columns that tell series apart hold in the rows of one of them
# What a time step is said in, and numpy's names of it.
STEPS = {"microseconds": "us", "seconds": "s", "days": "D", "months": "M"}


def series_of(cells: Cells, places: Sequence[int]) -> Series:
    """The series of a row, where these cells tell series apart."""
    return tuple(text_of(cells[at]).strip() for at in places)


def length_of(time_step: str) -> np.timedelta64 | None:
    """A time step such as "3600 seconds" as a length; None if it is none."""
    found = re.fullmatch(r"([1-9]\d{0,15}) (\w+)", time_step)
    return np.timedelta64(int(found[1]), STEPS[found[2]]) if found and found[2] in STEPS else None  # type: ignore[call-overload] # a unit that is a variable


@dataclass(slots=True)
class Clock:
    """Counts the time steps from the first row; without a time step, the rows.

    Days and longer steps are those of the wall clock; shorter ones are exact, see `times`.
    """

    places: Sequence[int]
    form: str
    step: np.timedelta64 | None
    _first: np.datetime64 | None = None
    _rows: int = -1
    _before: np.datetime64 | None = None
    _put_back: np.timedelta64 = field(default_factory=lambda: np.timedelta64(0, "h"))

    def tick(self, row: Placed) -> int:
        """The number of a row's time step. Raises ValueError: its time cannot be read; the sentence says where."""
        place, cells = row
        self._rows += 1
        if self.step is None:
            return self._rows
        try:
            time = self._exact(moment_of([cells[at] for at in self.places], self.form), self.step)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        time = time.astype(f"datetime64[{'M' if np.datetime_data(self.step)[0] == 'M' else 'us'}]")
        self._first = time if self._first is None else self._first
        return int(np.rint((time - self._first) / self.step))

    def _exact(self, moment: Moment, step: np.timedelta64) -> np.datetime64:
        if np.datetime_data(step)[0] == "M" or step >= DAY:
            return moment.wall
        if moment.utc is not None:
            return moment.utc
        if self._before is not None and comes_twice(self._before, moment.wall):
            self._put_back = self._put_back + HOUR
        self._before = moment.wall
        return moment.wall + self._put_back


@dataclass(frozen=True, slots=True)
class Later:
    """Cells that are wanted from later rows: the name of each, its place in a line, and how many steps later."""

    cells: tuple[tuple[str, int, int], ...]
    time: tuple[int, ...] = ()
    form: str = ""
    step: str = ""

    @property
    def names(self) -> list[str]:
        """What the cells are called that `added` adds."""
        return [name for name, _, _ in self.cells]

    def added(self, rows: Iterable[Placed], apart: Sequence[int] = ()) -> Iterator[Placed]:
        """Each row with the wanted cells behind its own, "" where its series has no such row, in the order of the rows.

        `apart`: the places of the cells that tell series apart. So many steps of each series are read ahead; where one
        series stands behind another, that is all of the table. Where the time of a series goes back, what is ahead
        ends. Raises ValueError.
        """
        lanes: dict[Series, _Waiting] = {}
        order: deque[_Waiting] = deque()  # the lanes of the rows that are not given back yet
        for row in rows:
            series = series_of(row[1], apart)
            if series not in lanes:
                lanes[series] = _Waiting(self.cells, Clock(self.time, self.form, length_of(self.step)))
            order.append(lanes[series])
            lanes[series].take(row)
            while order and order[0].complete:
                yield order.popleft().complete.popleft()
        for lane in lanes.values():
            lane.rest()
        yield from (lane.complete.popleft() for lane in order)


@dataclass(slots=True)
class _Waiting:
    """Rows of a series until everything is read that they take from later ones, which makes them `complete`."""

    cells: tuple[tuple[str, int, int], ...]
    clock: Clock
    complete: deque[Placed] = field(default_factory=deque)
    _rows: deque[tuple[int, Placed]] = field(default_factory=deque)
    _at: dict[int, Cells] = field(default_factory=dict)

    def take(self, row: Placed) -> None:
        """One more row."""
        tick = self.clock.tick(row)
        if self._rows and tick < self._rows[-1][0]:
            self.rest()
        self._rows.append((tick, row))
        self._at[tick] = row[1]
        farthest = max(steps for _, _, steps in self.cells)
        while self._rows and self._rows[0][0] + farthest <= tick:
            self._next()

    def rest(self) -> None:
        """Nothing more comes that the rows could wait for."""
        while self._rows:
            self._next()

    def _next(self) -> None:
        tick, (where, cells) = self._rows.popleft()
        if not self._rows or self._rows[0][0] != tick:
            self._at.pop(tick, None)
        self.complete.append((where, [*cells, *(self._cell(tick + steps, place) for _, place, steps in self.cells)]))

    def _cell(self, tick: int, place: int) -> Any:  # noqa: ANN401 - what a table has
        cells = self._at.get(tick, ())
        return cells[place] if place < len(cells) else ""
