"""What depends on the number of the step and on no data, in one step: counts, sums of constants, places of a table."""

from collections.abc import Sequence

import numpy as np

from stepgraph.rewriting.rings import Count, Form
from stepgraph.rings import sums
from stepgraph.rings.span import place_of
from stepgraph.rules.axes import Time, time_of
from stepgraph.rules.picks import bound
from stepgraph.rules.table import Call, whole
from stepgraph.rules.value import COUNTED, Value


def form(call: Call, results: Sequence[Value]) -> Form | None:
    """How such a node is written; None if it does not depend on the step, or is not known."""
    made = results[0]
    place, time = place_of(made), time_of(made.axes)
    if made.live or made.varies != COUNTED or place is None or time is None or time != Time(time.rate):
        return None
    if made.axes[place] != (time,):
        return None
    match call.node.op_type:
        case "Range":
            return _counting(call, time)
        case "Slice":
            return _of_table(call, made, place, time)
        case "CumSum":
            return _summed(call, made, place, time)
    return None


def _counting(call: Call, time: Time) -> Form | None:
    start, by = call.number(0), call.number(2)
    if start is None or by is None or not all(_is_whole(n.item()) for n in (start, by)):
        return None
    return Form(count=Count(int(start.item()), int(by.item()), time.rate))


def _is_whole(number: object) -> bool:
    return isinstance(number, int | float | np.number) and number == int(number)


def _of_table(call: Call, made: Value, place: int, time: Time) -> Form | None:
    """As many places of a table as there are steps."""
    starts, axes = call.numbers("starts", 1) or [], call.numbers("axes", 3)
    if len(starts) != 1 or (axes is not None and int(axes[0]) % len(made.axes) != place):
        return None
    first = bound(starts[0], call.value().axes[place])
    known = isinstance(first, int) and whole(call.value().axes[place]) is not None
    return Form(count=Count(int(first), 1, time.rate, place)) if isinstance(first, int) and known else None


def _summed(call: Call, made: Value, place: int, time: Time) -> Form | None:
    plain = not (call.attributes.get("exclusive", 0) or call.attributes.get("reverse", 0))
    return sums.upon(call, made, place, time) if plain and call.axes(1, "axis") == [place] else None
