"""Operators that compute over whole axes: reductions, choices among elements, sums along an axis, normalisations."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf

import numpy as np

from stepgraph.graphs.labels import label, name_of
from stepgraph.rules.axes import ROWS, Axes, has_rows, has_time, plain
from stepgraph.rules.table import Call, over, put, rule
from stepgraph.rules.value import COUNTED, Finding, Value, joined, unknown

_OVER = "local over features; mixes over steps or rows"
_VERBS = {
    "ReduceL1": "takes the norm",
    "ReduceL2": "takes the norm",
    "ReduceLogSum": "sums",
    "ReduceLogSumExp": "sums",
    "ReduceMax": "takes the maximum",
    "ReduceMean": "averages",
    "ReduceMin": "takes the minimum",
    "ReduceProd": "multiplies",
    "ReduceSum": "sums",
    "ReduceSumSquare": "sums squares",
}
_GLOBAL = {"GlobalAveragePool": "averages", "GlobalMaxPool": "takes the maximum", "GlobalLpPool": "takes the norm"}


@rule(*_VERBS, says=_OVER)
def reduction(call: Call) -> Value:
    x, axes = call.value(), call.axes()
    if axes is None or not axes:
        axes = [] if call.attributes.get("noop_with_empty_axes", 0) else list(range(len(x.axes)))
    over(x, axes, _VERBS[call.node.op_type])
    return joined([x], _without(x.axes, axes, bool(call.attributes.get("keepdims", 1))))


@rule("ArgMax", "ArgMin", says=_OVER)
def best(call: Call) -> Value:
    x, axis = call.value(), call.axis()
    over(x, [axis], "chooses")
    return joined([x], _without(x.axes, [axis], bool(call.attributes.get("keepdims", 1))))


@rule(*_GLOBAL, says=_OVER)
def global_pool(call: Call) -> Value:
    x = call.value()
    axes = range(2, len(x.axes))
    over(x, axes, _GLOBAL[call.node.op_type])
    return joined([x], _without(x.axes, axes, keep=True))


@rule("Softmax", "LogSoftmax", "Hardmax", says=_OVER)
def normalised_choice(call: Call) -> Value:
    """Along one axis; before version 13 along all axes from it on."""
    x = call.value()
    axis = call.axis(-1 if call.opset >= 13 else 1)
    over(x, [axis] if call.opset >= 13 else range(axis, len(x.axes)), "weighs")
    return joined([x], x.axes)


@rule("TopK", says=_OVER)
def top(call: Call) -> list[Value]:
    x, axis = call.value(), call.axis(-1)
    over(x, [axis], "chooses")
    count = call.numbers("k", 1)
    alike = x.number is not None and x.number.ndim == 0 and not x.live
    if alike and count == [*x.shape] and x.axes in (((),), ((ROWS,),)):  # as lengths of whole sequences: in their order
        return [x, Value(x.axes, ramp=np.array([0])) if x.axes[0] else Value(x.axes, number=np.zeros(1, object))]
    if count is None or not isinstance(count[0], int | np.integer):
        raise unknown("chooses a number of elements that cannot be told from the file")
    chosen = joined([x], put(x.axes, axis, plain(int(count[0]))))
    return [chosen, chosen]


@rule("CumSum", "CumProd", says="local over features; over steps its last result is a state; mixes over rows")
def running_sum(call: Call) -> Value:
    x, axis = call.value(), call.axes(1, "axis")
    if axis is None:
        raise unknown("sums along an axis that cannot be told from the file")
    verb = "sums up" if call.node.op_type == "CumSum" else "multiplies up"
    words = f"{verb} from step to step, which is a state outside of the cells,"
    backwards = call.attributes.get("exclusive", 0) or call.attributes.get("reverse", 0)
    if not x.live or backwards or not all(has_time(x.axes[i]) and not has_rows(x.axes[i]) for i in axis):
        over(x, axis, words)
        return _by_place(joined([x], x.axes), axis)
    finding = Finding("mixes", name_of(call.node), label(call.node), f"{words} over all steps")
    return replace(joined([x], x.axes), back=inf, reaching=x.reaching or finding)


@rule("LayerNormalization", "RMSNormalization", says=_OVER)
def layer_normalisation(call: Call) -> list[Value]:
    x, axis = call.value(), call.axis(-1)
    axes = range(axis, len(x.axes))
    over(x, axes, "normalises")
    whole = joined(call.all, x.axes)
    return [whole, *[joined([x], _without(x.axes, axes, keep=True))] * 2]


_NORMALISED: dict[str, Callable[[Call], Sequence[int]]] = {
    "GroupNormalization": lambda call: range(1, len(call.value().axes)),
    "InstanceNormalization": lambda call: range(2, len(call.value().axes)),
    "LRN": lambda _: [1],
    "LpNormalization": lambda call: [call.axis(-1)],
    "MeanVarianceNormalization": lambda call: [
        axis % len(call.value().axes) for axis in call.attributes.get("axes", (0, 2, 3))
    ],
}


@rule(*_NORMALISED, says=_OVER)
def normalisation(call: Call) -> Value:
    over(call.value(), _NORMALISED[call.node.op_type](call), "normalises")
    return joined(call.all, call.value().axes)


@rule("Det", says=_OVER)
def determinant(call: Call) -> Value:
    x = call.value()
    axes = range(len(x.axes) - 2, len(x.axes))
    over(x, axes, "takes the determinant")
    return joined([x], _without(x.axes, axes, keep=False))


@rule("DFT", says=_OVER)
def transform(call: Call) -> Value:
    x = call.value()
    axis = call.axis(1) if call.opset < 20 else (call.axes(2, "axis") or [len(x.axes) - 2])[0]
    over(x, [axis], "takes the spectrum")
    if call.attributes.get("onesided") or call.given(1) is not None:
        raise unknown("takes a part of a spectrum")
    return joined([x], put(x.axes, len(x.axes) - 1, plain(2)))


@rule("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss", says=_OVER)
def loss(call: Call) -> list[Value]:
    x = call.value()
    over(x, [1], "weighs")
    each = (x.axes[0], *x.axes[2:])
    if call.attributes.get("reduction", b"mean") != b"none":
        over(x, range(len(x.axes)), "averages")
        each = ()
    return [joined(call.all, each), joined([x], x.axes)]


def _by_place(value: Value, axes: Sequence[int]) -> Value:
    """A constant summed up along its steps depends on their number."""
    if value.live or not any(axis for axis in (value.axes[i] for i in axes)):
        return value
    return replace(value, varies=value.varies or COUNTED)


def _without(axes: Axes, gone: Sequence[int], keep: bool) -> Axes:
    if keep:
        return tuple(() if i in gone else axis for i, axis in enumerate(axes))
    return tuple(axis for i, axis in enumerate(axes) if i not in gone)
