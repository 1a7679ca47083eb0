"""What moves elements along time, in one step: lags, differences, windows of the last elements."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stepgraph.rewriting.rings import Form, Span
from stepgraph.rings.elementwise import beside
from stepgraph.rings.span import place_of, span, steps_of
from stepgraph.rings.windows import as_it_is, reach
from stepgraph.rules.axes import ROWS, TIME, Time, begun_later, has_time, length, time_of
from stepgraph.rules.picks import bound
from stepgraph.rules.size import Size
from stepgraph.rules.table import Call, whole
from stepgraph.rules.value import Value, mixes, unknown
from stepgraph.rules.windows import Window

_END = 2**31 - 1


def _delayed(call: Call, index: int, result: Value, outside: float | None = None) -> tuple[Span, ...]:
    """The elements of an input that stand where those of the step stand in the result.

    `outside`: what stands before them, where they begin later than the first step and the result does not.
    """
    value = call.value(index)
    own, made = time_of(value.axes), time_of(result.axes)
    settled = time_of(result.settled().axes)
    place = place_of(value)
    if own is None or made is None or settled is None or place is None:
        return ()
    since = 0 if outside is None else own.shift
    if made.shift == settled.shift and not since:
        return ()
    first = made.shift - settled.shift
    return (span(call, index, place, first, first + own.rate - 1, outside or 0.0, since),)


def _moved(call: Call, results: Sequence[Value], index: int, before: float | None) -> Form:
    """A node that only moves the elements of one input along time, and puts such numbers before them."""
    value, made = call.value(index), results[0]
    own, after = time_of(value.axes), time_of(made.axes)
    late = bool(own and after and own.shift > max(0, after.shift))
    if late and before is None:
        raise mixes("adds steps before what begins later than the first step")
    return Form(_delayed(call, index, made, before if late else None), instead=index)


def padded(call: Call, results: Sequence[Value]) -> Form | None:
    pads = [int(n) for n in call.numbers("pads", 1) or []]
    axes = call.numbers("axes", 3) or list(range(len(call.value().axes)))
    place = None if call.attributes.get("mode") in (b"reflect", b"wrap") else place_of(call.value())
    at = [i for i, axis in enumerate(axes) if int(axis) % len(call.value().axes) == place]
    if place is None or not any(pads[i] or pads[i + len(axes)] for i in at):
        return None
    kept = [0 if i % len(axes) in at else n for i, n in enumerate(pads)]
    moved = _moved(call, results, 0, _padding(call))
    if not any(kept):
        return moved
    if "pads" in call.attributes:
        return replace(moved, instead=None, attributes={"pads": kept})
    return replace(moved, instead=None, constants={1: np.array(kept, np.int64)})


def _padding(call: Call) -> float | None:
    """The number that is padded with, if there is one."""
    if call.attributes.get("mode", b"constant") != b"constant":
        return None
    value = call.attributes.get("value", 0.0) if call.given(2) is None else call.number(2)
    return None if value is None else float(np.ravel(np.asarray(value, float))[0])


def cut(call: Call, results: Sequence[Value]) -> Form | None:
    x, made = call.value(), results[0]
    place = place_of(x)
    starts, ends = (list(call.numbers(name, i) or []) for i, name in ((1, "starts"), (2, "ends")))
    axes = [int(axis) % len(x.axes) for axis in call.numbers("axes", 3) or range(len(starts))]
    strides = [int(n) for n in call.numbers("steps", 4) or [1] * len(starts)]
    if place is None or place not in axes or (not x.live and not has_time(made.axes[place])):
        return None
    at = axes.index(place)
    if has_time(made.axes[place]) and strides[at] == 1:
        spans = _delayed(call, 0, made)
        if made.axes[place] == x.axes[place] and not spans:
            return None
    elif has_time(made.axes[place]):
        first = bound(starts[at], x.axes[place])
        assert isinstance(first, int)
        window = Window(1, strides[at], 1, -first, 0)
        low, high = reach(x, made, place, window)
        if low >= 0 and as_it_is(x, made, Window(1, 1, 1, 0, 0), low):
            return None
        spans = (span(call, 0, place, low, high),)
    else:
        (last,) = _ending(call, place, bound(starts[at], x.axes[place]), whole(made.axes[place]) or 1, fewer=True)
        spans = (last,)
    return _bounded(call, spans, at, starts, ends, strides)


def _bounded(
    call: Call, spans: tuple[Span, ...], at: int, starts: list[Any], ends: list[Any], strides: list[int]
) -> Form | None:
    """A Slice that takes all of the elements of its axis of time, which is the `at`th of its axes."""
    if len(starts) == 1 and strides[at] == 1:
        return Form(spans, instead=0)
    starts[at], ends[at] = 0, _END
    if any(isinstance(n, Size) for n in (*starts, *ends)):
        raise unknown("cuts steps and other axes at places that depend on their number")
    bounds = [[int(n) for n in some] for some in (starts, ends)]
    if "starts" in call.attributes:
        return Form(spans, attributes=dict(zip(("starts", "ends"), bounds, strict=True)))
    return Form(spans, constants={i: np.array(some, np.int64) for i, some in enumerate(bounds, 1)})


def _ending(call: Call, place: int, first: Size | int, count: int, fewer: bool = False) -> tuple[Span, ...]:
    """The elements from `first` on, a place that is counted from the end, at the step that is the last.

    `fewer`: where the first steps have fewer of them, they are given fewer.
    """
    time = steps_of(call.value(), place)
    low = first - length(time) + time.rate + time.extra + time.shift  # from the first of the step's own
    if isinstance(low, Size):
        raise unknown("picks steps that cannot be told from the file")
    made = span(call, 0, place, low, low + count - 1)
    early = low < (0 if begun_later(call.value().axes[place]) else time.shift)  # before the first that is answered
    if early and fewer and call.opset >= 10 and whole(call.value().axes[place]) is None:
        return (replace(made, there=time.shift),)
    if early:
        raise mixes(f"looks back at the last {count} elements, and the first steps of a sequence have fewer of them")
    return (made,)


def gathered(call: Call, results: Sequence[Value]) -> Form | None:
    x, place = call.value(), call.axis(0)
    ramp = call.value(1).ramp
    if ramp is not None and x.live and has_time(x.axes[place]):
        return _windowed(call, results[0], ramp)
    picked = call.number(1) if x.live and has_time(x.axes[place]) else None
    if picked is None or picked.size != 1:
        return beside(call, results)
    (span,) = _ending(call, place, bound(picked.item(), x.axes[place]), 1)
    if span.first == span.own - 1 and not span.begun and x.axes[place] == (Time(span.own),):
        return None
    return Form((span,), constants={1: np.zeros(picked.shape, np.int64)})


def first(call: Call) -> Form | None:
    """The first step of a sequence, which is held from then on."""
    x = call.value()
    place = place_of(x)
    if place is None or x.axes[place] != (TIME,) or x.last or any(ROWS in axis and len(axis) > 1 for axis in x.axes):
        return None
    held = replace(span(call, 0, place, -1, -1), repeats=True, held=True)
    match call.node.op_type:
        case "Gather" if call.axis(0) == place and (picked := call.number(1)) is not None and picked.size == 1:
            return Form((held,), constants={1: np.zeros(picked.shape, np.int64)}) if picked.item() == 0 else None
        case "Slice":
            bounds = [call.numbers(name, i) for i, name in ((1, "starts"), (2, "ends"))]
            return Form((held,), instead=0) if bounds == [[0], [1]] else None
    return None


def _windowed(call: Call, made: Value, ramp: np.ndarray) -> Form:
    """A window of several elements for each step, by places that count along the steps."""
    place, time, after = call.axis(0), time_of(call.value().axes), time_of(made.axes)
    assert time is not None
    assert after is not None
    places = ramp + time.shift - after.shift
    low, high = int(places.min()), int(places.max())
    return Form((span(call, 0, place, low, high),), constants={1: places.astype(np.int64) - low})


def joined(call: Call, results: Sequence[Value]) -> Form | None:
    place = call.axis(0)
    timed = [i for i, part in enumerate(call.inputs) if part and has_time(part.axes[place])]
    if not timed or len(call.inputs) == 1:
        return beside(call, results)
    (index,) = timed
    if results[0].repeats and call.value().first:
        moved = _moved(call, results, index, None)
        return replace(moved, spans=tuple(replace(span, repeats=True) for span in moved.spans))
    if any(part.live for i, part in enumerate(call.inputs) if part and i != index):
        return None
    before = [call.number(i) for i in range(index) if call.given(i)]
    values = {float(number) for array in before if array is not None for number in array.flat}
    known = len(values) == 1 and all(array is not None for array in before)
    return _moved(call, results, index, values.pop() if known else None)
