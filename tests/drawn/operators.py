"""How each operator with a rule is put on a tensor that was drawn: valid attributes and inputs, at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from tests.drawn.graphs import Drawing, NotHere

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OPERATORS: dict[str, Callable[[Drawing], str]] = {}

_PLAIN = (
    "Abs Ceil Cos Elu Erf Exp Floor Identity LeakyRelu Neg Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt "
    "Tan Tanh ThresholdedRelu Atan Sinh Asinh Cosh HardSigmoid HardSwish Celu Acos Asin Atanh Acosh Log Reciprocal "
    "Shrink Gelu Mish Swish"
)
_SINCE = {"Gelu": 20, "Mish": 18, "HardSwish": 14, "Celu": 12, "IsInf": 10, "Mod": 13, "CumProd": 26}
ONLY_IN = {"Scatter": 10, "Swish": 24, "Upsample": 9}  # the last version of the standard in which onnxruntime has it


def puts(*names: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """An operator, or several that are drawn alike: these take their name."""

    def add(function: Callable[..., str]) -> Callable[..., str]:
        for name in (each for some in names for each in some.split()):
            several = len(names[0].split()) > 1 or len(names) > 1
            OPERATORS[name] = _called(function, name) if several else function
        return function

    return add


def _called(function: Callable[..., str], name: str) -> Callable[[Drawing], str]:
    def put(d: Drawing) -> str:
        if d.opset < _SINCE.get(name, 7) or d.opset != ONLY_IN.get(name, d.opset):
            raise NotHere
        return function(d, name)

    return put


def pick(d: Drawing, rank: int = 0) -> str:
    """A tensor of at least so many axes."""
    fitting = [name for name in d.floats if len(d.axes(name)) >= rank]
    if not fitting:
        raise NotHere
    return str(fitting[max(d.number(0, len(fitting) - 1), d.number(0, len(fitting) - 1))])


def any_axis(d: Drawing, name: str) -> int:
    """Any axis, one of features more often."""
    rank = len(d.axes(name))
    plain = [i for i in range(rank) if is_plain(d, name, i)]
    return int(d.of(*plain)) if plain and d.chance(0.7) else d.number(0, rank - 1)


def is_plain(d: Drawing, name: str, axis: int) -> bool:
    try:
        return d.sized(name, axis) > 0
    except NotHere:
        return False


def plain_axis(d: Drawing, name: str) -> int:
    plain = [i for i in range(len(d.axes(name))) if is_plain(d, name, i)]
    if not plain:
        raise NotHere
    return int(d.of(*plain))


def listed(d: Drawing, operator: str, x: str, name: str, values: Sequence[int], since: int, **more: object) -> str:
    """A list that is an input since some version, and was an attribute before."""
    if d.opset >= since:
        return d.op(operator, x, d.whole(values), **more)
    return d.op(operator, x, **{name: list(values)}, **more)


def integers(d: Drawing, name: str, kind: int = TensorProto.INT32) -> str:
    return d.op("Cast", d.op("Clip", d.op("Round", name), d.constant(0.0), d.constant(3.0)), to=kind)


def floats(d: Drawing, name: str) -> str:
    return d.op("Cast", name, to=TensorProto.FLOAT)


@puts(_PLAIN)
def plain(d: Drawing, operator: str) -> str:
    x = pick(d)
    if operator in ("Log", "Sqrt", "Acosh", "Reciprocal"):
        x = d.op("Add", d.op("Abs", x), d.constant(1.0))
    if operator in ("Acos", "Asin", "Atanh", "Exp", "Sinh", "Cosh", "Tan"):
        x = d.op("Mul", d.op("Tanh", x), d.constant(0.9))
    return d.op(operator, x)


@puts("Add Sub Mul Div Max Min Mean Sum PRelu Pow")
def two(d: Drawing, operator: str) -> str:
    x, y = pick(d), pick(d)
    if d.chance(0.5):
        y = d.noise(*(1 if d.chance(0.5) or not is_plain(d, x, i) else d.sized(x, i) for i in range(len(d.axes(x)))))
    if operator in ("Div", "Pow"):
        y = d.op("Add", d.op("Abs", y), d.constant(1.0))
        x = d.op("Abs", x) if operator == "Pow" else x
        y = d.op("Min", y, d.constant(2.0)) if operator == "Pow" else y
    return d.op(operator, x, y) if d.chance(0.7) or operator == "PRelu" else d.op(operator, d.op("Tanh", x), y)


def other(d: Drawing, x: str) -> str:
    """A tensor to compare `x` with: compared with itself, it would be the same whatever it holds."""
    y = pick(d)
    return d.op("Cos", x) if y == x else y


@puts("Equal Less Greater LessOrEqual GreaterOrEqual And Or Xor")
def compared(d: Drawing, operator: str) -> str:
    if operator.endswith("OrEqual") and d.opset < 12:
        raise NotHere
    x = pick(d)
    y = other(d, x)
    if operator in ("And", "Or", "Xor"):
        x, y = (d.op("Greater", each, d.constant(0.0)) for each in (x, y))
    if operator == "Equal":
        x, y = d.op("Round", x), d.op("Round", y)
    return floats(d, d.op(operator, x, y))


@puts("BitwiseAnd BitwiseOr BitwiseXor BitShift Mod BitwiseNot")
def bits(d: Drawing, operator: str) -> str:
    if operator.startswith("Bitwise") and d.opset < 18:
        raise NotHere
    x = pick(d)
    x, y = (integers(d, each, TensorProto.UINT32) for each in (x, other(d, x)))
    if operator == "BitwiseNot":
        return floats(d, d.op("Cast", d.op(operator, x), to=TensorProto.INT32))
    if operator == "Mod":
        y = d.op("Add", y, d.constant(1, "uint32"))
    return floats(d, d.op(operator, x, y, **({"direction": "LEFT"} if operator == "BitShift" else {})))


@puts("Not IsNaN IsInf")
def tested(d: Drawing, operator: str) -> str:
    x = pick(d)
    x = {
        "Not": lambda: d.op("Greater", x, d.constant(0.0)),
        "IsNaN": lambda: d.op("Sqrt", x),
        "IsInf": lambda: d.op("Div", x, d.op("Relu", x)),
    }[operator]()
    return floats(d, d.op(operator, x))


@puts("Where")
def where(d: Drawing) -> str:
    return d.op(
        "Where", d.op("Greater", pick(d), d.constant(0.0)), pick(d), d.constant(0.5) if d.chance(0.5) else pick(d)
    )


@puts("Clip")
def clip(d: Drawing) -> str:
    return d.op("Clip", pick(d), d.constant(-1.0), d.constant(1.0)) if d.opset > 10 else d.op("Clip", pick(d), max=1.0)


@puts("BitCast")
def bits_as_they_are(d: Drawing) -> str:
    if d.opset < 26:
        raise NotHere
    return floats(d, d.op("BitCast", pick(d), to=TensorProto.INT32))


@puts("Cast CastLike")
def cast(d: Drawing, operator: str) -> str:
    if operator == "CastLike" and d.opset < 15:
        raise NotHere
    return floats(d, d.op("CastLike", pick(d), d.whole(1)) if operator == "CastLike" else integers(d, pick(d)))


@puts("Dropout")
def dropout(d: Drawing) -> str:
    return d.op("Dropout", pick(d))


@puts("QuantizeLinear DequantizeLinear DynamicQuantizeLinear")
def quantised(d: Drawing, operator: str) -> str:
    x = pick(d)
    if operator == "DynamicQuantizeLinear":
        return floats(d, d.op(operator, x, outputs=3))
    axis = any_axis(d, x)
    each = d.opset >= 13 and d.chance(0.5)
    count = d.sized(x, axis) if each else 1
    scale = d.constant(np.full(count, 0.1) if each else 0.1)
    zero = d.constant(np.zeros(count) if each else 0, "int8")
    q = d.op("QuantizeLinear", x, scale, zero, **({"axis": axis} if each else {}))
    return d.op("DequantizeLinear", q, scale, zero, **({"axis": axis} if each else {}))


@puts("BatchNormalization")
def batch_norm(d: Drawing) -> str:
    x = pick(d, 2)
    n = d.sized(x, 1)
    return d.op("BatchNormalization", x, d.noise(n), d.noise(n), d.noise(n), d.constant(np.ones(n)))


@puts(
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
)
def reduced(d: Drawing, operator: str) -> str:
    x = pick(d)
    axes = sorted({any_axis(d, x) for _ in range(d.number(1, 2))}) if d.axes(x) else []
    x = d.op("Add", d.op("Abs", x), d.constant(0.1)) if operator == "ReduceLogSum" else x
    return listed(d, operator, x, "axes", axes, 13 if operator == "ReduceSum" else 18, keepdims=d.number(0, 1))


@puts("ArgMax ArgMin")
def best(d: Drawing, operator: str) -> str:
    x = pick(d, 1)
    return floats(d, d.op(operator, x, axis=any_axis(d, x), keepdims=d.number(0, 1)))


@puts("GlobalAveragePool GlobalMaxPool GlobalLpPool")
def global_pool(d: Drawing, operator: str) -> str:
    if operator == "GlobalLpPool" and d.opset > 21:  # onnxruntime has it no more
        raise NotHere
    return d.op(operator, turned(d, pick(d, 3)))


@puts("Softmax LogSoftmax Hardmax LpNormalization")
def weighed(d: Drawing, operator: str) -> str:
    x = pick(d, 1)
    return d.op(operator, x, axis=any_axis(d, x))


@puts("TopK")
def top(d: Drawing) -> str:
    x = pick(d, 1)
    axis = any_axis(d, x)
    k = d.number(1, d.sized(x, axis)) if is_plain(d, x, axis) else 1
    return d.op("TopK", x, d.whole([k]), axis=axis, outputs=2)


@puts("CumSum CumProd")
def summed_up(d: Drawing, operator: str) -> str:
    x = pick(d, 1)
    return d.op(operator, x, d.whole(any_axis(d, x)), reverse=d.number(0, 1), exclusive=d.number(0, 1))


@puts("NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss")
def loss(d: Drawing, operator: str) -> str:
    x = turned(d, pick(d, 2))
    if d.opset < 13:
        raise NotHere
    most = listed(d, "ReduceMax", x, "axes", [1], 18, keepdims=0)
    label = d.op("Cast", d.op("Clip", most, d.constant(0.0), d.constant(d.sized(x, 1) - 1.0)), to=TensorProto.INT64)
    return d.op(operator, x, label, reduction=d.of("none", "none", "mean", "sum"))


@puts("LayerNormalization RMSNormalization")
def layer_norm(d: Drawing, operator: str) -> str:
    if d.opset < (17 if operator[0] == "L" else 23):
        raise NotHere
    x = pick(d, 1)
    last = len(d.axes(x)) - 1
    return d.op(operator, x, d.noise(d.sized(x, last) if is_plain(d, x, last) else 1), axis=-1)


@puts("InstanceNormalization GroupNormalization LRN MeanVarianceNormalization")
def normalised(d: Drawing, operator: str) -> str:
    x = turned(d, pick(d, 3))
    n = d.sized(x, 1)
    if operator == "LRN":
        if len(d.axes(x)) != 4:
            raise NotHere
        return d.op("LRN", x, size=3)
    if operator == "MeanVarianceNormalization":
        return d.op(operator, x, axes=[any_axis(d, x)])
    if operator == "GroupNormalization":
        if d.opset < 21:
            raise NotHere
        return d.op(operator, x, d.noise(n), d.noise(n), num_groups=d.of(1, n))
    return d.op(operator, x, d.noise(n), d.noise(n))


@puts("Det")
def determinant(d: Drawing) -> str:
    x = pick(d, 2)
    square = d.op("MatMul", d.op("Transpose", x, perm=swapped(len(d.axes(x)))), x)
    return d.op("Det", square)


def swapped(rank: int) -> list[int]:
    return [*range(rank - 2), rank - 1, rank - 2]


def turned(d: Drawing, x: str) -> str:
    """Its axes in a random order; often with features for the second."""
    order = [int(i) for i in d.random.permutation(len(d.axes(x)))] if d.chance(0.3) else list(range(len(d.axes(x))))
    if d.chance(0.7):
        first = plain_axis(d, x)
        order.remove(first)
        order.insert(1, first)
    return d.op("Transpose", x, perm=order)


@puts("MatMul")
def product(d: Drawing) -> str:
    x = pick(d, 1)
    last = len(d.axes(x)) - 1
    if d.chance(0.3) and last:
        return d.op("MatMul", x, d.op("Transpose", x, perm=swapped(last + 1)))
    return d.op("MatMul", x, d.noise(d.sized(x, last), 3))


@puts("MatMulInteger QLinearMatMul")
def rounded_product(d: Drawing, operator: str) -> str:
    x = pick(d, 2)
    n = d.sized(x, len(d.axes(x)) - 1)
    q = d.op("QuantizeLinear", x, d.constant(0.1), d.constant(3, "uint8"))
    w = d.constant(d.random.integers(-9, 9, (n, 3)), "int8")
    if operator == "MatMulInteger":
        return floats(d, d.op(operator, q, w, d.constant(3, "uint8")))
    s, z = d.constant(0.1), d.constant(3, "uint8")
    return floats(d, d.op(operator, q, s, z, w, s, d.constant(0, "int8"), d.constant(0.5), z))


@puts("Gemm")
def general(d: Drawing) -> str:
    x = pick(d, 2)
    if len(d.axes(x)) > 2:
        x = d.op("Flatten", x, axis=d.number(1, len(d.axes(x)) - 1))
    turned_over = d.number(0, 1)
    n = d.sized(x, 1 - turned_over)
    return d.op("Gemm", x, d.noise(n, 2), *([d.noise(2)] if d.chance(0.5) else []), transA=turned_over)


@puts("Einsum")
def einsum(d: Drawing) -> str:
    if d.opset < 12:
        raise NotHere
    x = pick(d, 3)
    rank = len(d.axes(x))
    letters = "abcde"[:rank]
    if d.chance(0.3):
        return d.op("Einsum", x, x, equation=f"{letters},{letters}->{letters[:-1]}")
    n = d.sized(x, rank - 1)
    if d.chance(0.3):
        equation = d.of("...x,xz->...z", "...x,xz", "...ax,xz->z...a", f"{letters},{letters[-1]}z")
        return d.op("Einsum", x, d.noise(n, 3), equation=equation)
    kept = "".join(letter for letter in letters if d.chance(0.8))
    return d.op("Einsum", x, d.noise(n, 3), equation=f"{letters},{letters[-1]}z->{kept.replace(letters[-1], '')}z")
