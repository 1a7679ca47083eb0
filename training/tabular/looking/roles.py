"""What each column of a table is for: time, series, target, input. What cannot be used is refused here, by its name.

Legend: N rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np

from tidegate.columns.numbers import is_number
from training.errors import DataError
from training.tabular.looking.clock import clock_of, is_part

if TYPE_CHECKING:
    from training.tabular.looking.clock import Clock
    from training.tabular.looking.kinds import Column
    from training.tabular.looking.reading import Rows

Goal = Literal["forecast", "classify", "anomaly"]
# A text column with more different values than this, and than this share of its rows, names no categories.
CATEGORIES, SHARE = 50, 0.02
CLASSES = 100
# The square of a number is held in single precision.
LARGEST = 1e18
# A target of whole numbers with at most so many different values is taken for a label.
LABELS = 10


@dataclass(frozen=True)
class Asked:
    """What a person says about the columns; empty where the table is to decide."""

    target: tuple[str, ...]
    goal: Goal | None = None
    series: tuple[str, ...] = ()
    time: str | None = None
    category: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    with_unit: tuple[str, ...] = ()


@dataclass(frozen=True)
class Roles:
    """Each column has one place here, or a reason in `left_out`."""

    goal: Goal
    why: str
    targets: tuple[str, ...]
    clock: Clock | None
    series: tuple[str, ...]
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    left_out: dict[str, str]
    known: tuple[str, ...] = ()

    def without(self, names: dict[str, str]) -> Roles:
        """The roles with some inputs left out, each for a reason."""

        def kept(columns: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(name for name in columns if name not in names)

        inputs = {"numbers": kept(self.numbers), "categories": kept(self.categories), "known": kept(self.known)}
        return replace(self, left_out=self.left_out | names, **inputs)  # type: ignore[arg-type] # mypy mixes the fields


def assign(rows: Rows, asked: Asked) -> Roles:
    """The role of every column.

    Raises:
        DataError: a column that was asked for does not exist or cannot be what it was asked to be.
    """
    if rows.count == 0:
        raise DataError(f"{rows.name} has no row below its header; give a table with data")
    several = (asked.target, asked.series, asked.category, asked.ignore, asked.known, asked.static, asked.with_unit)
    for name in (*([asked.time] if asked.time else []), *chain(*several)):
        require_column(rows, name)
    targets = tuple(dict.fromkeys(asked.target))
    clock = clock_of(rows, asked)
    goal, why = goal_of(rows, targets, asked)
    taken = {*targets, *asked.series, *asked.ignore, *(clock.columns if clock else ())}
    left_out = dict.fromkeys(asked.ignore, "--ignore")
    numbers, categories = (list(targets) if goal != "classify" else []), []
    for column in rows.columns.values():
        if column.name in taken and not (clock and is_part(clock, column)):
            continue
        why_not = unusable(column, asked)
        if why_not:
            left_out[column.name] = why_not
        elif column.kind == "text" or column.name in asked.category:
            categories.append(column.name)
        else:
            numbers.append(column.name)
    for name in [*numbers, *categories]:
        refuse_odd(rows, name)
    for name in numbers:
        refuse_large(rows, name)
    roles = Roles(goal, why, targets, clock, asked.series, tuple(numbers), tuple(categories), left_out, asked.known)
    for name in (*asked.known, *asked.static):
        require_input(rows, roles, name, "--known" if name in asked.known else "--static")
    return roles


def require_input(rows: Rows, roles: Roles, name: str, option: str) -> None:
    """Refuse a column that was said to be known ahead, or static, and is no input."""
    if option == "--known" and roles.goal == "classify":
        raise DataError(f"{option} {name}: a label is of the row itself, and nothing ahead is looked at; leave it out")
    if name in roles.targets:
        raise DataError(f"{rows.name}, column {name!r}: it is the target, which is not known; leave it out of {option}")
    if name not in (*roles.numbers, *roles.categories):
        why = roles.left_out.get(name, "it is the time or the series")
        raise DataError(f"{rows.name}, column {name!r} is no input, because {why}; leave it out of {option}")


def require_column(rows: Rows, name: str) -> None:
    if name not in rows.columns:
        bare = any(is_number(each) for each in rows.columns)
        header = "; is its first line a row? Write the columns' names above it" if bare else ""
        raise DataError(f"{rows.name} has no column {name!r}; it has {', '.join(rows.columns)}{header}")


def goal_of(rows: Rows, targets: tuple[str, ...], asked: Asked) -> tuple[Goal, str]:
    """The task, and why it is that one."""
    if not targets:
        raise DataError(f"no --target is given; {rows.name} has the columns {', '.join(rows.columns)}")
    for name in targets:
        refuse_odd(rows, name)
        if asked.goal != "classify":
            refuse_constant(rows, name)
    first = rows.columns[targets[0]]
    given = first.values[~first.missing_N]
    if len(given) == 0:
        raise DataError(f"{rows.name}, column {first.name!r}: the target has no value at all; give another --target")
    different = len(set(given.tolist()))
    labels = first.kind == "text" or (different <= LABELS and bool(np.all(given == np.floor(given.astype(float)))))
    goal: Goal = asked.goal or ("classify" if labels and len(targets) == 1 else "forecast")
    why = (
        "--task"
        if asked.goal
        else f"{first.name} has {different} different {'texts' if first.kind == 'text' else 'values'}"
    )
    if goal == "classify":
        require_classes(rows, first, different, targets)
    else:
        require_numbers(rows, targets)
    return goal, why


def require_classes(rows: Rows, target: Column, different: int, targets: tuple[str, ...]) -> None:
    """A label has two classes or more, and not as many as rows."""
    if len(targets) > 1:
        raise DataError(f"--task classify learns one label, and {len(targets)} targets are given; give one --target")
    if different < 2:
        only = target.texts_N[~target.missing_N][0]
        raise DataError(
            f"{rows.name}, column {target.name!r}: all rows are of one class, {only!r}; "
            "there is nothing to tell apart, give rows of another class"
        )
    if different > CLASSES:
        raise DataError(
            f"{rows.name}, column {target.name!r}: {different} different values are no classes "
            f"(at most {CLASSES}); give a column of labels, or of numbers to forecast"
        )


def require_numbers(rows: Rows, targets: tuple[str, ...]) -> None:
    for name in targets:
        column = rows.columns[name]
        if column.kind != "number":
            row = int(np.argmin(column.missing_N))
            raise DataError(
                f"{rows.origin.place(row)}, column {name!r}: the target is {column.kind}, "
                f"{str(column.values[row])[:40]!r}; give a column of numbers, or --task classify"
            )


def refuse_constant(rows: Rows, name: str) -> None:
    column = rows.columns[name]
    if column.kind == "number" and not column.missing_N.all() and np.nanmax(column.values) == np.nanmin(column.values):
        raise DataError(
            f"{rows.name}, column {name!r}: the target is {np.nanmax(column.values):g} in every row; "
            "give another --target"
        )


def refuse_odd(rows: Rows, name: str) -> None:
    """A value that is no number, in a column of numbers that is to be used."""
    odd = rows.columns[name].odd
    if odd is not None:
        raise DataError(
            f"{rows.origin.place(odd.row)}, column {name!r}: {odd.text[:40]!r} is no {odd.expected}, as the "
            f"column's other values are; correct it, empty it, or leave the column out with --ignore {name}"
        )


def refuse_large(rows: Rows, name: str) -> None:
    """A number whose square single precision does not hold."""
    column = rows.columns[name]
    large_N = np.abs(column.values) > LARGEST
    if large_N.any():
        row = int(large_N.argmax())
        raise DataError(
            f"{rows.origin.place(row)}, column {name!r}: {column.values[row]:g} is more than {LARGEST:g}, the most "
            f"that is computed with; correct it, empty it, or leave the column out with --ignore {name}"
        )


def unusable(column: Column, asked: Asked) -> str:
    """Why a column can be no input; "" if it can."""
    if column.missing_N.all():
        return "it is empty"
    given = column.values[~column.missing_N]
    different = len(set(given.tolist()))
    if different == 1 and not column.missing_N.any():
        return f"it is {given[0]} in every row"
    if column.kind == "time":
        return "it is a second time"
    if column.kind == "text" and column.name not in asked.category and column.odd is None:
        if column.note:
            return f"it {column.note}, which is no number and no category"
        if different > max(CATEGORIES, SHARE * len(given)):
            return f"its {different} different texts are no categories (--category {column.name} if they are)"
    if column.kind == "number" and counts_rows(column):
        return "it counts the rows"
    return ""


def counts_rows(column: Column) -> bool:
    """Whether a column is 1, 2, 3, ...: a number of the row, which grows past everything that was learnt from."""
    return len(column.values) > 2 and bool(np.all(np.diff(column.values) == 1))
