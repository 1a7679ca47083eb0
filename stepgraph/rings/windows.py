"""Convolutions, pools and spectra of one step: their windows begin in the steps before."""

import math
from collections.abc import Sequence

from stepgraph.rewriting.rings import Form
from stepgraph.rings.span import place_of, span, steps_of
from stepgraph.rules import windows
from stepgraph.rules.axes import time_of
from stepgraph.rules.table import Call, whole
from stepgraph.rules.value import Value
from stepgraph.rules.windows import Window


def window(call: Call, results: Sequence[Value]) -> Form | None:
    of, made = call.node.op_type, results[0]
    place = place_of(call.value())
    if place is None or place < 2:
        return None
    weight = call.given(3 if of == "QLinearConv" else 1) if "Conv" in of else None
    kernel = [whole(axis) or 1 for axis in weight.axes[2:]] if weight else call.attributes["kernel_shape"]
    slid = windows.all_of(call, kernel)
    window = slid[place - 2]
    first, last = reach(call.value(), made, place, window)
    outside = _outside(call, window)
    if as_it_is(call.value(), made, window, first) or outside is None:
        return None
    time = time_of(call.value().axes)
    since = time.shift if window.before and time and time.shift > 0 else 0
    before, after = ([0 if i == place - 2 else getattr(w, side) for i, w in enumerate(slid)] for side in _SIDES)
    return Form(
        (span(call, 0, place, first, last, outside, since),), attributes={"pads": [*before, *after], "auto_pad": None}
    )


_SIDES = ("before", "after")


def reach(x: Value, made: Value, place: int, window: Window) -> tuple[int, int]:
    """From which element to which the windows of a step go."""
    time, after = steps_of(x, place), steps_of(made, place)
    first = time.shift - after.shift * window.stride - window.before
    return first, first + (after.rate - 1) * window.stride + window.span


def as_it_is(x: Value, made: Value, window: Window, first: int) -> bool:
    """Whether a node does within a step what it does in the file."""
    times = [time_of(value.axes) for value in (x, made)]
    return first >= 0 and not (window.before or window.after) and all(t and not t.shift and not t.extra for t in times)


def _outside(call: Call, window: Window) -> float | None:
    """What the node pads the axis of time with; None if it cannot be told, or is counted as none."""
    match call.node.op_type:
        case "MaxPool":
            return -math.inf
        case "AveragePool" if window.before and not call.attributes.get("count_include_pad", 0):
            return None
        case "ConvInteger" | "QLinearConv" if call.given(2) is not None:
            zero = call.number(2)
            return None if zero is None else float(zero.item())
    return 0.0


def spread(call: Call, results: Sequence[Value]) -> Form | None:
    """A window that each element spreads itself over (ConvTranspose)."""
    x, weight, made = call.value(), call.value(1), results[0]
    place = place_of(x)
    if place is None or place < 2:
        return None
    slid = windows.all_of(call, [whole(axis) or 1 for axis in weight.axes[2:]])
    window = slid[place - 2]
    added = list(call.attributes.get("output_padding", [0] * len(slid)))
    time, after = steps_of(x, place), steps_of(made, place)
    if window.span == 0 and window.stride == 1 and not (window.before or window.after or added[place - 2]):
        return None
    begin = window.before - after.shift  # where the step's own begin among all that is spread
    first = -((window.span - begin) // window.stride) + time.shift
    last = (after.rate - 1 + begin) // window.stride + time.shift
    start = begin - window.stride * (first - time.shift)
    added[place - 2] = 0
    before, after_ = ([0 if i == place - 2 else getattr(w, side) for i, w in enumerate(slid)] for side in _SIDES)
    pads = {"pads": [*before, *after_], "auto_pad": None, "output_padding": added}
    return Form((span(call, 0, place, first, last),), attributes=pads, cut=(place, start, after.rate))


def spectra(call: Call, results: Sequence[Value]) -> Form | None:
    window = windows.of_spectra(call)
    place = place_of(call.value())
    if place != 1 or window is None:
        return None
    first, last = reach(call.value(), results[0], place, window)
    if as_it_is(call.value(), results[0], window, first):
        return None
    return Form((span(call, 0, place, first, last),))
