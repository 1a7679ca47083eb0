"""Lags and differences that a file makes of cut sequences put together, written so that each step is made alike. Pure.

For a sequence of fewer than n rows, [n rows, x[:-n]] has n rows; [n rows, x][:-n] is the same for all others. And
[x[:n], x[n:] - x[:-n]] is x less what it was n rows before, with zeros before the first.
"""

import numpy as np
import onnx

from stepgraph.graphs import folding
from stepgraph.graphs.builder import GraphBuilder, rebuilt
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.nodes import attributes, copied, opset

_PADS_SINCE = 11  # the opset whose Pad takes its pads as an input
_END = 2**31 - 1
_UNKNOWN = (-1, 0, -1, 0)


def alike(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with such lags and differences written so; the model itself if it has none."""
    graph, g = Graph(model), GraphBuilder("tidegate.lags/", opset(model))
    joints = [node for node in graph.nodes if node.op_type == "Concat" and len(node.input) == 2]
    found = {node.output[0]: node for node in joints if _cut(node.input[1], graph) or _difference(node, graph)}
    if not found:
        return model
    shapes = folding.shapes_of(graph)
    nodes = list[onnx.NodeProto]()
    for node in model.graph.node:
        g.nodes = []
        written = node.output and node.output[0] in found and _written(g, node, graph, shapes)
        nodes.extend(g.nodes if written else [node])
    return model if len(nodes) == len(model.graph.node) else rebuilt(copied(model), nodes, g)


def _written(g: GraphBuilder, joint: onnx.NodeProto, graph: Graph, shapes: dict[str, folding.Dims]) -> bool:
    axis, cut, rows = attributes(joint)["axis"], _cut(joint.input[1], graph), shapes.get(joint.input[0])
    lag = (rows[axis] or 0) if rows is not None else 0
    wide = shapes.get(cut.input[0]) if cut is not None else None
    if (
        cut is not None
        and wide is not None
        and _numbers(cut, graph) == (0, -lag, axis, 1)
        and (wide[axis] or lag) >= lag
    ):
        whole = g.op("Concat", joint.input[0], cut.input[0], axis=axis)
        g.nodes[-1].name = joint.name or joint.output[0]  # as refusals call it
        g.op_to(joint.output[0], "Slice", whole, *cut.input[1:])
        return True
    early = None if cut is not None else _difference(joint, graph)
    shape = None if early is None else shapes.get(early.input[0])
    if early is None or shape is None or opset(graph.model) < _PADS_SINCE:
        return False
    pads = np.zeros(2 * len(shape), np.int64)
    pads[axis % len(shape)] = -_numbers(early, graph)[1]
    late = g.op("Slice", g.op("Pad", early.input[0], g.constant(pads)), *early.input[1:])
    g.op_to(joint.output[0], "Sub", early.input[0], late)
    return True


def _cut(tensor: str, graph: Graph) -> onnx.NodeProto | None:
    """The Slice that makes a tensor by taking rows off the end of another."""
    node = graph.makers.get(tensor)
    start, end, _, step = _numbers(node, graph)
    return node if (start, step) == (0, 1) and end < 0 else None


def _difference(joint: onnx.NodeProto, graph: Graph) -> onnx.NodeProto | None:
    """The Slice of x[:-n], if these are the first n rows of x and x less what it was n rows before."""
    taken = graph.makers.get(joint.input[1])
    if taken is None or taken.op_type != "Sub":
        return None
    axis, early = attributes(joint)["axis"], _cut(taken.input[1], graph)
    first, rest = (graph.makers.get(name) for name in (joint.input[0], taken.input[0]))
    if early is None or first is None or rest is None or len({node.input[0] for node in (early, first, rest)}) > 1:
        return None
    rows, (start, end, *others) = -_numbers(early, graph)[1], _numbers(rest, graph)
    same = _numbers(first, graph) == (0, rows, axis, 1) and (start, others) == (rows, [axis, 1])
    return early if same and end >= _END and _numbers(early, graph)[2] == axis else None


def _numbers(node: onnx.NodeProto | None, graph: Graph) -> tuple[int, int, int, int]:
    """Start, end, axis and step of a Slice, if it has one of each and they are known."""
    if node is None or node.op_type != "Slice" or len(node.input) < 4:
        return _UNKNOWN
    values = [graph.value(name) for name in node.input[1:]]
    start, end, axis, step = [*(int(v.item()) for v in values if v is not None and v.size == 1), 1, 1, 1, 1][:4]
    return (start, end, axis, step) if all(v is not None and v.size == 1 for v in values) else _UNKNOWN
