"""A recurrent layer as its weights, and one sequence run through it by the textbook equations, every gate kept.

Weights stand in torch's order: LSTM i, f, g, o; GRU r, z, n. Numbers are float64.

Legend: T time, F inputs, H units, G gates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

Kind = Literal["rnn", "lstm", "gru"]
GATES: dict[Kind, tuple[str, ...]] = {
    "rnn": ("candidate",),
    "lstm": ("input", "forget", "candidate", "output"),
    "gru": ("reset", "update", "candidate"),
}


@dataclass(frozen=True)
class Layer:
    """Weights of one layer: from the input [G*H, F], from the state [G*H, H], and a bias for each of both [G*H].

    `reset_after` is the GRU of torch, whose reset gate acts on what comes from the state; before it is ONNX's default.
    """

    kind: Kind
    from_x: NDArray[np.float64]
    from_h: NDArray[np.float64]
    bias_x: NDArray[np.float64]
    bias_h: NDArray[np.float64]
    reset_after: bool = True

    @property
    def hidden(self) -> int:
        return int(self.from_h.shape[1])

    def of(self, gate: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The weights of one gate, from the input [H, F] and from the state [H, H]."""
        start = GATES[self.kind].index(gate) * self.hidden
        rows = slice(start, start + self.hidden)
        return self.from_x[rows], self.from_h[rows]


@dataclass(frozen=True)
class Passage:
    """One sequence: gates by name, [T, H] each; states [T + 1, H], of which the first is 0.

    `recalled_TH` is what a GRU's candidate gets from the state before the reset gate acts on it, 0 elsewhere.
    """

    gates: dict[str, NDArray[np.float64]]
    h: NDArray[np.float64]
    c: NDArray[np.float64]
    recalled_TH: NDArray[np.float64]


def of_torch(cell: nn.RNNBase) -> list[Layer]:
    kind = {"RNN": "rnn", "LSTM": "lstm", "GRU": "gru"}[type(cell).__name__]
    return [
        Layer(kind, *(getattr(cell, f"{name}_l{layer}").detach().double().numpy() for name in NAMES))  # type: ignore[arg-type]
        for layer in range(cell.num_layers)
    ]


NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def run(layer: Layer, x_TF: NDArray[np.floating]) -> Passage:
    """The layer's gates and states over a sequence that begins with a state of 0."""
    steps, hidden = len(x_TF), layer.hidden
    gates = {gate: np.zeros((steps, hidden)) for gate in GATES[layer.kind]}
    h, c, recalled = np.zeros((steps + 1, hidden)), np.zeros((steps + 1, hidden)), np.zeros((steps, hidden))
    for t, x_F in enumerate(x_TF.astype(np.float64)):
        step = STEP[layer.kind](layer, x_F, h[t], c[t])
        for gate, value_H in step.gates.items():
            gates[gate][t] = value_H
        h[t + 1], c[t + 1], recalled[t] = step.h, step.c, step.recalled
    return Passage(gates, h, c, recalled)


@dataclass(frozen=True)
class Step:
    """What one step gives, [H] each."""

    gates: dict[str, NDArray[np.float64]]
    h: NDArray[np.float64]
    c: NDArray[np.float64]
    recalled: NDArray[np.float64]


def sigmoid(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-value)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * value))


def parts(layer: Layer, x_F: NDArray[np.float64], h_H: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """What each gate gets from the input and from the state, [G, H] each."""
    shape = (len(GATES[layer.kind]), layer.hidden)
    return (layer.from_x @ x_F + layer.bias_x).reshape(shape), (layer.from_h @ h_H + layer.bias_h).reshape(shape)


def rnn(layer: Layer, x_F: NDArray[np.float64], h_H: NDArray[np.float64], c_H: NDArray[np.float64]) -> Step:
    """The state: h = tanh(W x + b + R h' + d)."""
    (x_GH, h_GH) = parts(layer, x_F, h_H)
    new_H = np.tanh(x_GH[0] + h_GH[0])
    return Step({"candidate": new_H}, new_H, c_H, np.zeros_like(new_H))


def lstm(layer: Layer, x_F: NDArray[np.float64], h_H: NDArray[np.float64], c_H: NDArray[np.float64]) -> Step:
    """The states: c = f c' + i g, h = o tanh(c)."""
    x_GH, h_GH = parts(layer, x_F, h_H)
    i, f, g, o = x_GH + h_GH
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    new_H = f * c_H + i * g
    gates = {"input": i, "forget": f, "candidate": g, "output": o}
    return Step(gates, o * np.tanh(new_H), new_H, np.zeros_like(new_H))


def gru(layer: Layer, x_F: NDArray[np.float64], h_H: NDArray[np.float64], c_H: NDArray[np.float64]) -> Step:
    """The state: n = tanh(W x + b + r (R h' + d)), h = (1 - z) n + z h'; before the reset: R (r h') + d."""
    x_GH, h_GH = parts(layer, x_F, h_H)
    r, z = sigmoid(x_GH[0] + h_GH[0]), sigmoid(x_GH[1] + h_GH[1])
    recalled = h_GH[2]
    if layer.reset_after:
        n = np.tanh(x_GH[2] + r * recalled)
    else:
        n = np.tanh(x_GH[2] + layer.of("candidate")[1] @ (r * h_H) + layer.bias_h[2 * layer.hidden :])
    return Step({"reset": r, "update": z, "candidate": n}, (1 - z) * n + z * h_H, c_H, recalled)


STEP = {"rnn": rnn, "lstm": lstm, "gru": gru}
