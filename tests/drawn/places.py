"""Operators that pick or write elements by places, and one that lays blocks over one another, put on a drawn tensor."""

from __future__ import annotations

from onnx import TensorProto, helper

from tests.drawn.graphs import Drawing, NotHere
from tests.drawn.operators import any_axis, listed, pick, plain_axis, puts, turned


@puts("Compress")
def kept(d: Drawing) -> str:
    x = pick(d, 1)
    axis = plain_axis(d, x)
    picked = d.random.random(d.sized(x, axis)) < 0.7
    picked[0] = True
    return d.op("Compress", x, d.constant(picked, "bool"), axis=axis)


@puts("NonZero")
def counted(d: Drawing) -> str:
    """The places along an axis, as exporters count them, and what stands there."""
    x = pick(d, 1)
    axis = any_axis(d, x)
    size = d.op("Gather", d.op("Shape", x), d.whole([axis]))
    ones = d.op("ConstantOfShape", size, value=helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]))
    places = listed(d, "Squeeze", d.op("Transpose", d.op("NonZero", ones)), "axes", [1], 13)
    return d.op("Gather", x, places, axis=axis)


@puts("Unique")
def different(d: Drawing) -> str:
    x = pick(d, 1)
    axis = plain_axis(d, x)
    places = d.whole([d.number(0, d.sized(x, axis) - 1) for _ in range(3)])
    return d.op("Gather", x, d.op("Unique", places), axis=axis)


@puts("TensorScatter")
def written(d: Drawing) -> str:
    x = pick(d, 3)
    if d.opset < 24:
        raise NotHere
    axis = d.number(1, len(d.axes(x)) - 1)
    first = d.op("Slice", d.op("Tanh", x), d.whole([0]), d.whole([1]), d.whole([axis]))
    if d.chance(0.5) or d.sized(x, axis) < 2:
        return d.op("TensorScatter", x, first, axis=axis)
    peak = d.op("ReduceMax", x, d.whole(list(range(1, len(d.axes(x))))), keepdims=0)
    place = d.op("Cast", d.op("Greater", peak, d.constant(1.0)), to=TensorProto.INT64)
    return d.op("TensorScatter", x, first, place, axis=axis)


@puts("Col2Im")
def overlapped(d: Drawing) -> str:
    x = turned(d, pick(d, 3))
    if d.opset < 18 or len(d.axes(x)) != 3:
        raise NotHere
    n = d.sized(x, 1)
    kernel, stride = int(d.of(*(k for k in range(1, n + 1) if n % k == 0))), d.number(1, 2)
    before, more = d.number(0, min(1, kernel - 1)), d.number(0, stride - 1)
    count = d.op("Gather", d.op("Shape", x), d.whole([2]))
    size = d.op("Add", d.op("Mul", count, d.whole([stride])), d.whole([kernel - stride - before + more]))
    shape = d.op("Concat", d.whole([1]), size, axis=0)
    block = d.whole([1, kernel])
    return d.op("Col2Im", x, shape, block, strides=[1, stride], pads=[0, before, 0, 0])


def masked(d: Drawing) -> str:
    """The elements whose place is below a length, or one near it."""
    x = pick(d, 1)
    axis = any_axis(d, x)
    size = d.op("Gather", d.op("Shape", x), d.whole(axis))
    line = d.op("Add", d.op("Range", d.whole(0), size, d.whole(1)), d.whole(d.number(-1, 1)))
    other = d.op("Add", size, d.whole(d.number(-1, 1))) if d.chance(0.7) else d.whole(d.number(-2, 2))
    operator = d.of("Less", "Greater", *(("LessOrEqual", "GreaterOrEqual") if d.opset > 11 else ()))
    mask = d.op(operator, line, other) if d.chance(0.5) else d.op(operator, other, line)
    order = [*(i for i in range(len(d.axes(x))) if i != axis), axis]
    x = d.op("Transpose", x, perm=order)
    return d.op("Where", mask, x, d.op("Cos", x))
