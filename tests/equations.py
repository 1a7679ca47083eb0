"""The textbook's equations of LSTM, GRU and RNN, from torch's own weights, in double precision, one step at a time.

torch packs LSTM as i, f, g, o and GRU as r, z, n. T steps, H hidden size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from numpy.typing import NDArray

    from tests.torch_models import Network

    Array = NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def inside(network: Network, x_T: torch.Tensor) -> list[dict[str, Array]]:
    """For each layer: hidden, cell and every gate by name, [T, H] each, of one sequence from zeros."""
    import torch

    with torch.no_grad():
        rows = network.cell_inputs(x_T).double().numpy()
    layers = []
    for layer in range(network.spec.layers):
        weights = [
            getattr(network.cell, f"{name}_l{layer}").detach().double().numpy()
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        steps = list(_steps(network.spec.cell, rows, *weights))
        layers.append({name: np.stack([step[name] for step in steps]) for name in steps[0]})
        rows = layers[-1]["hidden"]
    return layers


def _steps(kind: str, rows: Array, w: Array, r: Array, b: Array, d: Array) -> Iterator[dict[str, Array]]:
    h = c = np.zeros(r.shape[1])
    for x in rows:
        from_x, from_h = w @ x + b, r @ h + d
        if kind == "lstm":
            i, f, g, o = np.split(from_x + from_h, 4)
            i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
            c = f * c + i * g
            h = o * np.tanh(c)
            yield {"hidden": h, "cell": c, "input": i, "forget": f, "candidate": g, "output": o}
        elif kind == "gru":
            (xr, xz, xn), (hr, hz, hn) = np.split(from_x, 3), np.split(from_h, 3)
            reset, update = sigmoid(xr + hr), sigmoid(xz + hz)
            n = np.tanh(xn + reset * hn)
            h = (1 - update) * n + update * h
            yield {"hidden": h, "update": update, "reset": reset, "candidate": n}
        else:
            a = from_x + from_h
            h = np.tanh(a) if kind == "rnn_tanh" else np.maximum(a, 0)
            yield {"hidden": h}
