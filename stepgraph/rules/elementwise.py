"""Operators that compute each element from those at the same place, with broadcasting."""

from dataclasses import replace

import numpy as np

from stepgraph.rules.axes import has_rows, has_time
from stepgraph.rules.table import OWN, Call, over, rule
from stepgraph.rules.value import Value, broadcast, joined, random, unknown

_ONE = (
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish "
    "IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign "
    "Sqrt Swish Tan Tanh ThresholdedRelu"
)
_MANY = (
    "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Clip Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean "
    "Min Mod Mul Or PRelu Pow Sub Sum SwiGLU Where Xor"
)
_CONTRIB = "BiasGelu FastGelu QLinearAdd QLinearLeakyRelu QLinearMul QLinearSigmoid QuickGelu"  # onnxruntime's own
_FIXED = "has a scale for each of a fixed number of steps or sequences"


@rule(_ONE, _MANY)
@rule(_CONTRIB, domain=OWN)
def elementwise(call: Call) -> Value:
    zero = call.node.op_type == "Mul" and any(_is_zero(call, i) for i in (0, 1))
    axes = broadcast(call.all)
    if zero:  # exporters write the zeros that a cell starts from like this
        return Value(axes, number=np.array(0))
    return joined(call.all, axes)


def _is_zero(call: Call, index: int) -> bool:
    value = call.value(index)
    number = value.number if value.number is not None and value.number.ndim == 0 else call.number(index)
    return number is not None and number.size > 0 and not np.any(number)


@rule("Cast", "Identity", "CastLike", lists=True)
def unchanged(call: Call) -> Value:
    return replace(call.value(), name="" if call.node.op_type != "Identity" else call.value().name)


@rule("Dropout", says="local in time; random where it is left in training mode")
def dropout(call: Call) -> list[Value]:
    mode = call.number(2)
    if call.given(2) is not None and (mode is None or bool(mode.item())):
        raise random()
    return [replace(call.value(), name=""), Value(call.value().axes)]


@rule("BitCast")
def bit_cast(call: Call) -> Value:
    return joined(call.all, call.value().axes)


@rule("QuantizeLinear", "DequantizeLinear")
def quantised(call: Call) -> Value:
    """With scales that are the same everywhere, or for each place of one axis, or for blocks of it."""
    x, parameters = call.value(), call.all[1:]
    if any(value.live for value in parameters):
        return joined(call.all, broadcast(call.all)) if all(_single(v) for v in parameters) else _unlike()
    axis = call.axis(1) if any(value.axes for value in parameters) else None
    each = axis is not None and axis < len(x.axes) and any(not _single(value) for value in parameters)
    if each and axis is not None and (has_time(x.axes[axis]) or has_rows(x.axes[axis])):
        raise unknown(_FIXED)
    return joined([x, *parameters], x.axes)


def _single(value: Value) -> bool:
    return all(axis == () for axis in value.axes)


def _unlike() -> Value:
    raise unknown("takes scales that depend on the data")


@rule("DynamicQuantizeLinear", says="mixes steps and rows, where it is over more than one of them")
def rounded_by_range(call: Call) -> list[Value]:
    x = call.value()
    over(x, range(len(x.axes)), "rounds by the range")
    y = joined([x], x.axes)
    scale = joined([x], ())
    return [y, scale, scale]


@rule("BatchNormalization", says="local in time; mixes steps and rows in training mode")
def batch_normalisation(call: Call) -> Value:
    x = call.value()
    if call.attributes.get("training_mode", 0):
        over(x, [i for i in range(len(x.axes)) if i != 1], "normalises")
    if len(x.axes) > 1 and (has_time(x.axes[1]) or has_rows(x.axes[1])):
        raise unknown(_FIXED)
    return joined(call.all, x.axes)
