"""The network: raw units, recurrence, head, raw units.

Legend: B batch, T time, F features, H hidden units, O outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from training.initialisation import initialise
from training.tracing import trace

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

    from training.config import Config
    from training.task import Task

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Trained(nn.Module):
    """What can be fitted and exported."""

    layers: int
    """Recurrent layers, each of which is one operator of the file."""

    fitted = False
    """Whether the weights that it begins with are worth something already."""

    def graph(self) -> onnx.ModelProto:
        """The network as ONNX, x to y, before its layers are named."""
        raise NotImplementedError

    def example(self, batch: int, length: int) -> Tensor:
        """Inputs that the exported file is tried on, [B, T, F] in raw units; the same ones for the same numbers."""
        raise NotImplementedError

    def gather(self) -> None:
        """Put together what each of several processes holds of the buffers; nothing, where they are all alike."""


class Network(Trained):
    """One or more recurrent layers of torch's fused modules under a linear head; the state starts at 0."""

    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        scaling, signature = task.scaling, task.signature
        width = scaling.width if scaling else len(signature.inputs)
        self.layers = config.layers
        self._features, self._scaling = len(signature.inputs), scaling
        self.encoder = scaling.encoder() if scaling else None
        self.cell = CELLS[config.cell](width, config.hidden, config.layers, batch_first=True)
        self.head = nn.Linear(config.hidden, len(signature.outputs))
        self.decoder = scaling.decoder() if scaling else None
        initialise(self.cell, config)

    def graph(self) -> onnx.ModelProto:
        """The network as torch's exporter writes it."""
        return trace(self, {"x": torch.zeros(1, 3, self._features)})

    def example(self, batch: int, length: int) -> Tensor:
        """Random inputs of the size that the model's units have, [B, T, F]."""
        generator = torch.Generator().manual_seed(batch * 1000 + length)
        x_BTF = torch.randn((batch, length, self._features), generator=generator)
        return self._scaling.raw(x_BTF) if self._scaling else x_BTF

    def forward(self, x_BTF: Tensor) -> Tensor:
        """[B, T, F] in raw units to [B, T, O] in raw units."""
        h_BTH, _ = self.cell(self.encoder(x_BTF) if self.encoder else x_BTF)
        z_BTO: Tensor = self.head(h_BTH)
        return self.decoder(z_BTO, x_BTF) if self.decoder else z_BTO


def build(config: Config, task: Task) -> Trained:
    """A new network whose first weights depend on the config's seed alone."""
    torch.manual_seed(config.seed)
    return config.network(task)
