"""One number of a row: its name, unit, categories and bounds. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, prod


@dataclass(frozen=True, slots=True)
class Column:
    """One number of a row.

    `missing`: NaN may be sent, and the model fills it in. `categories`: the number is an index of these names; "" among
    them is where a name belongs that was never seen. `calendar`: what a client computes it as from a row's time.
    `source`: its name in the table that it comes from. `ahead`: it is known ahead, and is what stands there so many
    time steps later.
    """

    name: str
    unit: str = ""
    missing: bool = False
    categories: tuple[str, ...] = ()
    lowest: float = -inf
    highest: float = inf
    calendar: str = ""
    source: str = ""
    ahead: int = 0

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest number that may be sent."""
        if not self.categories:
            return self.lowest, self.highest
        return max(0, self.lowest), min(len(self.categories) - 1, self.highest)


@dataclass(frozen=True, slots=True)
class Legend:
    """What is said of a row: a column for each of its numbers, or none.

    `classes`: the numbers of an output are scores of these. `timestamp`: the columns of a table that hold a row's time,
    in the form `time_format`; see `times.moment_of`. `time_step`: the time from one row to the next, for columns that
    are known ahead; "" where rows are counted; see `known_ahead.Clock`. `series`: the columns of a table whose values
    tell series apart, each of which is a sequence of its own.
    """

    columns: tuple[Column, ...] = ()
    classes: tuple[str, ...] = ()
    timestamp: tuple[str, ...] = ()
    time_format: str = ""
    time_step: str = ""
    series: tuple[str, ...] = ()


NOTHING = Legend()


def count(row: Sequence[int], named: int = 0) -> int:
    """How many columns a row has: its last axis, or all its numbers if so many are `named`."""
    return prod(row) if not row or named == prod(row) else row[-1]


def plain_names(port: str, columns: int) -> list[str]:
    """What columns without names are called."""
    return [port] if columns == 1 else [f"{port}.{index}" for index in range(columns)]
