"""Cells that run both ways: over the frequencies of one step they may, over time they may not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from stepgraph.errors import ModelRefused
from stepgraph.loading import load

BATCH, STEPS, BANDS = 2, 200, 9
X = torch.zeros(BATCH, 3, BANDS, 2)
TIMED = {"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "time"}}

Export = Callable[..., Path]


class Spectrum(nn.Module):
    """Both ways over the bands of a step, then forward over the steps."""

    def __init__(self, over_time: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.across = nn.GRU(2, 3, bidirectional=True, batch_first=True)
        self.along = nn.GRU(6, 5, batch_first=True, bidirectional=over_time)
        self.then = nn.GRU(10, 5, batch_first=True)

    def bands(self, x: Tensor) -> Tensor:
        """[B, T, F, 2] to [B, T, 6]."""
        batch, time, bands = x.shape[:3]
        return self.across(x.reshape(batch * time, bands, 2))[0].reshape(batch, time, bands, 6).mean(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.along(self.bands(x))[0]


class BothWaysOverTime(Spectrum):
    def forward(self, x: Tensor) -> Tensor:
        return self.then(super().forward(x))[0]


class WithCache(Spectrum):
    """One step, which remembers the frame before it outside its cells."""

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        return self.bands(x - 0.5 * before).tanh(), x


def check(path: Path) -> None:
    loaded = load(path, 4, 1.0)
    x = np.random.default_rng(0).normal(size=(BATCH, STEPS, BANDS, 2)).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    state = np.tile(loaded.graph.initial, (BATCH, 1))
    for step in range(STEPS):
        result = loaded.engine.run({"x": x[np.newaxis, :, step]}, state, trace=False)
        state = result.state
        np.testing.assert_allclose(result.outputs["y"][0], wanted[:, step], atol=1e-5)


def test_a_cell_that_runs_both_ways_over_bands_is_served(export: Export) -> None:
    check(export(Spectrum(), (X,), "x", "y", TIMED))


def test_where_the_bands_are_free_too_the_refusal_says_how_to_fix_them(export: Export) -> None:
    path = export(Spectrum(), (X,), "x", "y", {"x": {0: "batch", 1: "time", 2: "bands"}})
    with pytest.raises(ModelRefused, match=r"the axis 'bands' of 'x' is neither .*\[block\]: x = 10"):
        load(path, 4, 1.0)
    path.with_name("model.toml").write_text(f"[block]\nx = {BANDS}\n")
    check(path)


def test_a_cell_that_runs_both_ways_over_time_is_refused_whatever_else_does_within_a_step(export: Export) -> None:
    for net in (Spectrum(over_time=True), BothWaysOverTime(over_time=True)):
        with pytest.raises(ModelRefused, match=r"node '/along/GRU' \(GRU\) runs bidirectional"):
            load(export(net, (X,), "x", "y", TIMED), 4, 1.0)


def test_a_file_whose_only_cell_runs_within_a_step_streams_once_its_state_is_said(export: Export) -> None:
    axes = {name: {0: "batch"} for name in ("x", "before", "y", "after")}
    path = export(WithCache(), (X[:, :1], X[:, :1]), "x before", "y after", axes)
    with pytest.raises(ModelRefused, match="If it runs within one step, over frequencies, say"):
        load(path, 4, 1.0)
    path.with_name("model.toml").write_text('[state]\nbefore = "after"\n')
    loaded, session = load(path, 4, 1.0), onnxruntime.InferenceSession(path)
    x = np.random.default_rng(0).normal(size=(STEPS, BATCH, 1, BANDS, 2)).astype(np.float32)
    state, before = np.tile(loaded.graph.initial, (BATCH, 1)), np.zeros_like(x[0])
    for row in x:
        wanted, before = session.run(None, {"x": row, "before": before})
        result = loaded.engine.run({"x": row[np.newaxis]}, state, trace=False)
        state = result.state
        np.testing.assert_allclose(result.outputs["y"][0], wanted, atol=1e-5)
