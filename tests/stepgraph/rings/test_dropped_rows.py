"""Files that drop the first rows of a sequence: a convolution or a difference without padding."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from stepgraph.errors import ModelRefused
from stepgraph.loading import load
from stepgraph.rewriting.stepgraph import ANSWERED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INPUTS, STEPS = 3, 60


class Slid(nn.Module):
    """A convolution over time without padding."""

    def __init__(self, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(INPUTS, INPUTS, kernel, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.transpose(1, 2)).transpose(1, 2)


class Stack(nn.Module):
    """Parts and cells, one after the other."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            y = part(x)
            x = y[0] if isinstance(y, tuple) else y
        return x


class Part(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def changed_since(steps: int) -> nn.Module:
    return Part(lambda x: x[:, steps:] - x[:, :-steps])


def lstm(layers: int = 1) -> nn.Module:
    return nn.LSTM(INPUTS, INPUTS, layers, batch_first=True)


def gru() -> nn.Module:
    return nn.GRU(INPUTS, INPUTS, batch_first=True)


ROWS = torch.zeros(2, 30, INPUTS)
LAST = Part(lambda x: x[:, -1])
DROPPED: dict[str, tuple[int, Callable[[], nn.Module]]] = {
    "a difference": (1, lambda: Stack(changed_since(1), lstm(2))),
    "a difference over five steps before a GRU": (5, lambda: Stack(changed_since(5), gru())),
    "rows left out": (4, lambda: Stack(Part(lambda x: x[:, 4:]), lstm())),
    "rows left out of what is compared with the first": (
        2,
        lambda: Stack(Part(lambda x: (x - x[:, :1])[:, 2:]), gru()),
    ),
    "rows left out of a mean so far": (
        3,
        lambda: Stack(Part(lambda x: (x.cumsum(1) / torch.ones_like(x).cumsum(1))[:, 3:]), gru()),
    ),
    "convolutions": (10, lambda: Stack(Slid(3), nn.ReLU(), Slid(3, 4), lstm())),
    "a cell before and one behind": (2, lambda: Stack(lstm(), Slid(3), gru())),
    "convolutions between cells": (6, lambda: Stack(Slid(5), gru(), Slid(3), lstm())),
    "no cell": (6, lambda: Stack(Slid(3), nn.ReLU(), Slid(5))),
    "an answer for all steps": (5, lambda: Stack(changed_since(5), gru(), LAST)),
    "a sum of the last three": (4, lambda: Stack(changed_since(4), gru(), Part(lambda x: x[:, -3:].sum(1)))),
    "whole numbers": (2, lambda: Stack(Slid(3), lstm(), Part(lambda x: x.argmax(-1)))),
}


def exported(network: nn.Module, path: Path, given: Tensor = ROWS) -> None:
    found = network(given)
    answers = dict(zip(("y", "early"), found if isinstance(found, tuple) else (found,), strict=False))
    axes = {name: {0: "batch", 1: "time"} for name, y in {"x": given, **answers}.items() if y.shape[1] > INPUTS}
    names = {"input_names": ["x"], "output_names": [*answers], "dynamic_axes": {"y": {0: "batch"}, **axes}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(network.eval(), (given,), path, dynamo=False, opset_version=17, **names)


@pytest.mark.parametrize("name", DROPPED)
def test_the_first_steps_have_no_answer_and_the_others_that_of_the_file(name: str, tmp_path: Path) -> None:
    lead, made = DROPPED[name]
    path = tmp_path / "model.onnx"
    exported(made(), path)
    model, original = load(path, 2, 0.0), onnxruntime.InferenceSession(path)
    assert (model.proof.unread, model.facts.lead) == ("", lead)
    batch = 1 if model.facts.alone else 2
    x = np.random.default_rng(0).standard_normal((batch, STEPS, INPUTS), np.float32)
    found = model.engine.run({"x": np.swapaxes(x, 0, 1)}, model.graph.start(batch), trace=False).outputs
    np.testing.assert_array_equal(found[ANSWERED], np.arange(STEPS)[:, np.newaxis].repeat(batch, 1) >= lead)
    if found["y"].dtype.kind == "f":
        assert np.isnan(found["y"][:lead]).all()
    prefixes = range(lead + 1, STEPS + 1) if model.facts.outputs[0].time is None else [STEPS]
    wanted = [original.run(["y"], {"x": x[:, :steps]})[0] for steps in prefixes]
    rows = np.stack(wanted) if len(wanted) > 1 else np.swapaxes(wanted[0], 0, 1)
    np.testing.assert_allclose(found["y"][lead:], rows, atol=1e-5)


def test_states_wait_for_the_first_step_that_is_answered_and_then_go_on(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    exported(Stack(changed_since(5), lstm()), path)
    model = load(path, 1, 0.0)
    x = np.ones((6, 1, INPUTS), np.float32)
    cells = [columns.span for columns in model.graph.state if columns.layer is not None]
    state = model.graph.start(1)
    for step in range(6):
        result = model.engine.run({"x": x[step : step + 1]}, state, trace=True)
        moved = [not np.array_equal(result.state[:, span], state[:, span]) for span in cells]
        assert moved == [step == 5] * 2
        assert result.trace is not None
        assert np.isnan(result.trace).all() == (step < 5)
        state = result.state.copy()


def test_a_window_that_is_no_longer_than_what_the_file_drops_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    exported(Stack(changed_since(5), lstm()), path)
    (tmp_path / "model.toml").write_text("[window]\nsteps = 5\n")
    with pytest.raises(ModelRefused, match="a window of 5 steps has no answer: the file drops the first 5 rows"):
        load(path, 1, 0.0)


class Sound(nn.Module):
    """Frames of samples that overlap, by convolutions without padding."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = nn.Sequential(nn.Conv1d(1, 4, 10, 5), nn.ReLU(), nn.Conv1d(4, INPUTS, 5, 4))
        self.cell = gru()

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(self.frames(x.unsqueeze(1)).transpose(1, 2))[0]


def test_frames_that_overlap_are_answered_from_the_first_whole_one_on(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    exported(Sound(), path, torch.zeros(2, 300))
    model, original = load(path, 1, 0.0), onnxruntime.InferenceSession(path)
    assert (model.facts.lead, model.facts.inputs[0].block, model.proof.unread) == (1, 20, "")
    x = np.random.default_rng(0).standard_normal((1, 20 * STEPS), np.float32)
    found = model.engine.run({"x": x.reshape(STEPS, 1, 20)}, model.graph.start(1), trace=False).outputs["y"]
    np.testing.assert_allclose(found[1:, 0], original.run(["y"], {"x": x})[0][0], atol=1e-5)


class Twice(nn.Module):
    """Answers of a cell, and of another that sees how they change."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = gru(), Stack(changed_since(3), gru())

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)[0]
        return self.second(y), y


def test_outputs_that_begin_sooner_are_answered_with_the_last(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    exported(Twice(), path)
    model, original = load(path, 1, 0.0), onnxruntime.InferenceSession(path)
    x = np.random.default_rng(0).standard_normal((STEPS, 1, INPUTS), np.float32)
    found = model.engine.run({"x": x}, model.graph.start(1), trace=False).outputs
    for name, wanted in zip(("y", "early"), original.run(["y", "early"], {"x": x.swapaxes(0, 1)}), strict=True):
        assert np.isnan(found[name][:3]).all()
        np.testing.assert_allclose(found[name][3:, 0], wanted[0][3 - STEPS :], atol=1e-5)


@pytest.mark.parametrize("answer", ["every", "last"])
def test_a_window_drops_its_own_first_rows(answer: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    exported(Stack(changed_since(2), gru()), path)
    (tmp_path / "model.toml").write_text(f'[window]\nsteps = 8\nanswer = "{answer}"\n')
    model, original = load(path, 1, 0.0), onnxruntime.InferenceSession(path)
    x = np.random.default_rng(0).standard_normal((16, 1, INPUTS), np.float32)
    found = model.engine.run({"x": x}, model.graph.start(1), trace=False).outputs
    answered = ([False] * 2 + [True] * 6 if answer == "every" else [False] * 7 + [True]) * 2
    assert found[ANSWERED][:, 0].tolist() == answered
    wanted = [original.run(["y"], {"x": x[i : i + 8].swapaxes(0, 1)})[0][0] for i in (0, 8)]
    np.testing.assert_allclose(found["y"][10:16, 0][-1], wanted[1][-1], atol=1e-5)
    if answer == "every":
        np.testing.assert_allclose(found["y"][10:, 0], wanted[1], atol=1e-5)
