"""Cells: what carries a state from step to step."""

from dataclasses import replace
from math import inf

from stepgraph.cells import causal_conv, linear_attention
from stepgraph.cells.kinds import OPERATORS, operator_of
from stepgraph.rules.axes import Axes, Axis, Time, begun_later, has_rows, has_time, plain
from stepgraph.rules.size import STEPS, size
from stepgraph.rules.table import OWN, Call, rule, whole
from stepgraph.rules.value import Value, joined, mixes, mixes_rows, unknown

_CELL = "recurrence: its state is carried from step to step; backwards it mixes"


@rule(*(name for name, operator in OPERATORS.items() if operator.step and not operator.domain), says=_CELL)
@rule(*(name for name, operator in OPERATORS.items() if operator.domain == OWN), says=_CELL, domain=OWN)
def cell(call: Call) -> list[Value]:
    x = call.value()
    second = call.attributes.get("layout", 0)
    steps, rows = x.axes[second], x.axes[1 - second]
    operator = operator_of(call.node)
    assert operator is not None
    by_name = {name: call.given(i) for i, name in enumerate(operator.inputs)}
    states = [value for name in operator.initial if (value := by_name.get(name)) is not None]
    lengths = by_name.pop("sequence_lens", None)
    if any(value.live for name, value in by_name.items() if value and name not in ("X", *operator.initial)):
        raise unknown("has weights that depend on the data")
    directions = 2 if call.attributes.get("direction") == b"bidirectional" else 1
    hidden = plain(int(call.attributes.get("hidden_size") or whole(call.value(2).axes[2]) or 1))
    each = (steps, plain(directions), rows, hidden) if not second else (rows, steps, plain(directions), hidden)
    end = (plain(directions), rows, hidden) if not second else (rows, plain(directions), hidden)
    if not has_time(steps):
        if has_rows(steps):
            raise mixes_rows("runs over the sequences of a batch")
        starts = [
            replace(value, given=frozenset(), number=None) for value in (*states, *([lengths] if lengths else []))
        ]
        return [joined([x, *starts], each), *[joined([x, *starts], end)] * len(operator.initial)]
    if not begun_later(steps):
        raise unknown(f"runs over an axis of steps and others ({_rate(steps)} for each step)")
    if call.attributes.get("direction", b"forward") != b"forward":
        raise mixes("runs backwards over the steps, so it needs those that have not come yet")
    _check_lengths(lengths)
    y = joined([x], each)
    names = [_start(value) for value in states] or [frozenset()]
    ends = frozenset[str]().union(*names)
    lasts = [replace(joined([replace(x, axes=())], ()), axes=end, last=True, ends=name) for name in names]
    lasts += [replace(lasts[0], ends=frozenset())] * (len(operator.initial) - len(lasts))
    return [replace(y, ends=ends if len(names) == 1 else names[0]), *lasts]


def _rate(axis: Axis) -> int:
    return next(factor.rate for factor in axis if isinstance(factor, Time))


def _check_lengths(lengths: Value | None) -> None:
    if lengths is None or (lengths.number is not None and all(n == size(STEPS) for n in lengths.number.flat)):
        return
    if lengths.live or lengths.varies or lengths.number is None or lengths.number.size:
        raise unknown("runs as many steps of each sequence as the data or the file say")


def _start(value: Value) -> frozenset[str]:
    """The states of the interface that a cell starts from; else it starts from what is the same for all.

    Or from what the first step computes, of itself or of an input beside the sequence.
    """
    if value.given:
        return value.given
    if value.live and value.last and value.back != inf:
        raise mixes("starts from the last step of the sequence, which has not come yet")
    if value.live and value.back == inf and value.ahead > 1:
        raise mixes("starts from more than the first step of the sequence, and the others have not come yet")
    if value.timed or (value.live and value.far and value.back != inf):
        raise unknown("starts from a state that depends on the data")
    if value.varies and "sequences" not in value.varies:
        raise unknown("starts from a state that depends on the data")
    return frozenset()


@rule(*(operator.name for operator in linear_attention.OPERATORS), says=_CELL)
def attention(call: Call) -> list[Value]:
    query, value = call.value(0), call.value(2)
    heads, count = call.attributes["kv_num_heads"], call.attributes["q_num_heads"]
    key, width = (whole(axis) or 1 for axis in (query.axes[2], value.axes[2]))
    y = plain(width // heads * count)
    memory = (query.axes[0], plain(heads), plain(key // count), plain(width // heads))
    return _carrying(call, 1, (*query.axes[:2], y), memory)


@rule(*(operator.name for operator in causal_conv.OPERATORS), says=_CELL)
def causal_convolution(call: Call) -> list[Value]:
    x, weight = call.value(0), call.value(1)
    if weight.live:
        raise unknown("has weights that depend on the data")
    if has_time(x.axes[1]) or has_rows(x.axes[1]):
        raise unknown("has a weight for each of a fixed number of steps or sequences")
    return _carrying(call, 2, x.axes, (*x.axes[:2], plain((whole(weight.axes[2]) or 1) - 1)))


def _carrying(call: Call, time: int, each: Axes, end: Axes) -> list[Value]:
    """The answer and the last state of a cell whose state is the input `past_state`."""
    steps, state = call.value().axes[time], call.given(3)
    taken = [value for i, value in enumerate(call.inputs) if value is not None and i != 3]
    if not has_time(steps):
        if has_rows(steps):
            raise mixes_rows("runs over the sequences of a batch")
        taken += [] if state is None else [replace(state, given=frozenset(), number=None, axes=())]
        return [joined(taken, each), joined(taken, end)]
    if not begun_later(steps):
        raise unknown("runs over an axis of steps and others")
    ends = frozenset[str]() if state is None else _start(state)
    y = joined(taken, each)
    return [y, replace(y, axes=end, last=True, ends=ends)]
