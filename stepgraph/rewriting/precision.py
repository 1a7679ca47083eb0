"""In which type the weights of a step graph are kept: the file's, or a narrower one where its owner asks for that."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from stepgraph.errors import ModelRefused
from stepgraph.file.precision import Precision
from stepgraph.file.sidecar import FILE
from stepgraph.graphs.builder import GraphBuilder
from stepgraph.graphs.eight_bits import NARROW, EightBits
from stepgraph.graphs.half import Half
from stepgraph.graphs.nodes import opset, refill
from stepgraph.rewriting.stepgraph import PREFIX

_LEAST_OPSET = {"int8": 11, "float16": 7, "bfloat16": 13}
_HALVES = {"float16": np.dtype(np.float16), "bfloat16": helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)}


def builder(model: onnx.ModelProto, kept: list[np.ndarray], weights: Precision | None) -> GraphBuilder:
    """Raises ModelRefused: the file's opset is too old."""
    found = opset(model)
    if weights is None:
        return GraphBuilder(PREFIX, found, kept)
    if found < _LEAST_OPSET[weights.name]:
        raise ModelRefused(
            f"{FILE} asks for weights in {weights.name}, which need opset {_LEAST_OPSET[weights.name]}; the file has "
            f"{found}"
        )
    if weights.name in _HALVES:
        return Half(PREFIX, found, kept, _HALVES[weights.name])
    return EightBits(PREFIX, found, kept)


def narrow(graph: onnx.GraphProto, g: GraphBuilder) -> None:
    """Makes the weights narrow that the builder `g` has not made so yet. Raises ModelRefused: there are none."""
    if not isinstance(g, EightBits | Half):
        return
    constants = {tensor.name: tensor for tensor in graph.initializer}
    g.nodes, g.constants = [], []
    for node in graph.node:
        g.weigh(node, constants)
    if not g.narrows:
        raise ModelRefused(_nothing(g))
    refill(graph.node, g.nodes)
    graph.initializer.extend(g.constants)


def _nothing(g: EightBits | Half) -> str:
    if isinstance(g, Half):
        return f"{FILE} asks for narrower weights, and the file has none in float32 that are worth it or that fit"
    return (
        f"{FILE} asks for weights in int8, and the file has no RNN, LSTM or GRU in float32 that runs once a step and "
        f"has {NARROW} units or more, and no other large weight that rows are multiplied with"
    )
