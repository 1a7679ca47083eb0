"""The operators that arrange, pick, slide or carry, put on a tensor that was drawn. Adds to `operators`."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.drawn.graphs import Drawing, NotHere
from tests.drawn.operators import any_axis, floats, integers, is_plain, listed, pick, plain_axis, puts, turned
from tests.drawn.places import masked


@puts("Reshape")
def reshape(d: Drawing) -> str:
    x = pick(d, 2)
    rank = len(d.axes(x))
    first = d.number(0, rank - 2)
    if d.chance(0.4):  # two axes into one
        dims = [0] * first + [-1]
        shape = d.op("Shape", x)
        parts = [d.op("Gather", shape, d.whole([i])) for i in range(rank)]
        joint = d.op("Mul", parts[first], parts[first + 1])
        if d.chance(0.5) and rank == first + 2:
            return d.op("Reshape", x, d.whole(dims))
        return d.op("Reshape", x, d.op("Concat", *parts[:first], joint, *parts[first + 2 :], axis=0))
    axis = plain_axis(d, x)  # one axis into two
    n = d.sized(x, axis)
    if d.chance(0.5):
        if n % 2:
            raise NotHere
        parts = [d.op("Gather", d.op("Shape", x), d.whole([i])) for i in range(rank)]
        parts[axis] = d.whole([2, n // 2])
        return d.op("Reshape", x, d.op("Concat", *parts, axis=0))
    return d.op("Reshape", x, d.whole([-1, n] if axis == rank - 1 else [0, -1]))


@puts("Flatten")
def flatten(d: Drawing) -> str:
    x = pick(d, 1)
    return d.op("Flatten", x, axis=d.number(0, len(d.axes(x))))


@puts("Transpose")
def transpose(d: Drawing) -> str:
    x = pick(d, 2)
    return d.op("Transpose", x, perm=[int(i) for i in d.random.permutation(len(d.axes(x)))])


@puts("Unsqueeze Squeeze")
def lifted(d: Drawing, operator: str) -> str:
    x = pick(d)
    if len(d.axes(x)) > 4:
        raise NotHere
    place = d.number(0, len(d.axes(x)))
    wide = listed(d, "Unsqueeze", x, "axes", [place], 13)
    return wide if operator == "Unsqueeze" else listed(d, "Squeeze", wide, "axes", [place], 13)


@puts("Expand Tile")
def spread(d: Drawing, operator: str) -> str:
    x = pick(d, 1)
    axis = any_axis(d, x)
    counts = [1] * len(d.axes(x))
    if operator == "Tile":
        counts[axis] = 2
        return d.op("Tile", x, d.whole(counts))
    narrow = listed(d, "ReduceMean", x, "axes", [axis], 18, keepdims=1)
    return d.op("Expand", narrow, d.op("Shape", x) if d.chance(0.5) else d.whole(counts))


@puts("Concat")
def concat(d: Drawing) -> str:
    x = pick(d, 1)
    axis = any_axis(d, x)
    if d.chance(0.5):
        return d.op("Concat", x, d.op("Tanh", x), axis=axis)
    zeros = d.op("Mul", d.op("Slice", x, d.whole([0]), d.whole([d.number(1, 2)]), d.whole([axis])), d.constant(0.0))
    return d.op("Concat", *((zeros, x) if d.chance(0.7) else (x, zeros)), axis=axis)


@puts("Split")
def split(d: Drawing) -> str:
    x = pick(d, 1)
    axis = any_axis(d, x)
    n = d.sized(x, axis)
    if n < 2:
        raise NotHere
    sizes = [1, n - 1]
    if d.opset < 13:
        return d.op("Split", x, axis=axis, split=sizes, outputs=2)
    return d.op("Split", x, d.whole(sizes), axis=axis, outputs=2)


@puts("DepthToSpace SpaceToDepth")
def blocks(d: Drawing, operator: str) -> str:
    x = turned(d, pick(d, 4))
    if len(d.axes(x)) != 4:
        raise NotHere
    return d.op(operator, x, blocksize=2)


@puts("Slice")
def cut(d: Drawing) -> str:
    x = pick(d, 1)
    axis = any_axis(d, x) if d.chance(0.5) else d.number(0, len(d.axes(x)) - 1)
    start, end = d.of(
        (0, 1),
        (1, 2**31),
        (0, -1),
        (-2, 2**31 - 1),
        (-2, 2**31 - 1),
        (-3, -1),
        (-3, -1),
        (2, 2**62),
        (0, 2**31),
        (1, -1),
    )
    if d.chance(0.1) and d.opset > 9:
        return d.op("Slice", x, d.whole([-1]), d.whole([-(2**31)]), d.whole([axis]), d.whole([-1]))
    stride = d.whole([d.of(1, 1, 1, 1, 2, 3)])
    return d.op("Slice", x, d.whole([start]), d.whole([end]), d.whole([axis]), stride)


@puts("Gather")
def gather(d: Drawing) -> str:
    x = pick(d, 1)
    axis = any_axis(d, x)
    if d.chance(0.3):
        return d.op("Gather", d.noise(4, 3), integers(d, x))
    return d.op("Gather", x, d.whole(d.of(-1, -2, 0, [0], [-1, 0])), axis=axis)


@puts("GatherElements Scatter ScatterElements")
def by_element(d: Drawing, operator: str) -> str:
    x = pick(d, 1)
    axis = any_axis(d, x)
    index = d.op("Cast", d.op("Greater", d.op("Tanh", x), d.constant(0.0)), to=TensorProto.INT64)
    if is_plain(d, x, axis) and d.sized(x, axis) < 2:
        raise NotHere
    if operator == "GatherElements":
        return d.op(operator, x, index, axis=axis)
    first = d.op("Slice", index, d.whole([0]), d.whole([1]), d.whole([axis]))
    return d.op(operator, x, first, d.op("Slice", x, d.whole([0]), d.whole([1]), d.whole([axis])), axis=axis)


@puts("GatherND")
def by_tuple(d: Drawing) -> str:
    x = pick(d)
    index = integers(d, x, TensorProto.INT64)
    return d.op("GatherND", d.noise(4, 3), listed(d, "Unsqueeze", index, "axes", [len(d.axes(x))], 13))


@puts("ScatterND")
def write_by_tuple(d: Drawing) -> str:
    x = pick(d, 2)
    axis = any_axis(d, x)
    order = [axis, *(i for i in range(len(d.axes(x))) if i != axis)]
    front = d.op("Transpose", x, perm=order)
    if d.chance(0.4):
        size = d.op("Gather", d.op("Shape", front), d.whole(0))
        places = listed(d, "Unsqueeze", d.op("Range", d.whole(0), size, d.whole(1)), "axes", [1], 13)
        return d.op("ScatterND", front, places, d.op("Tanh", front))
    return d.op("ScatterND", front, d.whole([[0]]), d.op("Tanh", d.op("Gather", front, d.whole([0]))))


@puts("Pad")
def pad(d: Drawing) -> str:
    x = pick(d, 1)
    rank, axis = len(d.axes(x)), any_axis(d, x)
    pads = [0] * (2 * rank)
    pads[axis], pads[rank + axis] = d.number(0, 3), d.number(0, 1)
    mode = d.of("constant", "constant", "edge", "reflect")
    if mode == "reflect" and is_plain(d, x, axis) and d.sized(x, axis) < 4:
        raise NotHere
    return listed(d, "Pad", x, "pads", pads, 11, mode=mode)


@puts("OneHot")
def one_hot(d: Drawing) -> str:
    x = pick(d)
    return d.op("OneHot", integers(d, x, TensorProto.INT64), d.whole(4), d.constant([0.0, 1.0]), axis=d.of(-1, 0))


@puts("Trilu")
def triangle(d: Drawing) -> str:
    if d.opset < 14:
        raise NotHere
    return d.op("Trilu", pick(d, 2), upper=d.number(0, 1))


@puts("Resize Upsample")
def resize(d: Drawing, operator: str) -> str:
    x = pick(d, 3)
    if d.opset < 13 and operator == "Resize":
        raise NotHere
    scales = np.ones(len(d.axes(x)))
    scales[any_axis(d, x)] = 2
    return d.op(operator, x, *([""] if operator == "Resize" else []), d.constant(scales), mode="nearest")


@puts("Conv AveragePool MaxPool LpPool ConvTranspose")
def windows(d: Drawing, operator: str) -> str:
    x = turned(d, pick(d, 3))
    rank = len(d.axes(x)) - 2
    if not 0 < rank < 3:
        raise NotHere
    kernel = [d.number(1, 3) if d.chance(0.8) else 1 for _ in range(rank)]
    given: dict[str, object] = {"strides": [d.of(1, 1, 2) for _ in range(rank)]}
    pads = [d.number(0, k - 1) for k in (*kernel, *kernel)]
    if operator in ("Conv", "ConvTranspose"):
        given["dilations"] = [d.number(1, 2) for _ in range(rank)]
    if d.chance(0.2) and operator == "Conv":
        given |= {"auto_pad": d.of("SAME_UPPER", "SAME_LOWER", "VALID"), "strides": [1] * rank}
    else:
        given["pads"] = pads
    if d.chance(0.2) and operator in ("AveragePool", "MaxPool"):
        given["ceil_mode"] = 1
    if operator in ("Conv", "ConvTranspose"):
        n = d.sized(x, 1)
        weight = d.noise(2, n, *kernel) if operator == "Conv" else d.noise(n, 2, *kernel)
        return d.op(operator, x, weight, **given)
    return d.op(operator, x, kernel_shape=kernel, **given)


@puts("ConvInteger QLinearConv")
def rounded_windows(d: Drawing, operator: str) -> str:
    x = turned(d, pick(d, 3))
    if len(d.axes(x)) != 3:
        raise NotHere
    q = d.op("QuantizeLinear", x, d.constant(0.1), d.constant(3, "uint8"))
    w = d.constant(d.random.integers(0, 9, (2, d.sized(x, 1), 2)), "uint8")
    s, z = d.constant(0.1), d.constant(3, "uint8")
    if operator == "ConvInteger":
        return floats(d, d.op(operator, q, w, z, z))
    return floats(d, d.op(operator, q, s, z, w, s, z, d.constant(0.5), z))


@puts("STFT")
def spectra(d: Drawing) -> str:
    if d.opset < 17:
        raise NotHere
    x = pick(d, 2)
    if len(d.axes(x)) > 2:
        raise NotHere
    return d.op("STFT", x, d.whole(2), "", d.whole(4), onesided=1)


@puts("DFT")
def transform(d: Drawing) -> str:
    if not 17 <= d.opset < 20:
        raise NotHere
    x = pick(d, 2)
    if len(d.axes(x)) > 4:
        raise NotHere
    wide = d.op("Unsqueeze", x, d.whole([len(d.axes(x))]))
    return d.op("DFT", wide, axis=d.number(1, len(d.axes(x)) - 1))


@puts("RNN LSTM GRU")
def cell(d: Drawing, operator: str) -> str:
    x = pick(d, 3)
    if len(d.axes(x)) != 3:
        raise NotHere
    order = [int(i) for i in d.random.permutation(3)]
    features = plain_axis(d, x)
    order.remove(features)
    x = d.op("Transpose", x, perm=[*order, features])
    n, gates = d.sized(x, 2), {"RNN": 1, "LSTM": 4, "GRU": 3}[operator]
    ways = d.of("forward", "forward", "reverse", "bidirectional")
    k = 2 if ways == "bidirectional" else 1
    return d.op(
        operator, x, d.noise(k, gates * 2, n), d.noise(k, gates * 2, 2), hidden_size=2, direction=ways, outputs=2
    )


@puts("Constant ConstantOfShape Shape Size Range EyeLike")
def counted(d: Drawing, operator: str) -> str:
    x = pick(d, 1)
    shape = d.op("Shape", x)
    axis = any_axis(d, x)
    size = floats(d, d.op("Gather", shape, d.whole([axis])))
    if operator in ("Shape", "Size"):
        number = size if operator == "Shape" else d.op("Reshape", floats(d, d.op("Size", x)), d.whole([1]))
        return d.op("Mul", x, number) if d.chance(0.5) else number
    if operator == "Constant":
        one = helper.make_tensor("one", TensorProto.FLOAT, [1], [2.0])
        return d.op("Add", x, d.op("Constant", value=one))
    if operator == "ConstantOfShape":
        return d.op(
            "Add", x, d.op("ConstantOfShape", shape, value=helper.make_tensor("v", TensorProto.FLOAT, [1], [3.0]))
        )
    if operator == "EyeLike":
        return d.op("EyeLike", d.op("Reshape", x, d.whole([0, -1])) if len(d.axes(x)) > 2 else x)
    if d.chance(0.5):
        return masked(d)
    limit = d.op("Gather", shape, d.whole(axis))
    line = floats(d, d.op("Range", d.whole(0), limit, d.whole(1)))
    order = [*(i for i in range(len(d.axes(x))) if i != axis), axis]
    return line if d.chance(0.5) else d.op("Add", d.op("Transpose", x, perm=order), line)
