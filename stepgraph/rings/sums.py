"""Sums and products over all steps so far, in one step: the last of them is state."""

from collections.abc import Sequence
from dataclasses import replace

from stepgraph.rewriting.rings import OWN, Form
from stepgraph.rings.elementwise import beside
from stepgraph.rings.span import place_of, span_of
from stepgraph.rules.axes import Time, time_of
from stepgraph.rules.table import Call
from stepgraph.rules.value import Value, unknown

JOINING = {"CumSum": ("Add", 0.0), "CumProd": ("Mul", 1.0)}  # with what is joined to the first step


def upon_the_last(call: Call, results: Sequence[Value]) -> Form | None:
    """A node whose result at a step is made of the step and of its own result before."""
    made = results[0]
    if not made.reaching:
        return beside(call, results)
    place, time = place_of(made), time_of(made.axes)
    if place is None or time is None or time.extra or time.shift:
        raise unknown("sums what has more or fewer elements than there are steps")
    return upon(call, made, place, time)


def upon(call: Call, made: Value, place: int, time: Time) -> Form:
    operator, start = JOINING[call.node.op_type]
    last = span_of(replace(made, reaching=None), OWN, place, -1, time.rate - 1, start)
    return Form((last,), upon=operator)
