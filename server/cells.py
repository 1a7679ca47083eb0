"""The equations of RNN, LSTM and GRU, as ONNX defines them, written for one step of a batch of sequences.

Pure onnx. Knows neither where a cell's input comes from nor what becomes of its output. Source: the operators RNN-22,
LSTM-22 and GRU-22 of the ONNX standard.

Shapes: B batch, I input size, H hidden size, G number of gate blocks. `x_BI` is [B, I].
Gates go by the names of the equations; the packing orders (LSTM i, o, f, c; GRU z, r, h) end in this file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

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
_DEFAULT_ACTIVATIONS = {"RNN": ("Tanh",), "LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh")}


@dataclass(frozen=True)
class Activation:
    """An ONNX activation operator with its attributes."""

    operator: str
    attributes: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, g: GraphBuilder, tensor: str) -> str:
        """Applies it."""
        return g.op(self.operator, tensor, **self.attributes)


@dataclass(frozen=True, eq=False)
class Weights:
    """A cell's weights by gate: `x[gate]` is [I, H], `h[gate]` [H, H], `x_bias[gate]` and `h_bias[gate]` [H]."""

    x: Mapping[str, np.ndarray]
    h: Mapping[str, np.ndarray]
    x_bias: Mapping[str, np.ndarray]
    h_bias: Mapping[str, np.ndarray]


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


def default_activations(kind: str) -> tuple[str, ...]:
    """The activation functions of an operator that names none."""
    return _DEFAULT_ACTIVATIONS[kind]


def unpack(kind: str, w_GHI: np.ndarray, r_GHH: np.ndarray, b_2GH: np.ndarray | None) -> Weights:
    """Takes the operator's packed W [G*H, I], R [G*H, H] and B [2*G*H] (or None: zeros) apart by gate."""
    wb_GH, rb_GH = np.split(np.zeros(2 * len(w_GHI), w_GHI.dtype) if b_2GH is None else b_2GH, 2)
    return Weights(*(_by_gate(kind, packed) for packed in (w_GHI, r_GHH, wb_GH, rb_GH)))


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
    (act,) = cell.activations
    h_BH = act(g, _affine(g, cell, ("hidden",), x_BI, states["hidden"]))
    return Step({"hidden": h_BH}, {})


def _lstm(g: GraphBuilder, cell: Cell, x_BI: str, states: Mapping[str, str]) -> Step:
    sigma, squash, out = cell.activations
    h_size = cell.hidden_size
    a_BG = _affine(g, cell, ("input", "forget", "output", "candidate"), x_BI, states["hidden"])
    ifo_BG, g_BH = g.split(a_BG, [3 * h_size, h_size])
    i_BH, f_BH, o_BH = g.split(sigma(g, ifo_BG), [h_size] * 3)
    g_BH = squash(g, g_BH)
    c_BH = g.op("Add", g.op("Mul", f_BH, states["cell"]), g.op("Mul", i_BH, g_BH))
    h_BH = g.op("Mul", o_BH, out(g, c_BH))
    gates = {"input": i_BH, "forget": f_BH, "candidate": g_BH, "output": o_BH}
    return Step({"hidden": h_BH, "cell": c_BH}, gates)


def _gru(g: GraphBuilder, cell: Cell, x_BI: str, states: Mapping[str, str]) -> Step:
    sigma, squash = cell.activations
    h_BH = states["hidden"]
    z_BH, r_BH = g.split(sigma(g, _affine(g, cell, ("update", "reset"), x_BI, h_BH)), [cell.hidden_size] * 2)
    n_BH = squash(g, _gru_candidate(g, cell, x_BI, h_BH, r_BH))
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


def _affine(g: GraphBuilder, cell: Cell, gates: tuple[str, ...], x_BI: str, h_BH: str) -> str:
    """X W + H R + Wb + Rb of several gates side by side, [B, len(gates) * H], as one product with [x, h]."""
    weights = cell.weights
    weight = np.concatenate([np.concatenate([part[gate] for gate in gates], 1) for part in (weights.x, weights.h)])
    bias = np.concatenate([weights.x_bias[gate] + weights.h_bias[gate] for gate in gates])
    return g.affine(g.concat(x_BI, h_BH), weight, bias)


_STEP = {"RNN": _rnn, "LSTM": _lstm, "GRU": _gru}
