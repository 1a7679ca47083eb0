"""Operators that pick elements by place or by index, add some at the edges, or write some."""

from dataclasses import replace
from math import inf
from typing import Any

import numpy as np

from stepgraph.rules.axes import (
    ROWS,
    TIME,
    Axes,
    Axis,
    Time,
    axis_of,
    has_rows,
    has_time,
    length,
    merged,
    plain,
    time_of,
)
from stepgraph.rules.size import ITERATION, Size, compared, quotient
from stepgraph.rules.table import Call, over, put, rearranged, rule, whole
from stepgraph.rules.value import COUNTED, Value, broadcast, in_order, joined, mixes, mixes_rows, unknown, varying
from stepgraph.rules.windows import Window, slid

SAYS = "reach n along time, local elsewhere"
ROWS_TAKEN = "takes some of the sequences of a batch"
UNTOLD = "picks steps that cannot be told from the file"
_BEYOND = 2**31 - 2  # a bound from here on is the end of the axis


@rule("Slice", says=SAYS)
def cut(call: Call) -> Value:
    x = call.value()
    starts, ends = (call.numbers(name, i) or [] for i, name in ((1, "starts"), (2, "ends")))
    axes = call.numbers("axes", 3) or list(range(len(starts)))
    strides = call.numbers("steps", 4) or [1] * len(starts)
    for axis, start, end, stride in zip(axes, starts, ends, strides, strict=True):
        place = int(axis) % len(x.axes)
        x = _cut(x, place, start, end, int(stride))
    return x


def _cut(x: Value, place: int, start: Any, end: Any, stride: int) -> Value:  # noqa: ANN401 # numbers or sizes
    axis = x.axes[place]
    count = whole(axis)
    if count is not None and not isinstance(start, Size) and not isinstance(end, Size):
        taken = range(count)[slice(int(start), None if end < -count else int(end), stride)]
        return rearranged(x, put(x.axes, place, plain(len(taken))))
    first, last = bound(start, axis), bound(end, axis)
    if stride == 1 and first == 0 and last == length(axis):
        return x
    if not x.live:
        return _cut_constant(x, place, last - first)
    if count is not None:
        raise unknown("cuts features at a place that depends on the number of steps or sequences")
    if has_rows(axis):
        raise unknown(ROWS_TAKEN) if has_time(axis) else mixes_rows(ROWS_TAKEN)
    if stride < 0:
        raise mixes("runs backwards over the steps")
    return _every(x, place, first, length(axis) - last, stride) if stride > 1 else _cut_steps(x, place, first, last)


def _every(x: Value, place: int, first: Size | int, cut_off: Size | int, stride: int) -> Value:
    """Every so many elements, of which a step may have several: a window of one that moves by as many."""
    if isinstance(first, Size) or isinstance(cut_off, Size):
        raise unknown(UNTOLD)
    return slid(x, place, Window(1, stride, 1, -first, -cut_off))


def bound(given: Any, axis: Axis) -> Size | int:  # noqa: ANN401
    """A start or end from the front of the axis."""
    place: Size | int = given if isinstance(given, Size) else int(given)
    if not isinstance(place, Size) and place >= _BEYOND:
        return length(axis)
    if not isinstance(place, Size) and place < -_BEYOND:
        return 0
    negative = compared(place, 0) if isinstance(place, Size) else (-1 if place < 0 else 1)
    if isinstance(place, Size) and negative is None and place.constant >= 0:
        negative = 1
    return length(axis) + place if negative == -1 else place


def _cut_steps(x: Value, place: int, first: Size | int, last: Size | int) -> Value:
    if first == ITERATION and last == ITERATION + 1:
        return this_step(x, place, ((),))
    time = _alone(x, place, "cuts an axis of steps that is also one of features")
    cut_off = length(x.axes[place]) - last
    if not isinstance(last, Size) and not isinstance(first, Size):
        return first_steps(x, place, last, (plain(last - first),))
    if isinstance(cut_off, Size):
        raise unknown(UNTOLD)
    if not isinstance(first, Size):
        kept = Time(time.rate, time.shift + first, time.extra - first - cut_off)
        return replace(x, axes=put(x.axes, place, (kept,)), number=None, name="")
    count = last - first
    if isinstance(count, Size):
        raise unknown(UNTOLD)
    return ending(x, place, [-cut_off - n for n in range(count, 0, -1)], (plain(count),))


def _alone(x: Value, place: int, otherwise: str) -> Time:
    """The time of an axis that has nothing else; `otherwise` goes on from the node's name."""
    time = time_of([x.axes[place]])
    if time is None or x.axes[place] != (time,):
        raise unknown(otherwise)
    return time


