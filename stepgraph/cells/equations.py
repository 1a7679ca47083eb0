"""The equations of RNN, LSTM and GRU, as ONNX defines them, written for one step of a batch of sequences.

Pure onnx. Knows neither where a cell's input comes from nor what becomes of its output. Source: the operators RNN-22,
LSTM-22 and GRU-22 of the ONNX standard.

Shapes: B batch, I input size, H hidden size, G number of gate blocks. `x_BI` is [B, I].
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import helper

from stepgraph.cells import cell as cells
from stepgraph.cells.cell import Cell, Rounded
from stepgraph.graphs.builder import GraphBuilder

_LSTM_ORDER = ("input", "forget", "output", "candidate")  # in which they are computed: three sigmoids side by side


@dataclass(frozen=True)
class Step:
    """The names of the tensors [B, H] that one step of a cell yields: the new states and the gates."""

    states: Mapping[str, str]
    gates: Mapping[str, str]


def step(g: GraphBuilder, cell: Cell, x_BI: str, states: Mapping[str, str]) -> Step:
    """Writes one step of `cell` from its input and its states, each [B, H]."""
    return _STEP[cell.kind](g, cell, x_BI, states)


def _rnn(g: GraphBuilder, cell: Cell, x_BI: str, states: Mapping[str, str]) -> Step:
    h_BH = _gate(g, cell, 0, _affine(g, cell, ("hidden",), x_BI, states["hidden"]))
    return Step({"hidden": h_BH}, {})


def _lstm(g: GraphBuilder, cell: Cell, x_BI: str, states: Mapping[str, str]) -> Step:
    a_BG = _affine(g, cell, _LSTM_ORDER, x_BI, states["hidden"])
    if cell.peepholes or cell.input_forget:
        return _lstm_gate_by_gate(g, cell, a_BG, states["cell"])
    ifo_BG, g_BH = g.split(a_BG, [3 * cell.hidden_size, cell.hidden_size])
    i_BH, f_BH, o_BH = g.split(_gate(g, cell, 0, ifo_BG), [cell.hidden_size] * 3)
    g_BH = _gate(g, cell, 1, g_BH)
    c_BH = _remember(g, i_BH, f_BH, g_BH, states["cell"])
    return _lstm_step(g, cell, {"input": i_BH, "forget": f_BH, "candidate": g_BH, "output": o_BH}, c_BH)


def rounded_gates(g: GraphBuilder, cell: Cell, x_BI: str, states: Mapping[str, str]) -> Mapping[str, str]:
    """The gates of an LSTM of 8 bits, whose operator keeps them to itself, from its input and its states [B, H].

    They are what the operator computes: it rounds x and h by their range, as `DynamicQuantizeLinear` does. Source:
    onnxruntime, the operator com.microsoft.DynamicQuantizeLSTM.
    """
    assert cell.rounded is not None
    products = [
        _rounded_product(g, rounded, tensor)
        for rounded, tensor in zip(cell.rounded, (x_BI, states["hidden"]), strict=True)
    ]
    biases = cell.weights.x_bias, cell.weights.h_bias
    bias = np.concatenate([sum(part[gate] for part in biases) for gate in _LSTM_ORDER])
    a_BG = g.op("Add", g.op("Add", *products), g.constant(bias.astype(np.float32)))
    return _lstm_gate_by_gate(g, cell, a_BG, states["cell"]).gates


def _rounded_product(g: GraphBuilder, rounded: Rounded, tensor: str) -> str:
    """[B, K] times the weights, in whole numbers, [B, 4*H] in the order of `_LSTM_ORDER`."""
    number, scale, zero = (g.name(part) for part in ("number", "scale", "zero"))
    g.nodes.append(helper.make_node("DynamicQuantizeLinear", [tensor], [number, scale, zero]))
    weights = (_reordered(part) for part in (rounded.numbers, rounded.zero, rounded.scale))
    numbers_KG, zeros_G, scales_G = (g.constant(part) for part in weights)
    product = g.cast(g.op("MatMulInteger", number, numbers_KG, zero, zeros_G), np.dtype(np.float32))
    return g.op("Mul", product, g.op("Mul", scale, scales_G))


def _reordered(packed: np.ndarray) -> np.ndarray:
    """What belongs to the gates along the last axis, from the operator's packing to `_LSTM_ORDER`; or one for all."""
    if packed.shape[-1] == 1:
        return packed.reshape(())
    parts = cells.by_gate("LSTM", packed)
    return np.concatenate([parts[gate] for gate in _LSTM_ORDER], -1)


