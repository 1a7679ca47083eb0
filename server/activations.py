"""The activation functions that ONNX names for recurrent operators, as nodes. Pure onnx.

Source: the attribute `activations` of LSTM-22, and the functions' own operators.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from server.graph import GraphBuilder

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
        """Applies it to a tensor of type `dtype`."""
        alpha, beta = (g.constant(np.array(value or 0, dtype)) for value in (self.alpha, self.beta))
        match self.name:
            case "Affine":
                return g.op("Add", g.op("Mul", tensor, alpha), beta)
            case "ScaledTanh":
                return g.op("Mul", g.op("Tanh", g.op("Mul", tensor, beta)), alpha)
            case "ThresholdedRelu":
                return g.op("Mul", tensor, g.cast(g.op("Greater", tensor, alpha), dtype))
        if dtype == np.float64 and self.name in _DOUBLE:
            return _DOUBLE[self.name](g, tensor, g.constant(np.ones((), dtype)), alpha, beta)
        given = {"alpha": self.alpha, "beta": self.beta}
        return g.op(self.name, tensor, **{key: value for key, value in given.items() if value is not None})


def read(names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]) -> tuple[Activation, ...]:
    """The functions of an operator: each takes the next alpha and the next beta, if it has such a parameter at all.

    Raises:
        KeyError: a name that the standard does not have.
    """
    alpha, beta = iter(alphas), iter(betas)
    known = [_KNOWN[name.lower()] for name in names]
    return tuple(
        Activation(name, None if a is None else next(alpha, a), None if b is None else next(beta, b))
        for name, a, b in known
    )


def _hard_sigmoid(g: GraphBuilder, x: str, one: str, alpha: str, beta: str) -> str:
    """Between 0 and 1: 1 - relu(1 - relu(alpha x + beta))."""
    above_0 = g.op("Relu", g.op("Add", g.op("Mul", x, alpha), beta))
    return g.op("Sub", one, g.op("Relu", g.op("Sub", one, above_0)))


def _elu(g: GraphBuilder, x: str, one: str, alpha: str, _: str) -> str:
    """relu(x) + alpha (exp(-relu(-x)) - 1)."""
    power = g.op("Exp", g.op("Neg", g.op("Relu", g.op("Neg", x))))
    return g.op("Add", g.op("Relu", x), g.op("Mul", g.op("Sub", power, one), alpha))


def _leaky_relu(g: GraphBuilder, x: str, _one: str, alpha: str, _: str) -> str:
    """relu(x) - alpha relu(-x)."""
    below = g.op("Relu", g.op("Neg", x))
    return g.op("Sub", g.op("Relu", x), g.op("Mul", below, alpha))


def _softsign(g: GraphBuilder, x: str, one: str, *_: str) -> str:
    """The quotient x / (1 + |x|)."""
    return g.op("Div", x, g.op("Add", one, g.op("Abs", x)))


def _softplus(g: GraphBuilder, x: str, one: str, *_: str) -> str:
    """relu(x) + log(1 + exp(-|x|)), which cannot overflow."""
    tail = g.op("Log", g.op("Add", one, g.op("Exp", g.op("Neg", g.op("Abs", x)))))
    return g.op("Add", g.op("Relu", x), tail)


# onnxruntime has these operators in single precision only
_DOUBLE: dict[str, Callable[[GraphBuilder, str, str, str, str], str]] = {
    "Elu": _elu,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky_relu,
    "Softplus": _softplus,
    "Softsign": _softsign,
}
