"""The equations of RNN, LSTM and GRU, as ONNX defines them, written for one step of a batch of sequences.

Pure onnx. Knows neither where a cell's input comes from nor what becomes of its output. Source: the operators RNN-22,
LSTM-22 and GRU-22 of the ONNX standard.

Shapes: B batch, I input size, H hidden size, G number of gate blocks. `x_BI` is [B, I].
Gates go by the names of the equations; the packing orders (LSTM i, o, f, c; GRU z, r, h) end in this file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from onnx import helper

from server.activations import Activation
from server.graph import GraphBuilder

STATES = {"RNN": ("hidden",), "LSTM": ("hidden", "cell"), "GRU": ("hidden",)}
GATES = {
    "RNN": (),
    "LSTM": ("input", "forget", "candidate", "output"),
    "GRU": ("update", "reset", "candidate"),
}
_PACKED = {
    "RNN": ("hidden",),
    "LSTM": ("input", "output", "forget", "candidate"),
    "GRU": ("update", "reset", "candidate"),
}
_LSTM_ORDER = ("input", "forget", "output", "candidate")  # in which they are computed: three sigmoids side by side
_DEFAULT_ACTIVATIONS = {"RNN": ("Tanh",), "LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh")}


@dataclass(frozen=True, eq=False)
class Weights:
    """A cell's weights by gate: `x[gate]` is [I, H], `h[gate]` [H, H], `x_bias[gate]` and `h_bias[gate]` [H]."""

    x: Mapping[str, np.ndarray]
    h: Mapping[str, np.ndarray]
    x_bias: Mapping[str, np.ndarray]
    h_bias: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Rounded:
    """The weights of an LSTM in 8 bits: numbers [K, 4*H] in the operator's packing, for one of its two products.

    `scale` and `zero` are [1] or [4*H]; a weight is (number - zero) * scale.
    """

    numbers: np.ndarray
    scale: np.ndarray
    zero: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """The weights as they are meant, [4*H, K]."""
        values: np.ndarray = ((self.numbers.astype(np.float32) - self.zero.astype(np.float32)) * self.scale).T
        return values


@dataclass(frozen=True, eq=False)
class Cell:
    """One recurrent operator of a model."""

    kind: str
    node: str
    input_size: int
    hidden_size: int
    weights: Weights
    activations: tuple[Activation, ...]
    linear_before_reset: bool = False
    input_forget: bool = False  # couples the gates of an LSTM: f = 1 - i
    clip: float | None = None  # bounds what goes into the gates' activation functions
    peepholes: Mapping[str, np.ndarray] = field(default_factory=dict)  # [H] by gate; empty if there are none
    rounded: tuple[Rounded, Rounded] | None = None  # the weights of x and h, if the operator computes with 8 bits

    @property
    def states(self) -> tuple[str, ...]:
        """What it carries from step to step, in the order of the operator's initial states."""
        return STATES[self.kind]

    @property
    def gates(self) -> tuple[str, ...]:
        """The gates that a trace shows."""
        return GATES[self.kind]

    @property
    def dtype(self) -> np.dtype:
        """The type of weights and states."""
        return next(iter(self.weights.x.values())).dtype

    def in_type(self, dtype: np.dtype) -> "Cell":
        """The same cell with its weights in another type."""
        if dtype == self.dtype:
            return self
        weights = self.weights
        parts = (weights.x, weights.h, weights.x_bias, weights.h_bias)
        return replace(
            self,
            weights=Weights(*(_in_type(part, dtype) for part in parts)),
            peepholes=_in_type(self.peepholes, dtype),
        )


def _in_type(arrays: Mapping[str, np.ndarray], dtype: np.dtype) -> dict[str, np.ndarray]:
    return {gate: array.astype(dtype) for gate, array in arrays.items()}


def default_activations(kind: str) -> tuple[str, ...]:
    """The activation functions of an operator that names none."""
    return _DEFAULT_ACTIVATIONS[kind]


def unpack(kind: str, w_GHI: np.ndarray, r_GHH: np.ndarray, b_2GH: np.ndarray | None) -> Weights:
    """Takes the operator's packed W [G*H, I], R [G*H, H] and B [2*G*H] (or None: zeros) apart by gate."""
    wb_GH, rb_GH = np.split(np.zeros(2 * len(w_GHI), w_GHI.dtype) if b_2GH is None else b_2GH, 2)
    return Weights(*(_by_gate(kind, packed) for packed in (w_GHI, r_GHH, wb_GH, rb_GH)))


def unpack_peepholes(p_3H: np.ndarray) -> dict[str, np.ndarray]:
    """Takes the operator's packed P [3*H] apart by gate."""
    return dict(zip(("input", "output", "forget"), np.split(p_3H, 3), strict=True))


def without_weights(cell: Cell) -> Cell:
    """The cell as it is described: its weights are empty, and keep their type."""
    given = cell.weights
    parts = (given.x, given.h, given.x_bias, given.h_bias)
    return replace(cell, weights=Weights(*({gate: w[:0] for gate, w in part.items()} for part in parts)))


def _by_gate(kind: str, packed: np.ndarray) -> dict[str, np.ndarray]:
    parts = np.split(packed, len(_PACKED[kind]))
    return {gate: part.T for gate, part in zip(_PACKED[kind], parts, strict=True)}


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
    parts = dict(zip(_PACKED["LSTM"], np.split(packed, 4, -1), strict=True))
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
