"""What is said of a row, in words for a person; and what its numbers mean. Pure."""

from collections.abc import Iterator
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.columns.column import Column, Legend

_MOST = 12  # categories that are listed


def words(column: Column) -> str:
    """What is said of a column beside its name and unit; "" if nothing is."""
    return "; ".join(_words(column))


def _words(column: Column) -> Iterator[str]:
    if column.calendar:
        yield f"{column.calendar} of a row's time"
    named = [category for category in column.categories if category]
    if named:
        more = ", ..." if len(named) > _MOST else ""
        others = ", or any other" if len(named) < len(column.categories) else ""
        yield f"one of {', '.join(named[:_MOST])}{more}{others}"
    if (column.lowest, column.highest) != (-inf, inf):
        yield span(column.lowest, column.highest)
    if column.missing:
        yield "may be missing"
    if column.ahead:
        yield f"'{column.source or column.name}' {column.ahead} steps later in a table"
    elif column.source:
        yield f"'{column.source}' in a table"


def span(low: float, high: float) -> str:
    if low == -inf or high == inf:
        return f"at most {high:g}" if low == -inf else f"at least {low:g}"
    return f"{low:g} to {high:g}"


def notes(legend: Legend) -> Iterator[str]:
    """What is said of a row as a whole."""
    if legend.timestamp:
        names = " and ".join(map(repr, legend.timestamp))
        yield f"a row's time: {names} of a table, as {legend.time_format or 'ISO 8601'}"
    if legend.time_step:
        yield f"a step is {legend.time_step}"
    if legend.series:
        yield f"a sequence for each series, which a table tells apart by {' and '.join(map(repr, legend.series))}"
    if legend.classes:
        yield f"the class of the greatest: {', '.join(legend.classes)}"


def class_of(legend: Legend, scores: NDArray[Any]) -> str:
    """The class of an output that has classes; "" where a score is no number."""
    return "" if np.isnan(scores).any() else legend.classes[int(np.argmax(np.ravel(scores))) % len(legend.classes)]


def category_of(column: Column, number: float) -> str:
    """The name of a number of a column that has categories; the number itself where it has none."""
    known = number == np.floor(number) and 0 <= number < len(column.categories)
    return column.categories[int(number)] if known else str(number)
