"""Which elements of an input a step needs, in the words of the graph that is written. Pure."""

from stepgraph.rewriting.rings import ROWS, Span
from stepgraph.rules.axes import Rows, Time, has_time
from stepgraph.rules.table import Call
from stepgraph.rules.value import Value, unknown


def span(call: Call, index: int, place: int, first: int, last: int, outside: float = 0.0, since: int = 0) -> Span:
    return span_of(call.value(index), index, place, first, last, outside, since)


def span_of(value: Value, index: int, place: int, first: int, last: int, outside: float = 0.0, since: int = 0) -> Span:
    time = steps_of(value, place)
    if (since or value.repeats) and any(ROWS in map(_size, axis) and len(axis) > 1 for axis in value.axes):
        raise unknown("is otherwise in the first steps, with sequences and features along one axis")
    sizes = tuple(tuple(map(_size, axis)) or (1,) for axis in value.axes)
    return Span(index, place, first, last, time.rate, sizes, max(0, -time.shift), outside, since, repeats=value.repeats)


def steps_of(value: Value, place: int) -> Time:
    time = value.axes[place][0]
    if value.axes[place] != (time,) or not isinstance(time, Time):
        raise unknown("looks back along an axis of steps and sequences")
    return time


def _size(factor: object) -> int:
    match factor:
        case Rows():
            return ROWS
        case Time(rate):
            return rate
        case int():
            return factor
    raise AssertionError


def place_of(value: Value) -> int | None:
    """The axis that is time."""
    return next((i for i, axis in enumerate(value.axes) if has_time(axis)), None)
