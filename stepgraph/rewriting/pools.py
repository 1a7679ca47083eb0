"""Averages that leave out what they pad with, as one average of the numbers over another of ones. Pure onnx."""

import numpy as np
import onnx
from onnx import helper

from stepgraph.graphs.builder import GraphBuilder, rebuilt
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.nodes import attributes, copied, opset

_LEAST_OPSET = 9  # IsNaN
_SINGLE = np.dtype(np.float32)


def counting(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose average pools count all that they pad with, and that computes the same; the model if they do.

    The ones are made of the numbers, so that there are as many steps and rows of them: what is padded is 0 beside them.
    """
    if opset(model) < _LEAST_OPSET or not any(map(_leaves_out, model.graph.node)):
        return model
    g, graph = GraphBuilder("pools/", opset(model)), Graph(model)
    for node in model.graph.node:
        if _leaves_out(node):
            _write(g, node, graph.dtype(node.input[0]))
        else:
            g.nodes.append(node)
    return rebuilt(copied(model), g.nodes, g)


def _leaves_out(node: onnx.NodeProto) -> bool:
    if node.op_type != "AveragePool":
        return False
    given = attributes(node)
    padded = any(given.get("pads", [])) or given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    return (padded or bool(given.get("ceil_mode"))) and not given.get("count_include_pad")


def _write(g: GraphBuilder, node: onnx.NodeProto, dtype: np.dtype) -> None:
    x = node.input[0] if dtype == _SINGLE else g.cast(node.input[0], _SINGLE)
    ones = g.op("Sub", g.constant(np.ones(1, np.float32)), g.cast(g.op("IsNaN", x), _SINGLE))
    average = g.op("Div", *(_counted(g, node, tensor) for tensor in (x, ones)))
    g.op_to(node.output[0], "Cast", average, to=helper.np_dtype_to_tensor_dtype(dtype))


def _counted(g: GraphBuilder, node: onnx.NodeProto, tensor: str) -> str:
    given = attributes(node) | {"count_include_pad": 1}
    return g.op("AveragePool", tensor, **given)
