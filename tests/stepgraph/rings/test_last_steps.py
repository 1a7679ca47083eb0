"""What takes the last steps of a sequence, fewer at its beginning, answers as onnxruntime does for each prefix."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from stepgraph.loading import load
from stepgraph.report.remarks import remarks

if TYPE_CHECKING:
    from stepgraph.model import LoadedModel

CASES = Path(__file__).parents[2] / "models" / "cases"
INPUTS, STEPS = 3, 200


class LastLstm(nn.Module):
    """An LSTM over the last steps of what a layer makes of each, in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Linear(INPUTS, 4)
        self.cell = nn.LSTM(4, 5, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(torch.tanh(self.front(x))[:, -20:])[0][:, -1]


class LastAttention(nn.Module):
    """Attention of the last step to the last twelve, and no cell."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(INPUTS, 4), nn.Linear(INPUTS, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, -12:]
        return (torch.softmax(self.query(x[:, -1:]) @ self.key(x).transpose(1, 2), -1) @ x).squeeze(1)


class MeanBesideCell(nn.Module):
    """A cell that goes on without end, and beside it a mean of the last ten steps, and a cell over the last seven."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.window = nn.GRU(INPUTS, 4, batch_first=True), nn.GRU(INPUTS, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.cell(x)[0][:, -1], x[:, -10:].mean(1), self.window(x[:, -7:])[0][:, -1]], 1)


def exported(net: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        free = {"x": {0: "batch", 1: "time"}, "y": {0: "batch"}}
        names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": free}
        torch.onnx.export(net.eval(), (torch.zeros(2, 40, INPUTS),), path, dynamo=False, opset_version=17, **names)
    return path


def held_to_each_prefix(loaded: LoadedModel, path: Path) -> None:
    x = np.random.default_rng(3).standard_normal((1, STEPS, INPUTS), np.float32)
    session = onnxruntime.InferenceSession(path)
    wanted = np.stack([session.run(["y"], {"x": x[:, : step + 1]})[0] for step in range(STEPS)])
    served = loaded.engine.run({"x": x.swapaxes(0, 1)}, loaded.graph.start(1), trace=False).outputs["y"]
    np.testing.assert_allclose(served, wanted, atol=1e-5)


def test_an_lstm_over_the_last_thirty_steps_is_served_and_keeps_the_twenty_nine_before() -> None:
    loaded = load(CASES / "long_last_window.onnx", 4, 0.0)
    held_to_each_prefix(loaded, CASES / "long_last_window.onnx")
    assert loaded.proof.unread == ""
    assert [ring.carried.given.row for ring in loaded.facts.rings] == [(29, INPUTS), (1,)]
    said = " ".join(remarks(loaded))
    assert "sequences run one by one" in said
    assert "'/lstm/LSTM' (LSTM) runs over the last steps anew at each step" in said


@pytest.mark.parametrize(("net", "layers"), [(LastLstm, 0), (LastAttention, 0), (MeanBesideCell, 1)])
def test_what_runs_over_the_last_steps_is_served(net: type[nn.Module], layers: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = exported(net(), tmp_path / "model.onnx")
    loaded = load(path, 4, 0.0)
    held_to_each_prefix(loaded, path)
    assert loaded.proof.unread == ""
    assert len(loaded.graph.layers) == layers
