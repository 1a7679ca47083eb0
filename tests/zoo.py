"""The models that tests serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
import torch
from torch import Tensor, nn

from tests.torch_models import CELLS, Network, Spec, export, write

if TYPE_CHECKING:
    from pathlib import Path

TOKENS = 10

# What the equations are compared with: each cell in one and three layers, and around them each kind of graph.
COMPARED = {
    f"{cell}-{layers}-{'batch' if batch_first else 'time'}-{'last' if last else 'every'}": Spec(
        cell, layers, batch_first=batch_first, last_only=last, before=last, seed=seed
    )
    for seed, (cell, layers, (batch_first, last)) in enumerate(
        (cell, layers, variant)
        for cell in CELLS
        for layers, variants in ((1, ((True, False), (False, True))), (3, ((True, True), (False, False))))
        for variant in variants
    )
} | {"tokens": Spec(tokens=TOKENS, seed=99)}

SPECS = COMPARED | {
    "lstm": Spec(hidden=8, layers=2, seed=1),
    "gru": Spec("gru", hidden=33, layers=2, seed=2),
    "rnn": Spec("rnn_tanh", hidden=16, seed=3),
    "wide": Spec(hidden=128, layers=2, seed=4),
    "tiny": Spec(hidden=1, inputs=1, outputs=1, seed=5),
}


@dataclass(frozen=True)
class Zoo:
    models: Path
    networks: dict[str, Network]


class Pair(nn.Module):
    """Two inputs, two kinds of cell, two outputs, and a learned initial state."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.embedding = nn.Embedding(TOKENS, 2)
        self.lstm = nn.LSTM(5, 4, batch_first=True)
        self.gru = nn.GRU(4, 6, batch_first=True)
        self.start = nn.Parameter(torch.linspace(-1, 1, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        y, _ = self.lstm(torch.cat([x, self.embedding(token)], 2))
        y, _ = self.gru(y, self.start.expand(1, x.shape[0], 6).contiguous())
        return self.head(y), torch.softmax(y, 2)


class Bidirectional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(3, 4, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0]


class Feedforward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Mixing(nn.Module):
    """A cell, and beside it a sum over time."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.cell(x)
        return y + x.mean(1, keepdim=True).mean(2, keepdim=True)


def repository(zoo: Zoo, folder: Path, *names: str) -> Path:
    """A repository of a test's own, with copies of some of the zoo's models."""
    for name in names:
        path = folder / "models" / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes((zoo.models / name / "1" / "model.onnx").read_bytes())
    return folder / "models"


def build(models: Path) -> Zoo:
    """Writes every model, unless they are there already; versions are 1."""
    garbage = models / "garbage" / "1" / "model.onnx"
    if garbage.exists():  # the last that is written
        return Zoo(models, {name: Network(spec) for name, spec in SPECS.items()})
    networks = {name: write(spec, models / name / "1" / "model.onnx") for name, spec in SPECS.items()}
    example = (torch.zeros(2, 3, 3), torch.zeros(2, 3, dtype=torch.int64))
    export(Pair(), models / "pair" / "1" / "model.onnx", example, ("x", "token"), ("y", "share"))
    for name, network in {"both-ways": Bidirectional(), "no-state": Feedforward(), "mixing": Mixing()}.items():
        export(network, models / name / "1" / "model.onnx", (torch.zeros(2, 3, 3),))
    _describe(models / "lstm" / "1" / "model.onnx")
    garbage.parent.mkdir(parents=True)
    garbage.write_bytes(b"this is no model")
    return Zoo(models, networks)


def _describe(path: Path) -> None:
    """Says in the file what its axes are."""
    model = onnx.load(path)
    legend = '{"x": {"features": ["a", "b", "c"], "units": ["degC", "hPa", ""]}}'
    onnx.helper.set_model_props(model, {"tidegate.inputs": legend, "tidegate.description": "A test."})
    onnx.save(model, path)
