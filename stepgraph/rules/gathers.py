"""Operators that pick elements by an index, or between elements by a place."""

from dataclasses import replace
from typing import Any

import numpy as np

from stepgraph.rules.axes import ROWS, Axes, Axis, Time, has_rows, has_time, length, plain, time_of, with_time
from stepgraph.rules.picks import ROWS_TAKEN, SAYS, UNTOLD, bound, ending, first_steps, this_step
from stepgraph.rules.size import ITERATION, Size
from stepgraph.rules.table import Call, over, put, rearranged, rule, whole
from stepgraph.rules.value import COUNTED, Value, broadcast, in_order, joined, mixes_rows, unknown


@rule("Gather", says=SAYS)
def gather(call: Call) -> Value:
    x, index, place = call.value(0), call.value(1), call.axis(0)
    axis, picked = x.axes[place], call.number(1)
    axes = (*x.axes[:place], *index.axes, *x.axes[place + 1 :])
    if whole(axis) is not None or not x.live:
        if not x.live and whole(axis) is None:
            return replace(x, axes=axes, number=None, name="")
        return rearranged(x, axes) if not index.live and not any(index.axes) else _looked_up(x, index, axes)
    if index.ramp is not None and has_time(axis):
        return _windowed(x, index, place)
    if in_order(index) and axis == (ROWS,):
        return x
    if picked is None or picked.size != 1 or not has_time(axis):
        raise mixes_rows(ROWS_TAKEN) if axis == (axis[0],) and has_rows(axis) else unknown(UNTOLD)
    return one_step(x, place, picked.item(), index.axes)


def _windowed(x: Value, index: Value, place: int) -> Value:
    """The elements at places that count along the steps: each step's, or a window of several for each step."""
    time, along, ramp = time_of([x.axes[place]]), time_of(index.axes), index.ramp
    assert ramp is not None
    if time is None or along is None or x.axes[place] != (time,) or time.rate != 1 or along.rate != 1:
        raise unknown(UNTOLD)
    low, high = int(ramp.min()), int(ramp.max())
    if low < 0 or along.extra + high > time.extra:
        raise unknown("picks elements beyond the end of the sequence")
    shift = time.shift + high if along.extra else 0
    axes = (*x.axes[:place], *with_time(index.axes, Time(1, shift, along.extra)), *x.axes[place + 1 :])
    back, ahead = x.back + shift - time.shift - low, x.ahead + high + time.shift - shift
    return replace(x, axes=axes, back=back, ahead=ahead, number=None, name="")


def _looked_up(x: Value, index: Value, axes: tuple[Axis, ...]) -> Value:
    """What is picked by an index that depends on the data, or holds one for each step or row."""
    return rearranged(x, axes) if x.given else joined([x, index], axes)


def one_step(x: Value, place: int, picked: Any, axes: Axes) -> Value:  # noqa: ANN401
    """The element at a place of an axis of steps, which is a number or a size."""
    at = bound(picked, x.axes[place])
    beyond = at - length(x.axes[place])
    if picked == ITERATION:
        return this_step(x, place, axes)
    if not isinstance(at, Size):
        return first_steps(x, place, at + 1, axes)
    if isinstance(beyond, Size):
        raise unknown(UNTOLD)
    return ending(x, place, [beyond], axes)


@rule("GatherElements", says="local where it picks among features")
def gather_elements(call: Call) -> Value:
    x, index, place = call.value(0), call.value(1), call.axis(0)
    if whole(x.axes[place]) is None:
        raise unknown(UNTOLD)
    axes = broadcast([replace(v, axes=put(v.axes, place, ()), number=None) for v in (x, index)])
    return joined([x, replace(index, number=None)], put(axes, place, index.axes[place]))


@rule("GatherND", says="local where it picks from a constant table, or among features")
def gather_by_tuples(call: Call) -> Value:
    x, index, batch = call.value(0), call.value(1), call.attributes.get("batch_dims", 0)
    depth = whole(index.axes[-1])
    if depth is None or any(whole(axis) is None for axis in x.axes[batch : batch + depth]):
        raise unknown(UNTOLD)
    shared = broadcast([Value(v.axes[:batch], v.live) for v in (x, index)]) if batch else ()
    axes = (*shared, *index.axes[batch:-1], *x.axes[batch + depth :])
    return joined([x, replace(index, number=None)], axes)


@rule("TensorScatter", says="local where it writes among features")
def scatter_rows(call: Call) -> Value:
    cache, update, index, place = call.value(0), call.value(1), call.given(2), call.axis(-2)
    if whole(cache.axes[place]) is None or whole(update.axes[place]) is None:
        raise unknown("writes to steps that cannot be told from the file")
    beside = broadcast([replace(v, axes=put(v.axes, place, ()), number=None) for v in (cache, update)])
    if index is not None and index.live and index.axes != beside[:1]:
        raise unknown("writes to places that are not those of its own rows")
    return joined(call.all, put(beside, place, cache.axes[place]))


@rule("Compress", says="local where it picks among features; unknown where the data decide how many")
def kept(call: Call) -> Value:
    x, picked = call.value(0), call.number(1)
    if picked is None or any(isinstance(n, Size) for n in picked.flat):
        raise unknown("keeps as many elements as the data say")
    if "axis" not in call.attributes:
        raise unknown("keeps some elements of all axes")
    place = call.axis()
    count = whole(x.axes[place])
    if count is None:
        raise unknown(UNTOLD)
    return rearranged(x, put(x.axes, place, plain(int(np.count_nonzero(picked[:count])))))


@rule("NonZero", says="constant; unknown where the data decide how many")
def places(call: Call) -> Value:
    x, number = call.value(), call.number(0)
    alike = x.number if x.number is not None and x.number.ndim == 0 else None
    if not x.live and alike is not None and len(x.axes) == 1 and not isinstance(alike.item(), Size) and alike.item():
        return Value(((), x.axes[0]), varies=COUNTED if whole(x.axes[0]) is None else "")
    if number is None or any(isinstance(n, Size) for n in number.flat):
        raise unknown("returns as many places as the data say")
    found = np.array(np.nonzero(number.astype(float)))
    return Value((plain(found.shape[0]), plain(found.shape[1])))


@rule("Unique", says="constant; unknown where the data decide how many")
def different(call: Call) -> list[Value]:
    number = call.number(0)
    if number is None or "axis" in call.attributes or any(isinstance(n, Size) for n in number.flat):
        raise unknown("returns as many elements as differ")
    each, all_ = plain(len(set(number.flat))), plain(number.size)
    return [Value((axis,)) for axis in (each, each, all_, each)]


@rule("GridSample", says="local where it samples within a step")
def sampled(call: Call) -> Value:
    x, grid = call.value(0), call.value(1)
    over(x, range(2, len(x.axes)), "samples")
    if x.live and any(whole(axis) is None for axis in x.axes[1:]):
        raise unknown("samples from an axis of steps or sequences")
    return joined([x, grid], (x.axes[0] or grid.axes[0], x.axes[1], *grid.axes[1:-1]))