def ending(x: Value, place: int, from_end: list[int], axes: Axes) -> Value:
    """The elements at these places, counted from the end of an axis of steps (0 is one beyond the last)."""
    time = _alone(x, place, UNTOLD)
    offsets = [(time.extra + time.shift + n) // time.rate + 1 for n in from_end]  # in steps from the last
    picked = (*x.axes[:place], *axes, *x.axes[place + 1 :])
    back, ahead = x.back - min(offsets), x.ahead + max(offsets)
    return replace(x, axes=picked, last=True, back=back, ahead=ahead, number=None, name="")


def _cut_constant(x: Value, place: int, count: Size | int) -> Value:
    """As many elements as there are steps, say, of a table of positions."""
    found = axis_of(count)
    if found is None:
        raise unknown(UNTOLD)
    alike = x.number is not None and x.number.ndim == 0
    varies = x.varies if alike else x.varies or COUNTED
    return replace(x, axes=put(x.axes, place, found), name="", varies=varies, number=x.number if alike else None)


def this_step(x: Value, place: int, axes: Axes) -> Value:
    """The step that a loop is at."""
    if x.axes[place] != (TIME,):
        raise unknown(UNTOLD)
    return replace(x, axes=(*x.axes[:place], *axes, *x.axes[place + 1 :]), last=True, number=None, name="")


def first_steps(x: Value, place: int, count: int, axes: Axes) -> Value:
    """Some of the first steps, which every later one is given."""
    return replace(
        x, axes=(*x.axes[:place], *axes, *x.axes[place + 1 :]), last=True, back=inf, ahead=count, number=None, name=""
    )


@rule("ScatterElements", "Scatter", says="local where it writes among features")
def scatter_elements(call: Call) -> Value:
    x, place = call.value(), call.axis(0)
    if not x.live and x.axes == ((ROWS,),) and all(in_order(call.value(i)) for i in (1, 2)):
        return call.value(2)
    if whole(x.axes[place]) is None:
        raise unknown("writes to steps that cannot be told from the file")
    beside = [replace(v, axes=put(v.axes, place, ()), number=None) for v in call.all]
    return joined([replace(v, number=None) for v in call.all], put(broadcast(beside), place, x.axes[place]))


@rule("ScatterND", says="local where it writes among features, or each step to its own place")
def scatter_by_tuples(call: Call) -> Value:
    x, index, updates = call.value(0), call.value(1), call.value(2)
    if _writes_all(call, x, index, updates):
        return rearranged(updates, updates.axes)
    depth = whole(index.axes[-1])
    plain_front = depth is not None and all(whole(axis) is not None for axis in x.axes[:depth])
    if depth is None or not plain_front or not all(whole(axis) is not None for axis in index.axes):
        raise unknown("writes to steps or sequences that cannot be told from the file")
    behind = broadcast([Value(x.axes[depth:], x.live), Value(updates.axes[len(index.axes) - 1 :], updates.live)])
    return joined([x, replace(index, number=None), updates], (*x.axes[:depth], *behind))


def _writes_all(call: Call, x: Value, index: Value, updates: Value) -> bool:
    """Whether each step is written to its own place of a buffer that has one for each."""
    if call.attributes.get("reduction", b"none") != b"none" or index.ramp is None or index.ramp.tolist() != [[0]]:
        return False
    own = Time(time.rate) if (time := time_of(index.axes[:1])) else None
    return index.axes == ((own,), ()) and x.shape == updates.shape and x.axes[:1] == updates.axes[:1] == ((own,),)


@rule("Pad", says=SAYS)
def pad(call: Call) -> Value:
    x, pads = call.value(), call.numbers("pads", 1) or []
    axes = call.numbers("axes", 3) or list(range(len(x.axes)))
    if any(isinstance(n, Size) for n in pads):
        raise unknown("adds a number of elements that depends on the length")
    mode = call.attributes.get("mode", b"constant").decode()
    if x.given:
        raise unknown("computes with a state of the interface outside of the cells")
    for i, axis in enumerate(axes):
        before, after = int(pads[i]), int(pads[i + len(axes)])
        if before or after:
            x = _padded(x, int(axis) % len(x.axes), before, after, mode)
    return replace(x, number=None, name="", ends=frozenset(), varies="" if x.live else varying(x))


def _padded(x: Value, place: int, before: int, after: int, mode: str) -> Value:
    count = whole(x.axes[place])
    if count is not None:
        return replace(x, axes=put(x.axes, place, plain(count + before + after)))
    if has_rows(x.axes[place]):
        raise unknown("adds rows to a batch") if has_time(x.axes[place]) else mixes_rows("adds rows to a batch")
    if mode == "wrap":
        raise mixes("repeats the sequence at its edges")
    time = _alone(x, place, "adds steps to an axis that is also one of features")
    wide = Time(time.rate, time.shift - before, time.extra + before + after)
    far = {"constant": 0, "edge": 1, "reflect": 2}[mode]
    ahead, back = (-(-far * max(0, n) // time.rate) for n in (before, after))
    repeats = mode == "edge" and before > 0 and time.shift == 0
    return replace(x, axes=put(x.axes, place, (wide,)), back=x.back + back, ahead=x.ahead + ahead, repeats=repeats)


@rule("CenterCropPad", says="local where it cuts features")
def crop(call: Call) -> Value:
    x, wanted = call.value(), call.numbers("shape", 1) or []
    axes = [axis % len(x.axes) for axis in call.attributes.get("axes", range(len(x.axes)))]
    for axis, count in zip(axes, wanted, strict=True):
        if count != length(x.axes[axis]):
            if whole(x.axes[axis]) is None or isinstance(count, Size):
                raise unknown("cuts or adds steps")
            x = rearranged(x, put(x.axes, axis, plain(int(count))))
    return x


@rule("ReverseSequence", says="local over features; mixes over steps")
def reverse(call: Call) -> Value:
    x = call.value()
    time, rows = call.attributes.get("time_axis", 0), call.attributes.get("batch_axis", 1)
    lengths = call.value(1)
    if has_time(x.axes[time]) or has_rows(x.axes[time]):
        over(x, [time], "reverses the order")
    if lengths.live:
        raise unknown("reverses as much as the data say")
    assert rows < len(x.axes)
    return joined([x, replace(lengths, number=None, varies="")], x.axes)


@rule("OneHot")
def one_hot(call: Call) -> Value:
    index, depth = call.value(0), call.number(1)
    if depth is None or isinstance(depth.flat[0], Size):
        raise unknown("has a number of classes that cannot be told from the file")
    rank = len(index.axes) + 1
    place = call.axis(-1, rank=rank)
    axes = (*index.axes[:place], plain(int(np.ravel(depth)[0])), *index.axes[place:])
    return joined([replace(index, number=None), call.value(2)], axes)


@rule("Trilu", says="local over features; mixes over steps")
def triangle(call: Call) -> Value:
    x = call.value()
    if any(has_time(axis) or has_rows(axis) for axis in x.axes[-2:]):
        if x.live:
            raise unknown("keeps a triangle of an axis of steps or sequences")
        return replace(x, varies=x.varies or COUNTED, number=None, name="")
    return joined([x], x.axes)


@rule("Resize", "Upsample", says="local over features, and where each step is repeated; mixes over steps otherwise")
def resize(call: Call) -> Value:
    x = call.value()
    axes = call.attributes.get("axes", list(range(len(x.axes))))
    sizes = call.numbers("sizes", 3)
    scales = call.numbers("scales", 1 if call.node.op_type == "Upsample" or call.opset < 11 else 2)
    if call.attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise unknown("keeps the ratio of its sides")
    for i, axis in enumerate(axes):
        new = sizes[i] if sizes else _scaled(x, axis, (scales or [])[i])
        if new == length(x.axes[axis]):
            continue
        times = _repeated(call, x.axes[axis], sizes[i] if sizes else (scales or [])[i])
        if times:
            x = replace(x, axes=put(x.axes, axis, merged((*x.axes[axis], times))))
            continue
        over(x, [axis], "resamples")
        if isinstance(new, Size):
            raise unknown("makes as many elements as there are steps or sequences")
        x = replace(x, axes=put(x.axes, axis, plain(int(new))))
    return joined([x], x.axes)


def _repeated(call: Call, axis: Axis, given: Any) -> int:  # noqa: ANN401 # a size, or by how much
    """How often each element along an axis of steps or rows is repeated; 0 where it is anything else."""
    mode = call.attributes.get("mode", b"nearest")
    where = call.attributes.get("coordinate_transformation_mode", b"half_pixel")
    nearest = call.attributes.get("nearest_mode", b"round_prefer_floor")
    plain_floor = call.opset < 11 or (where, nearest) == (b"asymmetric", b"floor")
    middles = where == b"half_pixel" and nearest in (b"round_prefer_floor", b"round_prefer_ceil")
    if whole(axis) is not None or mode != b"nearest" or not (plain_floor or middles):
        return 0
    times = quotient(given, length(axis)) if isinstance(given, Size) else given
    return int(times) if isinstance(times, int | float | np.number) and times == int(times) > 1 else 0


def _scaled(x: Value, axis: int, scale: float) -> Size | int:
    count = whole(x.axes[axis])
    if scale == 1:
        return length(x.axes[axis])
    return -1 if count is None else int(np.floor(count * scale))
