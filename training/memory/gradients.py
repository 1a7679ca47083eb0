"""How much the last state still depends on each step before it: the derivatives of the equations, multiplied up.

With A_t the derivative of a step's state by the state before it, dh_T / ds_t = A_T A_T-1 ... A_t+1. If the factors are
small the product vanishes with the lag: that is why a network cannot learn what lies far back.

Legend: T time, F inputs, H units, S numbers that a state holds: h, or h and c of an LSTM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.memory.equations import Layer, Passage, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Reach:
    """The size of dh_T / dx_t and of dh_T / d(state that carries the memory) for lag 0, 1, ..., T - 1.

    Size is the Frobenius norm divided by the root of the number of units: the mean over directions of h_T, so that
    networks of unequal widths can be compared. An LSTM's memory is carried by c, the others' by h.
    """

    by_input: NDArray[np.float64]
    by_carrier: NDArray[np.float64]


def reach(layer: Layer, sequences: Sequence[NDArray[np.floating]]) -> Reach:
    """The mean over sequences [T, F] of one length."""
    found = [reach_of(layer, run(layer, x_TF)) for x_TF in sequences]
    return Reach(np.mean([one.by_input for one in found], axis=0), np.mean([one.by_carrier for one in found], axis=0))


def reach_of(layer: Layer, passage: Passage) -> Reach:
    """Walks back from the last step, multiplying one step's derivative after the other."""
    steps, hidden = len(passage.h) - 1, layer.hidden
    left_HS = np.eye(hidden, 2 * hidden if layer.kind == "lstm" else hidden)
    by_input, by_carrier = np.zeros(steps), np.zeros(steps)
    for lag in range(steps):
        t = steps - 1 - lag
        slope = STEP[layer.kind](layer, passage, t)
        by_input[lag] = size(product(left_HS, slope.by_input_SF))
        by_carrier[lag] = size(product(left_HS, slope.by_carrier_SH))
        left_HS = product(left_HS, slope.by_state_SS)
    return Reach(by_input, by_carrier)


def product(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """The product of two matrices by torch, whose number of threads can be set: numpy's would take every core."""
    found: NDArray[np.float64] = (torch.from_numpy(left) @ torch.from_numpy(right)).numpy()
    return found


def size(value_HF: NDArray[np.float64]) -> float:
    """Frobenius norm over the root of the number of rows."""
    return float(np.linalg.norm(value_HF) / np.sqrt(len(value_HF)))


@dataclass(frozen=True)
class Slope:
    """Derivatives of a step's state by the state before it, by its input, and by the part that carries the memory."""

    by_state_SS: NDArray[np.float64]
    by_input_SF: NDArray[np.float64]
    by_carrier_SH: NDArray[np.float64]


def rnn(layer: Layer, passage: Passage, t: int) -> Slope:
    """Of h = tanh(a): (1 - h^2) da."""
    w, r = layer.of("candidate")
    slope_H1 = (1 - passage.h[t + 1] ** 2)[:, None]
    return Slope(slope_H1 * r, slope_H1 * w, np.eye(layer.hidden))


def lstm(layer: Layer, passage: Passage, t: int) -> Slope:
    """Of c = f c' + i g and h = o tanh(c), for the state (h, c)."""
    i, f, g, o = (passage.gates[name][t][:, None] for name in ("input", "forget", "candidate", "output"))
    before, squashed = passage.c[t][:, None], np.tanh(passage.c[t + 1])[:, None]
    # How c moves with what enters each gate, and h with c and with what enters the output gate.
    moves = {"input": g * i * (1 - i), "forget": before * f * (1 - f), "candidate": i * (1 - g**2)}
    h_by_c, h_by_o = o * (1 - squashed**2), squashed * o * (1 - o)

    def through_gates(part: int) -> NDArray[np.float64]:
        c_move = sum((move * layer.of(gate)[part] for gate, move in moves.items()), start=np.zeros(()))
        return np.concatenate([h_by_c * c_move + h_by_o * layer.of("output")[part], c_move])

    eye = np.eye(layer.hidden)
    by_c_SH = np.concatenate([h_by_c * f * eye, f * eye])
    by_state_SS = np.concatenate([through_gates(1), by_c_SH], axis=1)
    return Slope(by_state_SS, through_gates(0), np.concatenate([h_by_c * eye, eye]))


def gru(layer: Layer, passage: Passage, t: int) -> Slope:
    """Of h = (1 - z) n + z h'."""
    r, z, n = (passage.gates[name][t][:, None] for name in ("reset", "update", "candidate"))
    before_H = passage.h[t]
    (w_r, r_r), (w_z, r_z), (w_n, r_n) = (layer.of(name) for name in ("reset", "update", "candidate"))
    z_move, n_move, reset_move = (before_H[:, None] - n) * z * (1 - z), (1 - z) * (1 - n**2), r * (1 - r)
    if layer.reset_after:
        recalled = passage.recalled_TH[t][:, None]
        n_by_h, n_by_x = r * r_n + recalled * reset_move * r_r, w_n + recalled * reset_move * w_r
    else:
        reset = before_H[:, None] * reset_move
        n_by_h, n_by_x = r_n @ (np.diagflat(r) + reset * r_r), w_n + r_n @ (reset * w_r)
    eye = np.eye(layer.hidden)
    return Slope(z * eye + z_move * r_z + n_move * n_by_h, z_move * w_z + n_move * n_by_x, eye)


STEP = {"rnn": rnn, "lstm": lstm, "gru": gru}
