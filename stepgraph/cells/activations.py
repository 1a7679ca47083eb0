"""The activation functions that ONNX names for recurrent operators, as nodes. Pure onnx.

Source: the attribute `activations` of LSTM-22, and the functions' own operators.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stepgraph.graphs.builder import GraphBuilder

# by lower-case name: the standard's name, and what onnxruntime takes for alpha and beta where the model gives none
_KNOWN: dict[str, tuple[str, float | None, float | None]] = {
    "affine": ("Affine", 0.0, 0.0),
    "elu": ("Elu", 1.0, None),
    "hardsigmoid": ("HardSigmoid", 0.2, 0.5),
    "leakyrelu": ("LeakyRelu", 0.01, None),
    "relu": ("Relu", None, None),
    "scaledtanh": ("ScaledTanh", 0.0, 0.0),
    "sigmoid": ("Sigmoid", None, None),
    "softplus": ("Softplus", None, None),
    "softsign": ("Softsign", None, None),
    "tanh": ("Tanh", None, None),
    "thresholdedrelu": ("ThresholdedRelu", 0.0, None),
}
NAMES = tuple(name for name, _, _ in _KNOWN.values())


@dataclass(frozen=True)
class Activation:
    """A function with its parameters; those that it does not take are None."""

    name: str
    alpha: float | None = None
    beta: float | None = None

    def __call__(self, g: GraphBuilder, tensor: str, dtype: np.dtype) -> str:
        """Applies it to a tensor of type `dtype`.

        A row's bits must not depend on how many rows there are. onnxruntime's Elu, Softplus and Log, and in double
        precision all that is not plain arithmetic, round the last elements of a tensor differently: those two are
        written out, and doubles go through single precision (onnxruntime's own cells have no other).
        """
        if dtype != np.float32:
            single = self(g, g.cast(tensor, np.dtype(np.float32)), np.dtype(np.float32))
            return g.cast(single, dtype)
        alpha, beta = (g.constant(value or 0, dtype) for value in (self.alpha, self.beta))
        match self.name:
            case "Affine":
                return g.op("Add", g.op("Mul", tensor, alpha), beta)
            case "ScaledTanh":
                return g.op("Mul", g.op("Tanh", g.op("Mul", tensor, beta)), alpha)
            case "ThresholdedRelu":
                return g.op("Mul", tensor, g.cast(g.op("Greater", tensor, alpha), dtype))
            case "Elu":
                return _elu(g, tensor, alpha)
            case "Softplus":
                return _softplus(g, tensor)
        given = {"alpha": self.alpha, "beta": self.beta}
        return g.op(self.name, tensor, **{key: value for key, value in given.items() if value is not None})


def read(names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]) -> tuple[Activation, ...]:
    """The functions of an operator: each takes the next alpha and the next beta, if it has such a parameter at all."""
    alpha, beta = iter(alphas), iter(betas)
    known = [_KNOWN[name.lower()] for name in names]
    return tuple(
        Activation(name, None if a is None else next(alpha, a), None if b is None else next(beta, b))
        for name, a, b in known
    )


def _elu(g: GraphBuilder, x: str, alpha: str) -> str:
    """relu(x) + alpha (exp(-relu(-x)) - 1)."""
    below = g.op("Sub", g.op("Exp", g.op("Neg", g.op("Relu", g.op("Neg", x)))), g.constant(1, np.float32))
    return g.op("Add", g.op("Relu", x), g.op("Mul", below, alpha))


def _softplus(g: GraphBuilder, x: str) -> str:
    """relu(x) + log(1 + e), e = exp(-|x|), by the series of 2 artanh(s), s = e / (2 + e), to 1e-8."""
    e = g.op("Exp", g.op("Neg", g.op("Abs", x)))
    s = g.op("Div", e, g.op("Add", e, g.constant(2, np.float32)))
    squared = g.op("Mul", s, s)
    series = g.constant(2 / 15, np.float32)
    for odd in range(13, 0, -2):
        series = g.op("Add", g.op("Mul", squared, series), g.constant(2 / odd, np.float32))
    return g.op("Add", g.op("Relu", x), g.op("Mul", s, series))
