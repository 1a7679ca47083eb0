"""The network: raw units, recurrence, head, raw units.

Legend: B batch, T time, F features, H hidden units, O outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from training.initialisation import initialise

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.config import Config
    from training.task import Task

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Network(nn.Module):
    """One or more recurrent layers of torch's fused modules under a linear head; the state starts at 0."""

    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        scaling, signature = task.scaling, task.signature
        width = scaling.width if scaling else len(signature.inputs)
        self.encoder = scaling.encoder() if scaling else None
        self.cell = CELLS[config.cell](width, config.hidden, config.layers, batch_first=True)
        self.head = nn.Linear(config.hidden, len(signature.outputs))
        self.decoder = scaling.decoder() if scaling else None
        initialise(self.cell, config)

    def forward(self, x_BTF: Tensor) -> Tensor:
        """[B, T, F] in raw units to [B, T, O] in raw units."""
        h_BTH, _ = self.cell(self.encoder(x_BTF) if self.encoder else x_BTF)
        z_BTO: Tensor = self.head(h_BTH)
        return self.decoder(z_BTO, x_BTF) if self.decoder else z_BTO


def build(config: Config, task: Task) -> Network:
    """A new network whose first weights depend on the config's seed alone."""
    torch.manual_seed(config.seed)
    return Network(config, task)
