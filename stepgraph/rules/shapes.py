"""What depends on no data: constants, shapes and what is computed from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from stepgraph.rules.axes import ROWS, axis_of, has_time, length, plain
from stepgraph.rules.reshapes import axes_of, product
from stepgraph.rules.size import Size, at_least, compared, floor, quotient
from stepgraph.rules.table import Call, rule
from stepgraph.rules.value import COUNTED, Value, in_order, random, unknown

_CONSTANT = "constant: depends on shapes alone"
_ORDERS = {  # each with the one that says the same of its inputs in the other order
    "Greater": "Less",
    "GreaterOrEqual": "LessOrEqual",
    "Less": "Greater",
    "LessOrEqual": "GreaterOrEqual",
}
_EXACT = (TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64)  # they hold any count of steps
SMALL = 64  # elements of a constant whose numbers are kept in view


@rule("Constant", says=_CONSTANT)
def constant(call: Call) -> Value:
    ((name, given),) = call.attributes.items()
    if name in ("sparse_value", "value_string", "value_strings"):
        raise unknown("is a constant of another kind than numbers")
    return of_array(numpy_helper.to_array(given) if name == "value" else np.asarray(given))


def of_array(array: np.ndarray, name: str = "") -> Value:
    number = array.astype(object) if array.size <= SMALL else None
    return Value(tuple(plain(n) for n in array.shape), number=number, name=name)


@rule("Shape", says=_CONSTANT)
def shape(call: Call) -> Value:
    sizes = call.value().shape
    return of_array(_array(sizes[call.attributes.get("start", 0) : call.attributes.get("end", len(sizes))]))


def _array(sizes: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(sizes), object)
    array[:] = list(sizes)
    return array


@rule("Size", says=_CONSTANT)
def count(call: Call) -> Value:
    return of_array(np.array(product(call.value().shape), object))


@rule("ConstantOfShape", says=_CONSTANT)
def filled(call: Call) -> Value:
    axes = axes_of(call.numbers("input", 0) or [])
    if axes is None:
        raise unknown("has a shape that cannot be followed")
    given = call.attributes.get("value")
    number = np.array(0.0) if given is None else numpy_helper.to_array(given).reshape(())
    return Value(axes, number=number.astype(object))


@rule("Range", says="constant; along time it counts the steps, which is a state")
def counting(call: Call) -> Value:
    start, limit, delta = (None if (n := call.number(i)) is None else n.item() for i in range(3))
    if start is None or limit is None or delta is None:
        raise unknown("counts to a number that cannot be told from the file")
    if not any(isinstance(n, Size) for n in (start, limit, delta)):
        return of_array(np.arange(start, limit, delta).astype(object))
    count = quotient(limit - start, delta)
    axis = None if count is None else axis_of(count)
    if axis is None:
        raise unknown("counts to a number that cannot be followed")
    return Value((axis,), varies=COUNTED)


@rule("EyeLike", says=_CONSTANT)
def eye(call: Call) -> Value:
    x = call.value()
    varies = "" if all(isinstance(n, int) for n in x.shape) else COUNTED
    return Value(x.axes, varies=varies)


@rule("HannWindow", "HammingWindow", "BlackmanWindow", says=_CONSTANT)
def window(call: Call) -> Value:
    size = call.number(0)
    if size is None or isinstance(size.item(), Size):
        raise unknown("has a length that cannot be told from the file")
    return Value((plain(int(size.item())),))


@rule("MelWeightMatrix", says=_CONSTANT)
def mel(call: Call) -> Value:
    bins, length = call.number(0), call.number(1)
    if bins is None or length is None:
        raise unknown("has a size that cannot be told from the file")
    return Value((plain(int(length.item()) // 2 + 1), plain(int(bins.item()))))


@rule(
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    says="random: equal sequences differ",
)
def drawn(_: Call) -> Value:
    raise random()


def counted(call: Call, result: Value) -> Value:
    """The result with the numbers from which it counts along its axis of time or of sequences, if it does."""
    ramp = None
    if call.node.op_type in _ORDERS and (always := _always(call)) is not None:
        return replace(result, number=np.array(always, object), varies="")
    if not result.live and (result.timed or (ROWS,) in result.axes):
        match call.node.op_type, [value.ramp for value in call.all]:
            case "Range", _ if (start := call.number(0)) is not None and np.all(call.number(2) == 1):
                ramp = None if isinstance(start.item(), Size) else np.array([int(start.item())])
            case "Cast" | "Identity", [given] if call.attributes.get("to", TensorProto.INT64) in _EXACT:
                ramp = given
            case "ScatterElements", _ if in_order(result):
                ramp = result.ramp
            case "NonZero", _:
                ramp = np.zeros((1, 1), int)  # of a number that is the same at every step
            case "Transpose", [given] if given is not None:
                ramp = given.transpose(call.attributes.get("perm", range(given.ndim)[::-1]))
            case "Squeeze" | "Unsqueeze", [given, *_] if given is not None:
                ramp = given.reshape([1 if isinstance(n, Size) else n for n in result.shape])
            case "Add", [a, b] if (a is None) != (b is None):
                ramp = _shifted(call, 0 if b is None else 1, result)
    return result if ramp is None and result.ramp is None else replace(result, ramp=ramp)


def _always(call: Call) -> bool | None:
    """What a comparison of what counts along the steps with one number says at all of them; None if it differs."""
    a, b = call.value(0), call.value(1)
    if (a.ramp is None) == (b.ramp is None) or not (a.timed or b.timed):
        return None
    counts, other = (a, b) if b.ramp is None else (b, a)
    number, time = other.number, next(axis for axis in counts.axes if has_time(axis))
    if other.live or other.varies or number is None or number.size != 1 or counts.ramp is None:
        return None
    if not isinstance(number.item(), Size | int):
        return None
    low, high, bound = int(counts.ramp.min()), int(counts.ramp.max()) + length(time) - 1, number.item()
    order = call.node.op_type if counts is a else _ORDERS[call.node.op_type]
    below, above = (0 if order.endswith("OrEqual") else 1, 1 if order.endswith("OrEqual") else 0)
    if order.startswith("Less"):
        return True if at_least(bound, high + below) else False if at_least(low, bound + above) else None
    return True if at_least(low, bound + below) else False if at_least(bound, high + above) else None


def _shifted(call: Call, counting: int, result: Value) -> np.ndarray | None:
    ramp, added = call.value(counting).ramp, call.number(1 - counting)
    if ramp is None or added is None or any(isinstance(n, Size) or n != int(n) for n in added.flat):
        return None
    moved: np.ndarray = ramp + added.astype(int)
    return moved if moved.ndim == len(result.axes) else None


# shape arithmetic


def numbers(call: Call, result: Value) -> Value:
    """The result with its numbers, if they are few and follow from those of the inputs."""
    of = call.node.op_type
    compute = _ARITHMETIC.get(of) or _ARRANGING.get(of)
    if result.live or result.number is not None or compute is None or any(n is None for n in call.inputs):
        return result
    if any(n > SMALL for value in call.all for n in value.shape if not isinstance(n, Size)):
        return result
    given = [_given(call, i) for i in range(len(call.all))]
    known = [number for number in given if number is not None and number.size <= SMALL]
    if len(known) < len(given):
        return result
    try:
        found = np.asarray(compute(call, known), object)
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return result
    if found.size > SMALL or any(each is None for each in found.flat):
        return result
    return replace(result, number=found, varies="") if found.ndim == 0 or found.shape == result.shape else result


def _given(call: Call, index: int) -> np.ndarray | None:
    """The numbers of an input, or the one that all of its elements are."""
    each, own = call.number(index), call.value(index).number
    return own if own is not None and (each is None or each.size > SMALL) else each


def _each(function: Callable[..., Any]) -> Callable[[Call, Sequence[np.ndarray]], Any]:
    return lambda _, arrays: np.frompyfunc(function, len(arrays), 1)(*arrays)


def _divided(a: Any, b: Any) -> Any:  # noqa: ANN401
    if not isinstance(a, Size) and not isinstance(b, Size):
        return a / b if isinstance(a, float) or isinstance(b, float) else int(a / b)
    exact = quotient(a, b)
    return floor(a, int(b)) if exact is None and not isinstance(b, Size) and int(b) == b else exact


def _ordered(verdicts: Mapping[int, bool]) -> Callable[[Any, Any], bool | None]:
    return lambda a, b: None if (order := compared(a, b)) is None else verdicts[order]


def _larger(a: Any, b: Any) -> Any:  # noqa: ANN401
    return a if at_least(a, b) else b if at_least(b, a) else None


def _smaller(a: Any, b: Any) -> Any:  # noqa: ANN401
    return a if at_least(b, a) else b if at_least(a, b) else None


def _cast(call: Call, arrays: Sequence[np.ndarray]) -> np.ndarray:
    kind = helper.tensor_dtype_to_np_dtype(call.attributes["to"]).kind
    into: Callable[[Any], Any] = {"f": float, "b": bool}.get(kind, int)
    return np.asarray(np.frompyfunc(lambda n: n if isinstance(n, Size) else into(n), 1, 1)(arrays[0]), object)


_ARITHMETIC: dict[str, Callable[[Call, Sequence[np.ndarray]], Any]] = {
    "Add": _each(lambda a, b: a + b),
    "Sub": _each(lambda a, b: a - b),
    "Mul": _each(lambda a, b: a * b),
    "Div": _each(_divided),
    "Neg": _each(lambda a: a * -1),
    "Mod": _each(lambda a, b: None if isinstance(a, Size) or isinstance(b, Size) else a % b),
    "Max": lambda _, arrays: _folded(_larger, arrays),
    "Min": lambda _, arrays: _folded(_smaller, arrays),
    "Equal": _each(_ordered({-1: False, 0: True, 1: False})),
    "Less": _each(_ordered({-1: True, 0: False, 1: False})),
    "Greater": _each(_ordered({-1: False, 0: False, 1: True})),
    "LessOrEqual": _each(_ordered({-1: True, 0: True, 1: False})),
    "GreaterOrEqual": _each(_ordered({-1: False, 0: True, 1: True})),
    "Not": _each(lambda a: not a),
    "And": _each(lambda a, b: a and b),
    "Or": _each(lambda a, b: a or b),
    "Where": _each(lambda c, a, b: a if c else b),
    "Floor": _each(lambda a: a if isinstance(a, Size) else float(np.floor(a))),
    "Ceil": _each(lambda a: a if isinstance(a, Size) else float(np.ceil(a))),
    "Cast": _cast,
    "Identity": lambda _, arrays: arrays[0],
    "ReduceMax": lambda _, arrays: arrays[0] if arrays[0].ndim == 0 else None,
    "ReduceMin": lambda _, arrays: arrays[0] if arrays[0].ndim == 0 else None,
    "ReduceProd": lambda call, arrays: (
        product(list(arrays[0].flat)) if not call.attributes.get("keepdims", 1) else None
    ),
}


def _folded(function: Callable[[Any, Any], Any], arrays: Sequence[np.ndarray]) -> Any:  # noqa: ANN401
    result = arrays[0]
    for other in arrays[1:]:
        result = np.frompyfunc(function, 2, 1)(result, other)
    return result


def _to_shape(_: Call, arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0].reshape([int(n) for n in arrays[1].flat])


def _axes_moved(move: Callable[..., np.ndarray]) -> Callable[[Call, Sequence[np.ndarray]], np.ndarray]:
    def moved(call: Call, arrays: Sequence[np.ndarray]) -> np.ndarray:
        axes = call.numbers("axes", 1)
        return move(arrays[0], None if axes is None else tuple(int(axis) for axis in axes))

    return moved


def _sliced(call: Call, arrays: Sequence[np.ndarray]) -> np.ndarray:
    starts, ends = call.numbers("starts", 1) or [], call.numbers("ends", 2) or []
    axes = call.numbers("axes", 3) or range(len(starts))
    steps = call.numbers("steps", 4) or [1] * len(starts)
    result = arrays[0]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        place, bound = int(axis) % result.ndim, int(end)
        taken = slice(int(start), None if bound < -result.shape[place] else bound, int(step))
        result = result[(slice(None),) * place + (taken,)]
    return result


_ARRANGING: dict[str, Callable[[Call, Sequence[np.ndarray]], Any]] = {
    "Concat": lambda call, arrays: np.concatenate(arrays, call.attributes["axis"]),
    "Gather": lambda call, arrays: np.take(arrays[0], arrays[1].astype(int), call.attributes.get("axis", 0)),
    "Reshape": _to_shape,
    "Slice": _sliced,
    "Squeeze": _axes_moved(np.squeeze),
    "Unsqueeze": _axes_moved(lambda array, axes: np.expand_dims(array, axes or ())),
}