def _lstm_gate_by_gate(g: GraphBuilder, cell: Cell, a_BG: str, c_BH: str) -> Step:
    """The output gate peeps at the new cell, so it comes last."""
    ai_BH, af_BH, ao_BH, ag_BH = g.split(a_BG, [cell.hidden_size] * 4)
    i_BH = _gate(g, cell, 0, _peep(g, cell, "input", ai_BH, c_BH))
    if cell.input_forget:
        f_BH = g.op("Sub", g.constant(np.ones(1, cell.dtype)), i_BH)
    else:
        f_BH = _gate(g, cell, 0, _peep(g, cell, "forget", af_BH, c_BH))
    g_BH = _gate(g, cell, 1, ag_BH)
    new_BH = _remember(g, i_BH, f_BH, g_BH, c_BH)
    o_BH = _gate(g, cell, 0, _peep(g, cell, "output", ao_BH, new_BH))
    return _lstm_step(g, cell, {"input": i_BH, "forget": f_BH, "candidate": g_BH, "output": o_BH}, new_BH)


def _lstm_step(g: GraphBuilder, cell: Cell, gates: Mapping[str, str], c_BH: str) -> Step:
    h_BH = g.op("Mul", gates["output"], cell.activations[2](g, c_BH, cell.dtype))
    return Step({"hidden": h_BH, "cell": c_BH}, gates)


def _remember(g: GraphBuilder, i_BH: str, f_BH: str, g_BH: str, c_BH: str) -> str:
    """What is kept of the cell and what is written into it."""
    return g.op("Add", g.op("Mul", f_BH, c_BH), g.op("Mul", i_BH, g_BH))


def _peep(g: GraphBuilder, cell: Cell, gate: str, a_BH: str, c_BH: str) -> str:
    if not cell.peepholes:
        return a_BH
    return g.op("Add", a_BH, g.op("Mul", g.constant(cell.peepholes[gate]), c_BH))


def _gru(g: GraphBuilder, cell: Cell, x_BI: str, states: Mapping[str, str]) -> Step:
    h_BH = states["hidden"]
    zr_BG = _gate(g, cell, 0, _affine(g, cell, ("update", "reset"), x_BI, h_BH))
    z_BH, r_BH = g.split(zr_BG, [cell.hidden_size] * 2)
    n_BH = _gate(g, cell, 1, _gru_candidate(g, cell, x_BI, h_BH, r_BH))
    new_BH = g.op("Add", n_BH, g.op("Mul", z_BH, g.op("Sub", h_BH, n_BH)))  # the same as (1 - z) n + z h
    return Step({"hidden": new_BH}, {"update": z_BH, "reset": r_BH, "candidate": n_BH})


def _gru_candidate(g: GraphBuilder, cell: Cell, x_BI: str, h_BH: str, r_BH: str) -> str:
    """Before its activation. With linear_before_reset (torch's GRU) the reset gate acts on R h + b, else on h."""
    gate = "candidate"
    if not cell.linear_before_reset:
        return _affine(g, cell, (gate,), x_BI, g.op("Mul", r_BH, h_BH))
    weights = cell.weights
    from_x = g.affine(x_BI, weights.x[gate], weights.x_bias[gate])
    from_h = g.affine(h_BH, weights.h[gate], weights.h_bias[gate])
    return g.op("Add", from_x, g.op("Mul", r_BH, from_h))


def _gate(g: GraphBuilder, cell: Cell, activation: int, a_BG: str) -> str:
    """The cell's activation function number `activation` of one or more gates side by side."""
    if cell.clip is not None:
        a_BG = g.clip(a_BG, cell.clip, cell.dtype)
    return cell.activations[activation](g, a_BG, cell.dtype)


def _affine(g: GraphBuilder, cell: Cell, gates: tuple[str, ...], x_BI: str, h_BH: str) -> str:
    """X W + H R + Wb + Rb of several gates side by side, [B, len(gates) * H], as one product with [x, h]."""
    weights = cell.weights
    weight = np.concatenate([np.concatenate([part[gate] for gate in gates], 1) for part in (weights.x, weights.h)])
    bias = np.concatenate([weights.x_bias[gate] + weights.h_bias[gate] for gate in gates])
    return g.affine(g.concat(x_BI, h_BH), weight, bias)


_STEP = {"RNN": _rnn, "LSTM": _lstm, "GRU": _gru}
