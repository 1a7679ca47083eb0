"""The original model in operators that onnxruntime runs, for comparison with its step graph. Pure onnx.

onnxruntime refuses `layout=1` and has no recurrent operator in double precision. Here such an operator becomes one that
it has, between transposes or casts. One that aborts the process where it is given no step gets its steps by way of an
operator that fails then, behind nodes that can leave none. Every other node stays as it is.
"""

import numpy as np
import onnx
from onnx import TensorProto, shape_inference

from stepgraph.cells.cell import Operator
from stepgraph.cells.kinds import operator_of
from stepgraph.file import tensors
from stepgraph.graphs.builder import GraphBuilder, rebuilt
from stepgraph.graphs.nodes import attributes, copied, opset, refill
from stepgraph.graphs.sliding import SHORTENING

_SWAPPED = [1, 0, 2]
_ALL = 2**31 - 1
_DROPPING = SHORTENING | {"Compress", "Gather", "Split"}  # what can leave no step of few


def runnable(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that onnxruntime runs and that computes the same; double cells are computed in single precision.

    The model itself if onnxruntime runs it as it is.
    """
    g = GraphBuilder("oracle/", opset(model))
    doubles, dropped = _double_tensors(model), set[str]()
    for node in model.graph.node:
        operator = operator_of(node)
        double = operator is not None and operator.taken(node, "W") in doubles
        if node.op_type in _DROPPING or not dropped.isdisjoint(node.input[: 1 if operator else None]):
            dropped.update(filter(None, node.output))
        stepless = operator is not None and operator.aborts and node.input[0] in dropped
        if operator and not operator.domain and (double or _batch_first(node) or stepless):
            _recurrent(g, operator, node, double, stepless)
        else:
            g.nodes.append(node)
    if len(g.nodes) == len(model.graph.node):
        return model
    return rebuilt(copied(model), g.nodes, g)


def _with_steps(g: GraphBuilder, x: str) -> str:
    """The same steps, which fail to be made if there are none."""
    first = g.op("Gather", x, g.constant([0], np.int64), axis=0)
    return g.slice(g.op("Concat", first, x, axis=0), 0, 1, _ALL)


def _double_tensors(model: onnx.ModelProto) -> set[str]:
    """The names of the tensors of type double, as far as onnx can infer them: weights may be computed."""
    if not tensors.mentions(model, TensorProto.DOUBLE):
        return set()
    graph = shape_inference.infer_shapes(model).graph
    infos = (*graph.input, *graph.output, *graph.value_info)
    double = {info.name for info in infos if info.type.tensor_type.elem_type == TensorProto.DOUBLE}
    return double | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.DOUBLE}


def _batch_first(node: onnx.NodeProto) -> bool:
    return attributes(node).get("layout") == 1


def _recurrent(g: GraphBuilder, operator: Operator, node: onnx.NodeProto, double: bool, stepless: bool) -> None:
    swap = _batch_first(node)
    inner = copied(node)
    if swap:
        refill(inner.attribute, (a for a in node.attribute if a.name != "layout"))
    for i, (given, name) in enumerate(zip(node.input, operator.inputs, strict=False)):
        if given and double and name != "sequence_lens":
            inner.input[i] = g.op("Cast", inner.input[i], to=TensorProto.FLOAT)
        if given and swap and name in ("X", *operator.initial):
            inner.input[i] = g.op("Transpose", inner.input[i], perm=_SWAPPED)
    if stepless:
        inner.input[0] = _with_steps(g, inner.input[0])
    outputs = [g.name("y") if name and (swap or double) else name for name in node.output]
    refill(inner.output, outputs)
    g.nodes.append(inner)
    for i, (inside, outside) in enumerate(zip(outputs, node.output, strict=True)):
        if inside != outside:
            _restore(g, i, inside, outside, swap, double)


def _restore(g: GraphBuilder, index: int, inside: str, outside: str, swap: bool, double: bool) -> None:
    if swap:
        # Y is [T, D, B, H] and was [B, T, D, H]; the last states are [D, B, H] and were [B, D, H]
        swapped = outside if not double else g.name("swapped")
        inside = g.op_to(swapped, "Transpose", inside, perm=[2, 0, 1, 3] if index == 0 else _SWAPPED)
    if double:
        g.op_to(outside, "Cast", inside, to=TensorProto.DOUBLE)
