"""The operators that run other graphs, carry states or compute on images, put on a tensor that was drawn."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.drawn.graphs import Drawing, NotHere
from tests.drawn.operators import any_axis, is_plain, pick, plain_axis, puts, turned


@puts("GridSample")
def sampled(d: Drawing) -> str:
    x = turned(d, pick(d, 4))
    if d.opset < 16 or len(d.axes(x)) != 4:
        raise NotHere
    theta = d.op("Mul", d.op("Slice", x, d.whole([0]), d.whole([1]), d.whole([1])), d.constant(0.1))
    pairs = d.op("Reshape", theta, d.whole([0, -1, 3, 2]))
    return d.op("GridSample", x, pairs)


@puts("CenterCropPad")
def cropped(d: Drawing) -> str:
    x = pick(d, 1)
    if d.opset < 18:
        raise NotHere
    axis = any_axis(d, x)
    return d.op("CenterCropPad", x, d.whole([d.number(1, 5)]), axes=[axis])


@puts("ReverseSequence")
def reverse(d: Drawing) -> str:
    x = pick(d, 2)
    time = d.number(0, 1)
    shape = d.op("Shape", x)
    count = d.op("Gather", shape, d.whole([time]))
    rows = d.op("Gather", shape, d.whole([1 - time]))
    return d.op("ReverseSequence", x, d.op("Expand", count, rows), time_axis=time, batch_axis=1 - time)


@puts("HannWindow HammingWindow BlackmanWindow")
def window(d: Drawing, operator: str) -> str:
    if d.opset < 17:
        raise NotHere
    x = pick(d, 1)
    axis = len(d.axes(x)) - 1
    return d.op("Mul", x, d.op(operator, d.whole(d.sized(x, axis))))


@puts("MelWeightMatrix")
def bands(d: Drawing) -> str:
    x = pick(d, 1)
    n = d.sized(x, len(d.axes(x)) - 1)
    if d.opset < 17 or n < 2:
        raise NotHere
    sizes = (d.whole(number) for number in (3, 2 * (n - 1), 16_000))
    return d.op("MatMul", x, d.op("MelWeightMatrix", *sizes, d.constant(0.0), d.constant(8000.0)))


@puts("RotaryEmbedding")
def turned_by_place(d: Drawing) -> str:
    """By angles that are the same at each step, or by those of one place in a table."""
    x = pick(d, 3)
    last = len(d.axes(x)) - 1
    if d.opset < 23 or last > 3:
        raise NotHere
    if last == 2 and not is_plain(d, x, last):
        x, last = d.op("Unsqueeze", x, d.whole([1])), 3
    shape = d.op("Shape", x)
    sides = [d.op("Gather", shape, d.whole([axis])) for axis in (0, last - 1)]
    if not is_plain(d, x, last):
        wide = d.op("Concat", *sides, d.op("Div", d.op("Gather", shape, d.whole([last])), d.whole([2])), axis=0)
        return d.op("RotaryEmbedding", x, *(d.op("Expand", d.noise(1), wide) for _ in range(2)))
    n = d.sized(x, last)
    if n % 2:
        raise NotHere
    heads, half = ({}, n // 2) if last == 3 else ({"num_heads": n // 2}, 1)
    places = d.op("Expand", d.whole(d.number(0, 2)), d.op("Concat", *sides, axis=0))
    return d.op("RotaryEmbedding", x, d.noise(99, half), d.noise(99, half), places, **heads)


@puts("Attention")
def attention(d: Drawing) -> str:
    x = pick(d, 3)
    if d.opset < 23 or len(d.axes(x)) > 4 or not is_plain(d, x, len(d.axes(x)) - 1):
        raise NotHere
    heads = {} if len(d.axes(x)) == 4 else {"q_num_heads": 2, "kv_num_heads": 2}
    return d.op("Attention", x, d.op("Tanh", x), d.op("Neg", x), is_causal=d.number(0, 1), **heads)


@puts("CausalConvWithState")
def causal(d: Drawing) -> str:
    x = pick(d, 3)
    if d.opset < 27 or len(d.axes(x)) != 3:
        raise NotHere
    return d.op("CausalConvWithState", x, d.noise(d.sized(x, 1), 1, d.number(2, 3)), outputs=2)


@puts("LinearAttention")
def linear_attention(d: Drawing) -> str:
    x = pick(d, 3)
    if d.opset < 27 or len(d.axes(x)) != 3 or d.sized(x, 2) % 2:
        raise NotHere
    heads = {"q_num_heads": 2, "kv_num_heads": 2}
    return d.op("LinearAttention", x, d.op("Tanh", x), x, update_rule="linear", outputs=2, **heads)


@puts("If")
def branch(d: Drawing) -> str:
    x = pick(d)
    branches = {}
    for name, operator in (("then_branch", "Neg"), ("else_branch", d.of("Tanh", "Abs"))):
        node = helper.make_node(operator, [x], [f"{x}.{len(d.nodes)}.{name}"])
        end = helper.make_empty_tensor_value_info(node.output[0])
        branches[name] = helper.make_graph([node], name, [], [end])
    condition = d.constant(True, "bool")
    if d.chance(0.5):
        condition = d.op("Greater", d.op("ReduceMax", x, keepdims=0), d.constant(1.0))
    return d.op("If", condition, **branches)


def body(d: Drawing, names: tuple[str, str], loop: bool, *before: str) -> dict[str, object]:
    """A body that adds half of what it carries to what it is given, and returns both."""
    x, h = names
    half = numpy_helper.from_array(np.array(0.5, np.float32), f"{h}.half")
    nodes = [helper.make_node("Mul", [h, f"{h}.half"], [f"{h}.less"])]
    nodes += [
        helper.make_node("Add", [f"{h}.less", x], [f"{h}.next"]),
        helper.make_node("Tanh", [f"{h}.next"], [f"{h}.y"]),
    ]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (h, *([] if loop else [x]))]
    ends = [helper.make_tensor_value_info(f"{h}.{end}", TensorProto.FLOAT, None) for end in ("next", "y")]
    if loop:
        number = helper.make_tensor_value_info(f"{h}.i", TensorProto.INT64, [])
        go = helper.make_tensor_value_info(f"{h}.go", TensorProto.BOOL, [])
        nodes.insert(0, helper.make_node("Gather", [before[0], f"{h}.i"], [x], axis=0))
        nodes.append(helper.make_node("Identity", [f"{h}.go"], [f"{h}.on"]))
        given = [number, go, *given]
        ends = [helper.make_tensor_value_info(f"{h}.on", TensorProto.BOOL, []), *ends]
    return {"body": helper.make_graph(nodes, f"body{len(d.nodes)}", given, ends, [half])}


@puts("Scan Loop")
def loop(d: Drawing, operator: str) -> str:
    x = pick(d, 2)
    first = plain_axis(d, x) if d.chance(0.5) else any_axis(d, x)
    front = d.op("Transpose", x, perm=[first, *(i for i in range(len(d.axes(x))) if i != first)])
    start = d.op("Mul", d.op("Gather", front, d.whole(0)), d.constant(0.0))
    names = f"{start}.x", f"{start}.h"
    if operator == "Scan":
        return d.op("Scan", start, front, outputs=2, num_scan_inputs=1, **body(d, names, loop=False))
    count = d.op("Gather", d.op("Shape", front), d.whole(0))
    return d.op("Loop", count, d.constant(True, "bool"), start, outputs=2, **body(d, names, True, front))
