"""How far back a network can look before it has learned anything.

A default LSTM or GRU forgets as fast as a plain RNN: the gradient at lag 99 is about 1e-20 for all three. The bias of
the gate that keeps the state decides it: forget bias 1 gives 1e-7, chrono initialisation 1e-1.

torch packs the gates of an LSTM as i, f, g, o and those of a GRU as r, z, n, and adds two biases for each. We put the
value into the first of the two and 0 into the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from training.config import Config

GATES = {"lstm": ("input", "forget", "candidate", "output"), "gru": ("reset", "update", "candidate"), "rnn": ()}
KEEPING = {"lstm": "forget", "gru": "update"}


def initialise(cell: nn.RNNBase, config: Config) -> None:
    """Set the biases that `config` asks for, in every layer."""
    if config.cell == "rnn":
        return
    for layer in range(cell.num_layers):
        if config.forget_bias is not None:
            keep_H = torch.full((cell.hidden_size,), config.forget_bias)
            set_bias(cell, layer, config.cell, KEEPING[config.cell], keep_H)
        if config.chrono is not None:
            set_chrono(cell, layer, config.cell, config.chrono)


def set_chrono(cell: nn.RNNBase, layer: int, kind: str, longest: int) -> None:
    """b_f = log U[1, T - 1], b_i = -b_f, the other biases 0 (Tallec & Ollivier, ICLR 2018, equation 16 on).

    A GRU's update gate is both: its state is kept where the gate is open.
    """
    for gate in GATES[kind]:
        set_bias(cell, layer, kind, gate, torch.zeros(cell.hidden_size))
    keep_H = torch.log(1 + torch.rand(cell.hidden_size) * (longest - 2))
    set_bias(cell, layer, kind, KEEPING[kind], keep_H)
    if kind == "lstm":
        set_bias(cell, layer, kind, "input", -keep_H)


def set_bias(cell: nn.RNNBase, layer: int, kind: str, gate: str, value_H: Tensor) -> None:
    """Make the sum of torch's two biases of one gate equal to `value_H`, [hidden]."""
    start = GATES[kind].index(gate) * cell.hidden_size
    rows = slice(start, start + cell.hidden_size)
    with torch.no_grad():
        getattr(cell, f"bias_ih_l{layer}")[rows] = value_H
        getattr(cell, f"bias_hh_l{layer}")[rows] = 0
