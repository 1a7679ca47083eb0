"""Files that are damaged on purpose, or made to do harm. Each begins as a small LSTM that would be served."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INPUTS, HIDDEN = 3, 4
ENORMOUS = 2**62


def lstm(
    before: Sequence[onnx.NodeProto] = (),
    after: Sequence[onnx.NodeProto] = (),
    constants: Sequence[onnx.TensorProto] = (),
    x: str = "x",
    y: str = "y",
) -> onnx.ModelProto:
    """An LSTM `cell` and a Squeeze; `before` makes its input `x` of the graph's, `after` the output `y` of "y"."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.normal(0, 0.5, (1, 4 * HIDDEN, size)).astype(np.float32), name)
        for name, size in (("W", INPUTS), ("R", HIDDEN))
    ]
    nodes = [
        *before,
        helper.make_node("LSTM", [x, "W", "R"], ["Y"], "cell", hidden_size=HIDDEN),
        helper.make_node("Squeeze", ["Y", "directions"], ["y"], "squeeze"),
        *after,
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", INPUTS])],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, None)],
        [*weights, constant("directions", [1]), *constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def constant(name: str, value: object, dtype: type = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def endless() -> onnx.ModelProto:
    """A Loop of 2^62 turns before the cell; each takes a while, so that what it collects stays small."""
    infos = {
        name: helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (
            ("turn", TensorProto.INT64, []),
            *((name, TensorProto.BOOL, []) for name in ("on", "still_on")),
            *((name, TensorProto.FLOAT, None) for name in ("value", "same")),
        )
    }
    nodes = [
        helper.make_node("Identity", ["on"], ["still_on"]),
        helper.make_node("ReduceMax", ["value"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["wide", "largest"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "wide"], ["product"]),
        helper.make_node("ReduceMin", ["product"], ["least"], keepdims=0),
        helper.make_node("Min", ["value", "least"], ["same"]),
    ]
    body = helper.make_graph(
        nodes, "body", [infos[n] for n in ("turn", "on", "value")], [infos[n] for n in ("still_on", "same")]
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["begin"], "begin"),
        helper.make_node("Loop", ["turns", "go", "begin"], ["looped"], "loop", body=body),
    ]
    wide = constant("wide", np.eye(400), np.float32)
    return lstm(nodes, constants=[constant("turns", ENORMOUS), constant("go", True, bool), wide], x="looped")


def filling(shape: list[int]) -> onnx.ModelProto:
    """Fills a tensor of a shape that is a constant of the file, and adds its sum to x."""
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["expanded"], "expand"),
        helper.make_node("ReduceMax", ["expanded"], ["largest"], "largest", keepdims=0),
        helper.make_node("Add", ["x", "largest"], ["added"], "add"),
    ]
    return lstm(nodes, constants=[constant("shape", shape)], x="added")


def doubling(times: int) -> onnx.ModelProto:
    """Each node's value is twice as large as the one before."""
    names = ["x", *(f"twice{i}" for i in range(times))]
    nodes = [helper.make_node("Concat", [a, a], [b], f"{b}_node", axis=0) for a, b in pairwise(names)]
    return lstm(nodes, x=names[-1])


def half_between() -> onnx.ModelProto:
    """A sound file in which onnxruntime 1.32 dies of a Transpose that feeds a MatMul in half precision."""
    back = [1, 0, 2]
    nodes = [
        helper.make_node("Cast", ["y"], ["half"], "half", to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["square"], ["half_square"], "half_square", to=TensorProto.FLOAT16),
        helper.make_node("Transpose", ["half"], ["turned"], "turn", perm=back),
        helper.make_node("MatMul", ["turned", "half_square"], ["product"], "product"),
        helper.make_node("Transpose", ["product"], ["returned"], "return", perm=back),
        helper.make_node("Cast", ["returned"], ["z"], "single", to=TensorProto.FLOAT),
    ]
    return lstm(after=nodes, constants=[constant("square", np.ones((HIDDEN, HIDDEN)), np.float32)], y="z")


def nested(depth: int) -> onnx.ModelProto:
    """An If within an If within an If."""
    for_each = [helper.make_tensor_value_info(f"level{i}", TensorProto.FLOAT, None) for i in range(depth + 1)]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["level0"])], "level0", [], for_each[:1])
    for i in range(1, depth + 1):
        other = onnx.GraphProto()
        other.CopyFrom(graph) if i == 1 else other.CopyFrom(
            helper.make_graph(
                [helper.make_node("Identity", ["x"], [f"other{i}"])],
                "other",
                [],
                [helper.make_tensor_value_info(f"other{i}", TensorProto.FLOAT, None)],
            )
        )
        choice = helper.make_node("If", ["go"], [f"level{i}"], f"if{i}", then_branch=graph, else_branch=other)
        graph = helper.make_graph([choice], f"level{i}", [], for_each[i : i + 1])
    return lstm(list(graph.node), constants=[constant("go", True, bool)], x=f"level{depth}")


def calling(bodies: Sequence[Sequence[str]]) -> onnx.ModelProto:
    """Function number i calls those that `bodies[i]` names, one after the other; the graph calls number 0."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = lstm([helper.make_node("f0", ["x"], ["called"], "call", domain="own")], x="called")
    model.opset_import.append(opsets[1])
    for i, calls in enumerate(bodies):
        names = ["a", *(f"v{k}" for k in range(len(calls)))]
        nodes = [
            helper.make_node(called, [a], [b], domain="own" if called.startswith("f") else "")
            for called, a, b in zip(calls, names, names[1:], strict=False)
        ]
        model.functions.append(helper.make_function("own", f"f{i}", ["a"], [names[-1]], nodes, opsets))
    return model


def changed(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    """The LSTM after a change of its protobuf."""
    model = lstm()
    change(model)
    return model
