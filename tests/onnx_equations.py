"""RNN, LSTM and GRU as the text of the ONNX standard has them, in double precision, one step at a time.

Written from the documentation of the operators (RNN-22, LSTM-22, GRU-22), with none of the server's code.
Packing: LSTM i, o, f, c; GRU z, r, h; P i, o, f. Shapes: T steps, B batch, I inputs, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

DEFAULTS = {"RNN": ("Tanh",), "LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh")}
STATES = {"RNN": ("hidden",), "LSTM": ("hidden", "cell"), "GRU": ("hidden",)}
BLOCKS = {"RNN": 1, "LSTM": 4, "GRU": 3}

# Which parameters a function takes, with what holds where the model gives none. The standard's text leaves these to
# "the corresponding ONNX operators"; Affine and ScaledTanh have none any more, and onnxruntime takes 0 for them and,
# unlike the operator's 1, for ThresholdedRelu.
ALPHA = {"Affine": 0.0, "LeakyRelu": 0.01, "ThresholdedRelu": 0.0, "ScaledTanh": 0.0, "HardSigmoid": 0.2, "Elu": 1.0}
BETA = {"Affine": 0.0, "ScaledTanh": 0.0, "HardSigmoid": 0.5}
WITHOUT = ("Relu", "Tanh", "Sigmoid", "Softsign", "Softplus")
ACTIVATIONS = (*ALPHA, *WITHOUT)


@dataclass(frozen=True, eq=False)
class Operator:
    """One recurrent operator with the numbers of its inputs, without the axis of directions."""

    kind: str
    w: Array
    r: Array
    b: Array | None = None
    p: Array | None = None
    activations: tuple[str, ...] = ()
    alphas: tuple[float, ...] = ()
    betas: tuple[float, ...] = ()
    clip: float | None = None
    input_forget: bool = False
    linear_before_reset: bool = False

    @property
    def functions(self) -> list[Function]:
        """f, g, h: each takes the next alpha and the next beta, if it has such a parameter."""
        alphas, betas = iter(self.alphas), iter(self.betas)
        return [
            function(
                name,
                next(alphas, ALPHA[name]) if name in ALPHA else 0.0,
                next(betas, BETA[name]) if name in BETA else 0.0,
            )
            for name in self.activations or DEFAULTS[self.kind]
        ]


def function(name: str, alpha: float, beta: float) -> Function:
    """An activation function by the name that the standard gives it."""
    functions: dict[str, Function] = {
        "Relu": lambda x: np.maximum(0, x),
        "Tanh": np.tanh,
        "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "Affine": lambda x: alpha * x + beta,
        "LeakyRelu": lambda x: np.where(x >= 0, x, alpha * x),
        "ThresholdedRelu": lambda x: np.where(x >= alpha, x, 0),
        "ScaledTanh": lambda x: alpha * np.tanh(beta * x),
        "HardSigmoid": lambda x: np.minimum(np.maximum(alpha * x + beta, 0), 1),
        "Elu": lambda x: np.where(x >= 0, x, alpha * (np.exp(np.minimum(x, 0)) - 1)),
        "Softsign": lambda x: x / (1 + np.abs(x)),
        "Softplus": lambda x: np.log(1 + np.exp(x)),
    }
    return functions[name]


def run(op: Operator, x_TBI: Array, states: Sequence[Array]) -> list[dict[str, Array]]:
    """Each step's states and gates by name, [B, H] each, from the states before the first."""
    before = [np.asarray(state, np.float64) for state in states]
    steps = []
    for x_BI in np.asarray(x_TBI, np.float64):
        steps.append(_STEP[op.kind](op, x_BI, *before))
        before = [steps[-1][name] for name in STATES[op.kind]]
    return steps


def _products(op: Operator, x: Array, h: Array) -> tuple[list[Array], list[Array]]:
    """X W^T + Wb and H R^T + Rb of each gate, in the order of packing."""
    blocks = BLOCKS[op.kind]
    wb, rb = np.split(np.zeros(2 * len(op.w)) if op.b is None else op.b, 2)
    return np.split(x @ op.w.T + wb, blocks, 1), np.split(h @ op.r.T + rb, blocks, 1)


def _clipped(op: Operator, f: Function) -> Function:
    """Clip bounds the input of the gates' activations; as onnxruntime has it, not the new cell's before h."""
    clip = op.clip
    return f if clip is None else lambda a: f(np.clip(a, -clip, clip))


def _rnn(op: Operator, x: Array, h: Array) -> dict[str, Array]:
    ((from_x,), (from_h,)) = _products(op, x, h)
    return {"hidden": _clipped(op, op.functions[0])(from_x + from_h)}


def _lstm(op: Operator, x: Array, h: Array, c: Array) -> dict[str, Array]:
    f, g = (_clipped(op, activation) for activation in op.functions[:2])
    a_i, a_o, a_f, a_c = (a + b for a, b in zip(*_products(op, x, h), strict=True))
    p_i, p_o, p_f = np.split(np.zeros(3 * c.shape[1]) if op.p is None else op.p, 3)
    i = f(a_i + p_i * c)
    forget = 1 - i if op.input_forget else f(a_f + p_f * c)
    candidate = g(a_c)
    new = forget * c + i * candidate
    o = f(a_o + p_o * new)
    return {
        "hidden": o * op.functions[2](new),
        "cell": new,
        "input": i,
        "forget": forget,
        "candidate": candidate,
        "output": o,
    }


def _gru(op: Operator, x: Array, h: Array) -> dict[str, Array]:
    f, g = (_clipped(op, activation) for activation in op.functions)
    (x_z, x_r, x_h), (h_z, h_r, h_h) = _products(op, x, h)
    z, r = f(x_z + h_z), f(x_r + h_r)
    if op.linear_before_reset:
        candidate = g(x_h + r * h_h)
    else:
        r_h = op.r[-h.shape[1] :]
        rb_h = 0 if op.b is None else op.b[-h.shape[1] :]
        candidate = g(x_h + (r * h) @ r_h.T + rb_h)
    return {"hidden": (1 - z) * candidate + z * h, "update": z, "reset": r, "candidate": candidate}


_STEP: dict[str, Callable[..., dict[str, Array]]] = {"RNN": _rnn, "LSTM": _lstm, "GRU": _gru}
