"""An LSTM in 8 bits: its operator computes the states and keeps its gates to itself, so they are computed beside it.

It rounds x and h by their range, as `DynamicQuantizeLinear` does. Source: onnxruntime, the operator
com.microsoft.DynamicQuantizeLSTM.
"""

from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from stepgraph.cells import gates, lstm
from stepgraph.cells.cell import Cell, Operator, Rounded, Step, Tensors
from stepgraph.graphs.builder import GraphBuilder


def _step(g: GraphBuilder, cell: Cell, x_BI: str, states: Tensors) -> Step:
    assert cell.rounded is not None
    products = [
        _product(g, rounded, tensor) for rounded, tensor in zip(cell.rounded, (x_BI, states["hidden"]), strict=True)
    ]
    bias = g.constant(gates.bias(cell, lstm.ORDER).astype(np.float32))
    return lstm.gate_by_gate(g, cell, g.op("Add", g.op("Add", *products), bias), states["cell"])


def _product(g: GraphBuilder, rounded: Rounded, tensor: str) -> str:
    """[B, K] times the weights, in whole numbers, [B, 4*H] in the order in which gates are computed."""
    number, scale, zero = (g.name(part) for part in ("number", "scale", "zero"))
    g.nodes.append(helper.make_node("DynamicQuantizeLinear", [tensor], [number, scale, zero]))
    weights = (_reordered(part) for part in (rounded.numbers, rounded.zero, rounded.scale))
    numbers_KG, zeros_G, scales_G = (g.constant(part) for part in weights)
    product = g.cast(g.op("MatMulInteger", number, numbers_KG, zero, zeros_G), np.dtype(np.float32))
    return g.op("Mul", product, g.op("Mul", scale, scales_G))


def _reordered(packed: np.ndarray) -> np.ndarray:
    """What belongs to the gates along the last axis, from the operator's packing; or one for all."""
    if packed.shape[-1] == 1:
        return packed.reshape(())
    parts = _LSTM.by_gate(packed)
    return np.concatenate([parts[gate] for gate in lstm.ORDER], -1)


def _unrounded(g: GraphBuilder, operator: Operator, node: onnx.NodeProto) -> None:
    """As the operator LSTM, whose weights are the other way round."""
    plain = onnx.NodeProto(op_type=_LSTM.name, output=node.output, attribute=node.attribute)
    for name in _LSTM.inputs:
        _LSTM.take(plain, name, operator.taken(node, name))
    for name in ("W", "R"):
        scale, zero = (operator.taken(node, f"{name}_{part}") for part in ("scale", "zero_point"))
        number, zeros = (g.cast(tensor, np.dtype(np.float32)) for tensor in (operator.taken(node, name), zero))
        centred = g.op("Sub", number, g.unsqueeze(zeros, 1))
        scaled = g.op("Mul", centred, g.unsqueeze(scale, 1))
        _LSTM.take(plain, name, g.op("Transpose", scaled, perm=[0, 2, 1]))
    g.nodes.append(plain)


(_LSTM,) = lstm.OPERATORS
OPERATORS = (
    replace(
        _LSTM,
        name="DynamicQuantizeLSTM",
        step=_step,
        inputs=(*_LSTM.inputs, "W_scale", "W_zero_point", "R_scale", "R_zero_point"),
        domain="com.microsoft",
        input_axis=1,
        kept=True,
        unrounded=_unrounded,
    ),
)
