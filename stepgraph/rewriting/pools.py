"""Averages that leave out what they pad with, as one average of the numbers over another of ones. Pure onnx."""

import numpy as np
import onnx
from onnx import helper

from stepgraph.graphs.builder import GraphBuilder, rebuilt
from stepgraph.graphs.nodes import attributes, copied, opset

_LEAST_OPSET = 9  # IsNaN


def counting(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose average pools count all that they pad with, and that computes the same; the model if they do.

    The ones are made of the numbers, so that there are as many steps and rows of them: what is padded is 0 beside them.
    """
    if opset(model) < _LEAST_OPSET or not any(map(_leaves_out, model.graph.node)):
        return model
    g = GraphBuilder("pools/", opset(model))
    for node in model.graph.node:
        if not _leaves_out(node):
            g.nodes.append(node)
            continue
        nothing = g.cast(g.op("IsNaN", node.input[0]), np.dtype(np.float32))
        ones = g.op("Sub", g.constant(np.ones(1, np.float32)), nothing)
        g.op_to(node.output[0], "Div", *(_counted(g, node, tensor) for tensor in (node.input[0], ones)))
    return rebuilt(copied(model), g.nodes, g)


def _leaves_out(node: onnx.NodeProto) -> bool:
    if node.op_type != "AveragePool":
        return False
    given = attributes(node)
    padded = any(given.get("pads", [])) or given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    rounded_up = given.get("ceil_mode") and any(stride > 1 for stride in given.get("strides", []))
    return padded and not given.get("count_include_pad") and not rounded_up


def _counted(g: GraphBuilder, node: onnx.NodeProto, tensor: str) -> str:
    copy = copied(node)
    copy.input[0], copy.output[0], copy.name = tensor, g.name("AveragePool"), ""
    kept = [attribute for attribute in node.attribute if attribute.name != "count_include_pad"]
    del copy.attribute[:]
    copy.attribute.extend([*kept, helper.make_attribute("count_include_pad", 1)])
    g.nodes.append(copy)
    return copy.output[0]
