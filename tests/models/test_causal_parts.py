"""Random networks of causal parts and a cell: each is proved, and streams as onnxruntime answers the whole sequence.

TIDEGATE_CAUSAL_PARTS in the environment draws so many instead of the usual ones.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stepgraph.loading import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DRAWN = int(os.environ.get("TIDEGATE_CAUSAL_PARTS", "12"))
STEPS, WIDTH = 120, 3
Part = Callable[[Tensor], Tensor] if TYPE_CHECKING else Any


def late(x: Tensor, steps: int, value: float = 0.0) -> Tensor:
    return functional.pad(x, (0, 0, steps, 0), value=value)[:, : x.shape[1]]


def over_time(part: Part) -> Part:
    return lambda x: part(x.transpose(1, 2)).transpose(1, 2)


def counted(x: Tensor) -> Tensor:
    return torch.cumsum(torch.ones_like(x), 1)


PARTS: dict[str, Callable[[int, int], Part | nn.Module]] = {
    "lag": lambda k, d: lambda x: late(x, k, d - 1.0),
    "lag by zeros": lambda k, _: lambda x: torch.cat([torch.zeros(x.shape[0], k, WIDTH), x[:, :-k]], 1),
    "difference": lambda k, _: lambda x: torch.cat([x[:, :k], x[:, k:] - x[:, :-k]], 1),
    "since the first": lambda *_: lambda x: x - x[:, :1],
    "mean": lambda k, _: over_time(lambda x: functional.avg_pool1d(functional.pad(x, (k, 0)), k + 1, 1)),
    "mean of edges": lambda k, _: over_time(
        lambda x: functional.avg_pool1d(functional.pad(x, (k, 0), mode="replicate"), k + 1, 1)
    ),
    "most": lambda k, _: over_time(lambda x: functional.max_pool1d(functional.pad(x, (k, 0), value=-1e9), k + 1, 1)),
    "sum": lambda *_: lambda x: torch.cumsum(torch.tanh(x) * 0.1, 1),
    "mean so far": lambda *_: lambda x: torch.cumsum(x, 1) / counted(x),
    "larger of two": lambda k, _: lambda x: torch.maximum(x, late(x, k)),
    "last ones": lambda k, _: lambda x: torch.stack([late(x, i) for i in range(k + 1)], -1).mean(-1),
    "twice and back": lambda *_: over_time(
        lambda x: functional.pad(x.repeat_interleave(2, 2), (1, 0))[:, :, :-1][:, :, 1::2]
    ),
    "convolution": lambda k, d: Convolved(nn.Conv1d(WIDTH, WIDTH, k + 1, dilation=d), k * d),
    "cut convolution": lambda k, d: Convolved(nn.Conv1d(WIDTH, WIDTH, k + 1, dilation=d, padding=k * d), 0, k * d),
    "spread": lambda k, _: Convolved(nn.ConvTranspose1d(WIDTH, WIDTH, k + 1), 0, k),
    "cell": lambda *_: Cell(),
    "layer": lambda *_: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()),
}


class Convolved(nn.Module):
    def __init__(self, layer: nn.Module, before: int, cut: int = 0) -> None:
        super().__init__()
        self.layer, self.before, self.cut = layer, before, cut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(functional.pad(x.transpose(1, 2), (self.before, 0)))
        return (y[:, :, : -self.cut] if self.cut else y).transpose(1, 2)


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.cell(x)
        return torch.as_tensor(y)


class Drawn(nn.Module):
    """A few parts, perhaps without their first rows, and a cell."""

    def __init__(self, random: np.random.Generator) -> None:
        super().__init__()
        self.names = [str(name) for name in random.choice(list(PARTS), random.integers(1, 5))]
        self.parts = [PARTS[name](int(random.integers(1, 5)), int(random.integers(1, 4))) for name in self.names]
        self.weights = nn.ModuleList(part for part in self.parts if isinstance(part, nn.Module))
        self.dropped, self.cell = int(random.integers(0, 3)), Cell()

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return torch.as_tensor(self.cell(x[:, self.dropped :]))


@pytest.mark.parametrize("seed", range(DRAWN))
def test_parts_that_look_back_are_proved_and_stream_as_the_whole_file_answers(
    seed: int, export: Callable[..., Path]
) -> None:
    torch.manual_seed(seed)
    network = Drawn(np.random.default_rng([11, seed]))
    axes = {"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "answers"}}
    path = export(network, (torch.zeros(2, 40, WIDTH),), "x", "y", axes)
    model, session = load(path, 2, 0.0), onnxruntime.InferenceSession(path)
    assert (model.proof.unread, model.facts.lead) == ("", network.dropped), network.names
    x = np.random.default_rng(seed).standard_normal((1 if model.facts.alone else 2, STEPS, WIDTH), np.float32)
    (wanted,) = session.run(["y"], {"x": x})
    found = model.engine.run({"x": x.swapaxes(0, 1)}, model.graph.start(len(x)), trace=False).outputs["y"]
    np.testing.assert_allclose(found[network.dropped :].swapaxes(0, 1), wanted, atol=1e-4, err_msg=str(network.names))
