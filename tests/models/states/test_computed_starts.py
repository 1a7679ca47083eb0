"""Cells that start from a state that the file computes from its input: the first step computes it, others go on."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from stepgraph.errors import ModelRefused
from stepgraph.loading import load
from stepgraph.report import remarks, state_homes

CASES = Path(__file__).parents[1] / "cases"
BATCH, STEPS, INPUTS, CONTEXT, HIDDEN = 2, 200, 3, 5, 8
SEQUENCE = {"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "time"}}
BOTH = SEQUENCE | {"k": {0: "batch"}}

Export = Callable[..., Path]


class Net(nn.Module):
    def __init__(self, cell: str = "GRU", layers: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = layers
        self.cell = getattr(nn, cell)(INPUTS, HIDDEN, layers, batch_first=True)
        self.start = nn.Linear(CONTEXT, layers * HIDDEN)
        self.first = nn.Linear(INPUTS, HIDDEN)


class OfBothLayers(Net):
    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        h = self.start(k).view(-1, self.layers, HIDDEN).transpose(0, 1).contiguous()
        return self.cell(x, h)[0]


class HiddenOnly(Net):
    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        h = torch.tanh(self.start(k))[None]
        return self.cell(x, (h, torch.zeros_like(h)))[0]


class OfTheFirstStep(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x, torch.tanh(self.first(x[:, 0]))[None])[0]


class OfTheSecondStep(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x, torch.tanh(self.first(x[:, 1]))[None])[0]


class OfBothEnds(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x, torch.tanh(self.first(x[:, 0] + x[:, -1]))[None])[0]


class OfAllSteps(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x, torch.tanh(self.first(x.mean(1)))[None])[0]


def check(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    loaded = load(path, 4, 1.0)
    random = np.random.default_rng(0)
    ports = {port.name: port for port in loaded.graph.inputs}
    x = {name: port.sample(STEPS, BATCH, random) for name, port in ports.items()}
    fed = {name: port.original(x[name]) for name, port in ports.items()}
    (wanted,) = onnxruntime.InferenceSession(path).run(None, fed)
    state = np.tile(loaded.graph.initial, (BATCH, 1))
    for step in range(STEPS):
        rows = {name: (fed[name][np.newaxis] if ports[name].time is None else x[name][step : step + 1]) for name in x}
        if step:  # what only the start needs is not looked at again
            rows |= {name: np.zeros_like(rows[name]) for name in rows if ports[name].time is None}
        result = loaded.engine.run(rows, state, trace=True)
        state = result.state
        np.testing.assert_allclose(next(iter(result.outputs.values()))[0], wanted[:, step], atol=1e-5)
    assert {name: port.row for name, port in ports.items()} == shapes
    assert "what the first step computes" in [state.start for state in state_homes.states(loaded)]
    assert "layer 0 starts from what the first step" in " ".join(remarks.remarks(loaded))
    assert not loaded.proof.unread


def test_a_captioner_starts_from_its_image(tmp_path: Path) -> None:
    path = Path(shutil.copy(CASES / "captioner.onnx", tmp_path / "model.onnx"))
    check(path, {"image_features": (5,), "tokens": ()})


@pytest.mark.parametrize("net", [OfBothLayers(layers=2), HiddenOnly("LSTM")], ids=lambda net: type(net).__name__)
def test_a_start_is_computed_from_an_input_beside_the_sequence(net: nn.Module, export: Export) -> None:
    path = export(net, (torch.zeros(BATCH, 5, INPUTS), torch.zeros(BATCH, CONTEXT)), "x k", "y", BOTH)
    check(path, {"x": (INPUTS,), "k": (CONTEXT,)})


def test_a_start_is_computed_from_the_first_step(export: Export) -> None:
    check(export(OfTheFirstStep(), (torch.zeros(BATCH, 5, INPUTS),), "x", "y", SEQUENCE), {"x": (INPUTS,)})


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (OfTheSecondStep(), r"\(GRU\) starts from more than the first step of the sequence, and the others"),
        (OfBothEnds(), r"starts from the last step of the sequence, which has not come yet"),
    ],
    ids=["second", "both ends"],
)
def test_a_start_that_needs_a_later_step_is_refused_for_that(net: nn.Module, why: str, export: Export) -> None:
    path = export(net, (torch.zeros(BATCH, 5, INPUTS),), "x", "y", SEQUENCE)
    with pytest.raises(ModelRefused, match=why):
        load(path, 4, 1.0)


def test_a_start_that_needs_all_steps_is_refused_for_the_node_that_mixes_them(export: Export) -> None:
    path = export(OfAllSteps(), (torch.zeros(BATCH, 5, INPUTS),), "x", "y", SEQUENCE)
    with pytest.raises(ModelRefused, match=r"\(ReduceMean\) mixes steps"):
        load(path, 4, 1.0)
