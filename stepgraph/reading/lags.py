"""Lags that a file makes of fixed rows and a sequence without its end, written so that they hold for short ones, too.

For a sequence of fewer than n rows, [n rows, x[:-n]] has n rows; [n rows, x][:-n] is the same for all others. Pure.
"""

from collections.abc import Sequence

import onnx
from onnx import helper

from stepgraph.graphs import folding
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.nodes import attributes, copied, refill


def cut_last(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which such lags are cut after the rows are put before the sequence; the model itself if it has none."""
    graph = Graph(model)
    cuts = {node.output[0]: cut for node in graph.nodes if (cut := _cut(node, graph)) is not None}
    shapes = folding.shapes_of(graph) if cuts else {}
    nodes = list[onnx.NodeProto]()
    for node in model.graph.node:
        cut = cuts.get(node.output[0]) if node.output else None
        rows = shapes.get(node.input[0]) if cut is not None else None
        if cut is None or rows is None or rows[attributes(node)["axis"]] != -_numbers(cut, graph)[1]:
            nodes.append(node)
            continue
        whole = f"{node.output[0]}/uncut"
        joint = helper.make_node("Concat", [node.input[0], cut.input[0]], [whole], node.name, **attributes(node))
        nodes += [joint, helper.make_node("Slice", [whole, *cut.input[1:]], node.output, cut.name)]
    if len(nodes) == len(model.graph.node):
        return model
    copy = copied(model)
    refill(copy.graph.node, nodes)
    return copy


def _cut(joint: onnx.NodeProto, graph: Graph) -> onnx.NodeProto | None:
    """The Slice that takes some of the end off the second of two tensors that are joined, along the same axis."""
    cut = graph.makers.get(joint.input[1]) if joint.op_type == "Concat" and len(joint.input) == 2 else None
    if cut is None or cut.op_type != "Slice" or len(cut.input) < 4:
        return None
    start, end, axis, step = _numbers(cut, graph)
    return cut if (start, axis, step) == (0, attributes(joint)["axis"], 1) and end < 0 else None


def _numbers(cut: onnx.NodeProto, graph: Graph) -> Sequence[int]:
    """Start, end, axis and step of a Slice; zeros if it has several of them, or they are not known."""
    values = [graph.value(name) for name in cut.input[1:]]
    numbers = [int(value.item()) for value in values if value is not None and value.size == 1]
    return [*numbers, 1][:4] if len(numbers) == len(values) else [0, 0, 0, 0]
