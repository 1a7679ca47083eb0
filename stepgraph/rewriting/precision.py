"""In which precision the products of cells are written: that of the file, or 8 bits where its owner asks for that."""

import numpy as np
import onnx

from stepgraph.errors import ModelRefused
from stepgraph.file.sidecar import FILE
from stepgraph.graphs.builder import GraphBuilder
from stepgraph.graphs.eight_bits import LEAST_OPSET, NARROW, EightBits
from stepgraph.graphs.nodes import opset
from stepgraph.rewriting.stepgraph import PREFIX


def builder(model: onnx.ModelProto, kept: list[np.ndarray], *, eight_bits: bool) -> GraphBuilder:
    """Raises ModelRefused: the file's opset is too old."""
    found = opset(model)
    if eight_bits and found < LEAST_OPSET:
        raise ModelRefused(f"{FILE} asks for weights of 8 bits, which need opset {LEAST_OPSET}; the file has {found}")
    return (EightBits if eight_bits else GraphBuilder)(PREFIX, found, kept)


def check(g: GraphBuilder) -> None:
    """Raises ModelRefused: weights were to be rounded, and none were."""
    if isinstance(g, EightBits) and not g.rounds:
        raise ModelRefused(
            f"{FILE} asks for weights of 8 bits, and the file has no RNN, LSTM or GRU in single precision that runs "
            f"once a step and has {NARROW} units or more"
        )
