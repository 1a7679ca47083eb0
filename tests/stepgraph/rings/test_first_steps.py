"""What depends on the first step of a sequence, or on the number of a step: padding, counts, means so far."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

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

INPUTS, STEPS = 3, 200


class Replicated(nn.Module):
    """A causal convolution that repeats the first step before it."""

    def __init__(self, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(INPUTS, INPUTS, kernel, dilation=dilation)
        self.back = (kernel - 1) * dilation

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.pad(x.transpose(1, 2), (self.back, 0), mode="replicate")).transpose(1, 2)


class Chomped(nn.Module):
    """A convolution that pads both sides, and loses what looks ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(INPUTS, INPUTS, 3, padding=2, padding_mode="replicate")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.transpose(1, 2))[:, :, :-2].transpose(1, 2)


class Spectral(nn.Module):
    """A convolution over time and frequency."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, (3, 3), padding=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        padded = functional.pad(x.unsqueeze(1), (0, 0, 2, 0), mode="replicate")
        return self.conv(padded).transpose(1, 2).flatten(2)


def pooled(x: Tensor) -> Tensor:
    return functional.avg_pool1d(functional.pad(x.transpose(1, 2), (4, 0), mode="replicate"), 5, 1).transpose(1, 2)


Part = nn.Module | Callable[[Tensor], Tensor] if TYPE_CHECKING else object
REPLICATED: dict[str, Callable[[], Part]] = {
    "two convolutions": lambda: nn.Sequential(Replicated(3, 1), nn.Tanh(), Replicated(3, 4)),
    "both sides": Chomped,
    "time and frequency": Spectral,
    "an average": lambda: pooled,
}


class Placed(nn.Module):
    """A learnt vector is added to each step, by its number: looked up, or cut from the front of a table."""

    def __init__(self, looked_up: bool) -> None:
        super().__init__()
        self.table, self.looked_up = nn.Embedding(512, INPUTS), looked_up

    def forward(self, x: Tensor) -> Tensor:
        if self.looked_up:
            return x + self.table(torch.arange(x.shape[1]))
        return x + self.table.weight[: x.shape[1]]


def mean_so_far(x: Tensor) -> Tensor:
    return x.cumsum(1) / torch.arange(1, x.shape[1] + 1).view(1, -1, 1)


def normalised_so_far(x: Tensor) -> Tensor:
    count = torch.cumsum(torch.ones_like(x), 1)
    mean = x.cumsum(1) / count
    return (x - mean) / torch.sqrt(((x * x).cumsum(1) / count - mean * mean).clamp_min(0) + 1e-3)


def cumulative_layer_norm(x: Tensor) -> Tensor:
    """As Conv-TasNet has it: over all features of all steps so far, of which each adds as many."""
    size = x.shape[2]
    total, squares = x.sum(2).cumsum(1), (x * x).sum(2).cumsum(1)
    count = torch.arange(size, size * (x.shape[1] + 1), size, dtype=x.dtype)
    mean = total / count
    return (x - mean.unsqueeze(2)) / ((squares / count - mean * mean).clamp_min(0) + 1e-2).sqrt().unsqueeze(2)


def silent_at_first(x: Tensor) -> Tensor:
    return torch.where(torch.arange(x.shape[1]).view(1, -1, 1) < 5, torch.zeros_like(x), x)


COUNTED: dict[str, tuple[Callable[[], Part], int]] = {  # with how many sequences can share a batch
    "a table that is looked up": (lambda: Placed(True), 1),
    "the front of a table": (lambda: Placed(False), 1),
    "the mean so far": (lambda: mean_so_far, 1),
    "normalised by what came so far": (lambda: normalised_so_far, 2),
    "a cumulative layer norm": (lambda: cumulative_layer_norm, 1),
    "nothing in the first steps": (lambda: silent_at_first, 1),
}


class Since(nn.Module):
    """What a cell has come to, beside how it was after the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(INPUTS, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.cell(x)[0]
        return torch.cat([h - h[:, :1], (x / (1 + x[:, 0].abs()).unsqueeze(1))], -1)


def before(x: Tensor) -> Tensor:
    return torch.cat([x[:, :1], x[:, :-1]], 1)


HELD: dict[str, Callable[[], Part]] = {
    "how far a sequence is from its first step": lambda: lambda x: x - x[:, :1],
    "a difference from the step before, of the first from itself": lambda: lambda x: x - before(x),
    "a difference of differences": lambda: lambda x: (x - before(x)) - before(x - before(x)),
    "in units of the first step, and what a cell has come to since": Since,
}


class Net(nn.Module):
    """A part before a cell."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.part = part
        self.cell = nn.GRU(self.part(torch.zeros(1, 9, INPUTS)).shape[-1], 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(self.part(x))[0]


def exported(part: Part, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        free = {"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "time"}}
        names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": free}
        given = (torch.zeros(2, 9, INPUTS),)
        torch.onnx.export(Net(part).eval(), given, path, dynamo=False, opset_version=17, **names)
    return path


def held_to_the_file(part: Part, path: Path, batch: int) -> None:
    model = load(exported(part, path), 2, 0.0)
    assert model.proof.unread == ""
    x = np.random.default_rng(0).standard_normal((batch, STEPS, INPUTS), np.float32)
    (wanted,) = onnxruntime.InferenceSession(path).run(["y"], {"x": x})
    served = model.engine.run({"x": x.swapaxes(0, 1)}, model.graph.start(batch), trace=False).outputs["y"]
    np.testing.assert_allclose(served.swapaxes(0, 1), wanted, atol=1e-5)


@pytest.mark.parametrize("name", REPLICATED)
def test_what_pads_with_the_first_step_is_served(name: str, tmp_path: Path) -> None:
    held_to_the_file(REPLICATED[name](), tmp_path / "model.onnx", 2)


@pytest.mark.parametrize("name", HELD)
def test_what_is_compared_with_the_first_step_holds_it_as_a_state(name: str, tmp_path: Path) -> None:
    held_to_the_file(HELD[name](), tmp_path / "model.onnx", 2)


@pytest.mark.parametrize("name", COUNTED)
def test_what_depends_on_the_number_of_the_step_counts_it_as_a_state(name: str, tmp_path: Path) -> None:
    part, batch = COUNTED[name]
    held_to_the_file(part(), tmp_path / "model.onnx", batch)
