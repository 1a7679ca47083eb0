"""RNN, LSTM and GRU as values: sizes, weights by gate, activations. Pure numpy; what they compute is `equations`.

Gates go by the names of the equations; the packing orders (LSTM i, o, f, c; GRU z, r, h) end in this file. Source: the
operators RNN-22, LSTM-22 and GRU-22 of the ONNX standard.
Shapes: I input size, H hidden size, G number of gate blocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from stepgraph.cells.activations import Activation

STATES = {"RNN": ("hidden",), "LSTM": ("hidden", "cell"), "GRU": ("hidden",)}
QUANTISED = "DynamicQuantizeLSTM"  # onnxruntime's own: weights, x and h in 8 bits
OPERATORS = frozenset({*STATES, QUANTISED})
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
    return Weights(*(by_gate(kind, packed.T) for packed in (w_GHI, r_GHH, wb_GH, rb_GH)))


def unpack_peepholes(p_3H: np.ndarray) -> dict[str, np.ndarray]:
    """Takes the operator's packed P [3*H] apart by gate."""
    return dict(zip(("input", "output", "forget"), np.split(p_3H, 3), strict=True))


def without_weights(cell: Cell) -> Cell:
    """The cell as it is described: its weights are empty, and keep their type."""
    given = cell.weights
    parts = (given.x, given.h, given.x_bias, given.h_bias)
    return replace(cell, weights=Weights(*({gate: w[:0] for gate, w in part.items()} for part in parts)))


def by_gate(kind: str, packed: np.ndarray) -> dict[str, np.ndarray]:
    """Takes what the operator packs along its last axis apart by gate."""
    return dict(zip(_PACKED[kind], np.split(packed, len(_PACKED[kind]), -1), strict=True))
