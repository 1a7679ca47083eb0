"""Inputs that pick rows from a table: the proof draws them within it, whatever their type and wherever in a row."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stepgraph.loading import load

CASES = Path(__file__).parent / "cases"
BATCH, STEPS, HIDDEN = 2, 200, 8
FREE = {"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "time"}}

Export = Callable[..., Path]


class Net(nn.Module):
    """A table of three rows, and a cell that sees its rows and perhaps more."""

    def __init__(self, more: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.cell = nn.Embedding(3, 4), nn.GRU(4 + more, HIDDEN, batch_first=True)


class InAColumn(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.cell(torch.cat([self.table(x[:, :, 1].long()), x[:, :, :1].float(), x[:, :, 2:].float()], 2))[0]


class FromOne(Net):
    """Classes are counted from 1, as spreadsheets have them."""

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(self.table((x - 1).round().long()))[0]


class InOneTable(Net):
    """Two columns with a range of the table each."""

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(self.table(x[:, :, 0].long()) + self.table(x[:, :, 1].long() + 1))[0]


class AsOneHot(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.cell(functional.one_hot(x.long(), 4).float())[0]


def check(path: Path, below: tuple[int, ...]) -> None:
    """Served, drawn within the table, and right over 200 steps."""
    loaded = load(path, 4, 1.0)
    (port,) = loaded.graph.inputs
    assert port.below == below
    x = port.sample(STEPS, BATCH, np.random.default_rng(0))
    places = x.reshape(STEPS, BATCH, -1)[..., np.array(below) > 0]
    assert places.min() == 0
    assert places.max() == max(below) - 1
    (wanted,) = onnxruntime.InferenceSession(path).run(None, {port.name: x.swapaxes(0, 1)})
    state = np.tile(loaded.graph.initial, (BATCH, 1))
    for step in range(STEPS):
        result = loaded.engine.run({port.name: x[step : step + 1]}, state, trace=False)
        state = result.state
        np.testing.assert_allclose(result.outputs["y"][0], wanted[:, step], atol=1e-5)


def test_floats_that_are_places_in_a_table_are_drawn_as_such(tmp_path: Path) -> None:
    check(Path(shutil.copy(CASES / "float_tokens.onnx", tmp_path / "model.onnx")), (3,))


@pytest.mark.parametrize(
    ("net", "row", "below"),
    [
        (InAColumn(3), (4,), (0, 3, 0, 0)),
        (FromOne(), (), (4,)),
        (InOneTable(), (2,), (3, 2)),
        (AsOneHot(), (), (4,)),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_shifts_and_casts_before_a_table_are_followed(
    net: nn.Module, row: tuple[int, ...], below: tuple[int, ...], dtype: torch.dtype, export: Export
) -> None:
    check(export(net, (torch.ones(BATCH, 5, *row, dtype=dtype),), "x", "y", FREE), below)
