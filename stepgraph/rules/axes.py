"""Axes of tensors as products of what is counted along them: sequences, steps, features. Pure; knows no operators."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stepgraph.rules.size import BATCH, STEPS, Size, quotient, size


@dataclass(frozen=True)
class Rows:
    """As many as there are sequences."""


@dataclass(frozen=True)
class Time:
    """`rate` elements for each step, `extra` more in all; element i stands at position i + `shift` of all steps'.

    So an axis of plain steps is Time(1), three steps of padding before them make it Time(1, -3, 3).
    """

    rate: int = 1
    shift: int = 0
    extra: int = 0


Factor = Rows | Time | int  # an int is more than 1
Axis = tuple[Factor, ...]  # from the outermost to the innermost; () is an axis of length 1
Axes = tuple[Axis, ...]

ROWS, TIME = Rows(), Time()


def length(of: Axis | Factor) -> Size | int:
    match of:
        case Rows():
            return size(BATCH)
        case Time(rate, _, extra):
            return size(STEPS) * rate + extra
        case int():
            return of
        case _:
            total: Size | int = 1
            for factor in of:
                total = total * length(factor)
            return total


def axis_of(count: Size | int) -> Axis | None:
    """The axis that has so many elements, where that tells what they are."""
    if not isinstance(count, Size):
        return plain(count)
    for unknown, factor in ((BATCH, ROWS), (STEPS, TIME)):
        rest = quotient(count, size(unknown))
        if rest is not None:
            inner = axis_of(rest)
            return inner and merged((factor, *inner)) if rest != 1 else (factor,)
    rate, extra = count.coefficient(STEPS), count.constant
    return (Time(rate, 0, extra),) if count == size(STEPS) * rate + extra else None


def begun_later(axis: Axis) -> bool:
    """Whether an axis of steps has all that come, but for some of the first ones."""
    time = time_of([axis])
    return axis == (time,) and time is not None and time.extra == -time.shift <= 0 and not time.extra % time.rate


def plain(count: int) -> Axis:
    return () if count == 1 else (count,)


def merged(factors: Iterable[Factor]) -> Axis:
    """The factors of one axis: sizes within a step, and whole numbers side by side, become one."""
    axis = list[Factor]()
    for factor in factors:
        last = axis[-1] if axis else None
        if isinstance(factor, int) and isinstance(last, int):
            axis[-1] = last * factor
        elif isinstance(factor, int) and isinstance(last, Time):
            axis[-1] = Time(last.rate * factor, last.shift * factor, last.extra * factor)
        elif factor != 1:
            axis.append(factor)
    return tuple(axis)


def regrouped(axes: Sequence[Axis], wanted: Sequence[Size | int]) -> Axes | None:
    """The same elements in the same order, as axes of these lengths; None where that cannot be followed."""
    left = [factor for axis in axes for factor in axis]
    found = list[Axis]()
    for count in wanted:
        axis = _taken(left, count)
        if axis is None:
            return None
        found.append(merged(axis))
    return None if left else tuple(found)


def _taken(left: list[Factor], count: Size | int) -> list[Factor] | None:
    """Takes factors off the front until there are so many elements."""
    axis = list[Factor]()
    while count != 1:
        if not left:
            return None
        factor = left.pop(0)
        rest = quotient(count, length(factor))
        if rest is None:
            parts = _split(factor, count)
            if parts is None:
                return None
            axis.append(parts[0])
            left.insert(0, parts[1])
            return axis
        axis.append(factor)
        count = rest
    return axis


def _split(factor: Factor, count: Size | int) -> tuple[Factor, int] | None:
    """A factor as an outer one of so many elements and an inner one."""
    inner = quotient(length(factor), count)
    if not isinstance(inner, int) or inner < 2:
        return None
    if isinstance(factor, int):
        return factor // inner, inner
    if isinstance(factor, Time) and not any(n % inner for n in (factor.rate, factor.shift, factor.extra)):
        return Time(factor.rate // inner, factor.shift // inner, factor.extra // inner), inner
    return None


def has_time(axis: Axis) -> bool:
    return any(isinstance(factor, Time) for factor in axis)


def has_rows(axis: Axis) -> bool:
    return ROWS in axis


def time_of(axes: Iterable[Axis]) -> Time | None:
    return next((factor for axis in axes for factor in axis if isinstance(factor, Time)), None)


def with_time(axes: Iterable[Axis], time: Time) -> Axes:
    """The axes with this for what they have of time."""
    return tuple(tuple(time if isinstance(factor, Time) else factor for factor in axis) for axis in axes)
