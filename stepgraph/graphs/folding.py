"""What a graph computes from shapes alone, as constants, where the shapes are known. Pure onnx; changes nothing."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from stepgraph.graphs.graph import MEASURING, Graph
from stepgraph.graphs.nodes import copied

Dims = Sequence[int | None]

_SHAPING = frozenset({"ConstantOfShape", "Expand", "Pad", "Reshape", "Slice", "Squeeze", "Tile", "Unsqueeze"})


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which the sizes of tensors are constants wherever they are the same for all inputs."""
    copy = copied(model)
    graph = Graph(model)
    shapes = shapes_of(graph)
    measured = {node.output[0]: _measured(node, shapes) for node in copy.graph.node if node.op_type in MEASURING}
    for node in copy.graph.node:
        value = _value(node, measured, graph)
        if value is not None:
            tensor = numpy_helper.from_array(value)
            node.CopyFrom(helper.make_node("Constant", [], node.output[:1], name=node.name, value=tensor))
    return copy


def _value(node: onnx.NodeProto, measured: Mapping[str, Dims | None], graph: Graph) -> np.ndarray | None:
    """What a node returns, if it is the shape of a tensor, or one size out of it, and known."""
    if node.op_type in MEASURING:
        dims = measured[node.output[0]]
        known = None if dims is None or None in dims else np.array(dims, np.int64)
        return known if known is None or node.op_type == "Shape" else np.array(known.prod())
    dims = measured.get(node.input[0]) if node.op_type == "Gather" else None
    index = None if dims is None else graph.value(node.input[1])
    if dims is None or index is None or not all(-len(dims) <= i < len(dims) for i in index.flat):
        return None
    picked = [dims[i] for i in index.flat]
    return None if None in picked else np.array(picked, np.int64).reshape(index.shape)


def _measured(node: onnx.NodeProto, shapes: Mapping[str, Dims]) -> Dims | None:
    """The sizes that a Shape returns, or a Size multiplies; None for each that is not known, or if none is."""
    dims = shapes.get(node.input[0])
    limits = {a.name: a.i for a in node.attribute}
    return None if dims is None else dims[limits.get("start", 0) : limits.get("end", len(dims))]


def shapes_of(whole: Graph) -> dict[str, Dims]:
    """The shape of each tensor as far as onnx can infer it from the inputs, whatever else the file may say."""
    copy = copied(whole.model)
    _write_out(copy, whole)
    del copy.graph.value_info[:]
    for output in copy.graph.output:
        output.type.tensor_type.ClearField("shape")
    graph = shape_inference.infer_shapes(copy, data_prop=True).graph
    infos = (*graph.input, *graph.value_info, *graph.output)
    known = {info.name: info.type.tensor_type for info in infos if info.type.tensor_type.HasField("shape")}
    shapes: dict[str, Dims] = {
        name: [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
        for name, kind in known.items()
    }
    return shapes | {tensor.name: list(tensor.dims) for tensor in graph.initializer}


def _write_out(model: onnx.ModelProto, graph: Graph) -> None:
    """Makes initialisers of what says how a tensor is cut and shaped: onnx does not compute it by itself."""
    wanted = {name for node in model.graph.node if node.op_type in _SHAPING for name in node.input[1:] if name}
    made = [node for node in model.graph.node if wanted.intersection(node.output) and node.op_type != "Constant"]
    for node in made:
        value = graph.value(node.output[0])
        if value is not None:
            model.graph.node.remove(node)
            model.graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
