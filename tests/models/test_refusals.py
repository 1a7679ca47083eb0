"""What cannot stream is refused in words that name the node, say why, and say what to do; what can is served."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stepgraph.errors import ModelRefused
from stepgraph.loading import load

INPUTS, HIDDEN = 3, 4
X = torch.zeros(2, 5, INPUTS)
FREE = {"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "time"}}

Export = Callable[..., Path]
Part = Callable[[Tensor], Tensor]


class Around(nn.Module):
    """A cell, with something before it [B, T, I] to [B, T, I] and something after it [B, T, H] to anything."""

    def __init__(self, before: Part | None = None, after: Part | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.after = before, after
        self.cell = nn.GRU(INPUTS, HIDDEN, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.cell(self.before(x) if self.before else x)
        return self.after(y) if self.after else y


class OverTime(nn.Module):
    """A layer for [B, C, T] over [B, T, C]."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.transpose(1, 2)).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)

    def forward(self, y: Tensor) -> Tensor:
        return torch.softmax(self.query(y) @ self.key(y).transpose(1, 2), 2) @ y


class Banded(Attention):
    """Attention of each step over the last ones, by a mask or by rows that are put side by side."""

    def __init__(self, masked: bool, last: int = 4) -> None:
        super().__init__()
        self.masked, self.last = masked, last

    def forward(self, y: Tensor) -> Tensor:
        if not self.masked:
            late = functional.pad(y, (0, 0, self.last - 1, 0))
            rows = torch.stack([late[:, i : i + y.shape[1]] for i in range(self.last)], 2)
            weights = torch.softmax((self.query(y)[:, :, None] * self.key(rows)).sum(-1), -1)
            return (weights[..., None] * rows).sum(2)
        step = torch.arange(y.shape[1])
        apart = step[:, None] - step[None]
        scores = self.query(y) @ self.key(y).transpose(1, 2)
        return torch.softmax(scores.masked_fill((apart < 0) | (apart >= self.last), float("-inf")), 2) @ y


class Reversed(nn.Module):
    """A cell over reversed steps, and its answers reversed again."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(INPUTS, HIDDEN, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x.flip(1))[0].flip(1)


class Pooling(nn.Module):
    """Attention that gives the sequence one answer."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(HIDDEN, 1)

    def forward(self, y: Tensor) -> Tensor:
        return (torch.softmax(self.score(y), 1) * y).sum(1)


def later(y: Tensor) -> Tensor:
    """What comes one step later."""
    return torch.cat([y[:, 1:], torch.zeros_like(y[:, :1])], 1)


def flat(y: Tensor) -> Tensor:
    """One row for each step of each sequence."""
    return y.reshape(-1, HIDDEN)


WITH_BUFFER = r"export the file for one step at a time, with that buffer as an input and an output.*\[state\]"
WITH_STATE = r"export the file for one step at a time, with what it remembers.*under \[state\]"

REFUSED: dict[str, tuple[Callable[[], Around], str]] = {
    "attention over time": (
        lambda: Around(after=Attention()),
        r"\(MatMul\) mixes steps .*, as attention does\. Attention needs the whole sequence at once; export the",
    ),
    "attention over the last steps by a mask": (
        lambda: Around(after=Banded(masked=True)),
        r"\(MatMul\) mixes steps .*Where a mask leaves each step the last n alone, .* n side by side instead",
    ),
    "attention that pools": (
        lambda: Around(after=Pooling()),
        r"\(Softmax\) mixes steps .*: it weighs all steps of a sequence against each other, as attention does",
    ),
    "a softmax over time": (
        lambda: Around(after=lambda y: torch.softmax(y, 1)),
        r"\(Softmax\) mixes steps .*: it weighs all steps",
    ),
    "a row less its mean over time, by its deviation": (
        lambda: Around(before=lambda x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)),
        r"^node '/ReduceMean' \(ReduceMean\) averages over all steps, so this model cannot answer a stream",
    ),
    "a step by its number, which may be the second": (
        lambda: Around(after=lambda y: y.gather(1, (y[:, -1:] > 0).long())),
        r"\(GatherElements\) picks steps .* one step alone does not run, .* Only recurrent cells",
    ),
    "a step by its number": (
        lambda: Around(after=lambda y: y.gather(1, (y[:, -1:] > 2).long())),
        r"\(GatherElements\) mixes steps .*picks steps by their numbers.*let it take that, `y\[:, -1\]`",
    ),
    "a mean over time": (
        lambda: Around(after=lambda y: y.mean(1)),
        rf"\(ReduceMean\) mixes steps .*: it takes the mean over all steps of a sequence\. .*{WITH_STATE}",
    ),
    "a maximum over time": (
        lambda: Around(after=lambda y: y.amax(1)),
        rf"\(ReduceMax\) mixes steps .*: it takes the maximum over all steps of a sequence\. .*{WITH_STATE}",
    ),
    "a sum over time": (
        lambda: Around(after=lambda y: y.sum(1)),
        rf"\(ReduceSum\) mixes steps .*: it takes the sum over all steps of a sequence\. .*{WITH_STATE}",
    ),
    "a running sum from the end": (
        lambda: Around(after=lambda y: torch.flip(torch.cumsum(torch.flip(y, [1]), 1), [1])),
        r"\(Slice\) mixes steps .* it shifts, delays, cuts or reverses the sequence",
    ),
    "padding by reflection": (
        lambda: Around(before=OverTime(nn.ReflectionPad1d((2, 0)), nn.Conv1d(INPUTS, INPUTS, 3))),
        r"\(Pad\) needs 4 steps ahead, so this model cannot answer a stream",
    ),
    "the first step of something else in front": (
        lambda: Around(before=lambda x: x - torch.cat([x[:, :1].tanh(), x[:, :-1]], 1)),
        r"\(Slice\) mixes steps .*\(Concat\) puts rows that depend on the data before or after",
    ),
    "the first two steps": (
        lambda: Around(before=lambda x: x - x[:, :2].mean(1, keepdim=True)),
        r"\(Slice\) mixes steps .*\(Sub\) uses the value of the first step at every step",
    ),
    "a convolution over time": (
        lambda: Around(before=OverTime(nn.Conv1d(INPUTS, INPUTS, 3, padding=1))),
        rf"\(Conv\) mixes steps .*: its window covers several steps\. .*{WITH_BUFFER}",
    ),
    "a convolution after the cell": (
        lambda: Around(after=OverTime(nn.Conv1d(HIDDEN, 2, 5, padding=2))),
        rf"\(Conv\) mixes steps .*: its window covers several steps\. .*{WITH_BUFFER}",
    ),
    "an average of neighbours": (
        lambda: Around(after=OverTime(nn.AvgPool1d(3, 1, 1))),
        rf"\(AveragePool\) mixes steps .*: its window covers several steps\. .*{WITH_BUFFER}",
    ),
    "a look at the next step": (
        lambda: Around(after=later),
        r"it moves values from one step to another.*output 'y' at step 0 changes .* once later steps follow",
    ),
    "a look at the next step of the input": (
        lambda: Around(before=later),
        r"\((Slice|Concat)\) mixes steps .*: it moves values from one step to another",
    ),
    "a sequence turned round": (
        lambda: Around(before=lambda x: x.flip(1), after=lambda y: y.flip(1)),
        r"\(Slice\) mixes steps .*: it moves values from one step to another: .* reverses the sequence",
    ),
    "a norm over time": (
        lambda: Around(before=OverTime(nn.InstanceNorm1d(INPUTS))),
        r"\(InstanceNormalization\) mixes steps .*: it normalises over the steps of a sequence\. Normalise",
    ),
    "a norm over time and features": (
        lambda: Around(after=lambda y: y - y.mean((1, 2), keepdim=True)),
        r"\(ReduceMean\) mixes steps .*: it takes the mean over all steps",
    ),
    "the largest of all steps": (
        lambda: Around(after=lambda y: y.topk(1, 1).values),
        r"\(TopK\) mixes steps .*: it chooses among all steps",
    ),
    "a norm over sequences": (
        lambda: Around(after=lambda y: y - y.mean(0, keepdim=True)),
        r"rows of a batch influence each other: node .*\(ReduceMean\) mixes sequences\. Let the network",
    ),
    "numbers that no input has": (
        lambda: Around(after=lambda y: torch.log(-1 - y.abs())),
        r"the original file itself answers NaN in output 'y' at step 0 .* Nothing can be proved of it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_stream_is_refused_with_its_node_the_reason_and_advice(export: Export, name: str) -> None:
    net, reason = REFUSED[name]
    with pytest.raises(ModelRefused, match=reason) as refused:
        load(export(net(), (X,), "x", "y", FREE), 4, 1.0)
    assert refused.value.node is not None or "NaN" in reason


@pytest.mark.parametrize("name", ["a mean over time", "a convolution over time", "a sum over time"])
def test_the_same_is_said_of_a_file_with_fixed_axes(export: Export, name: str) -> None:
    net, reason = REFUSED[name]
    with pytest.raises(ModelRefused, match=reason):
        load(export(net(), (X,), "x", "y", {}), 4, 1.0)


def _trained_norm(features: int) -> nn.Module:
    torch.manual_seed(1)
    norm = nn.BatchNorm1d(features)
    norm(torch.randn(50, features))  # which is how it comes by its constants
    return norm


SERVED: dict[str, Callable[[], Around]] = {
    "a norm by constants": lambda: Around(before=OverTime(_trained_norm(INPUTS))),
    "a norm over features": lambda: Around(before=nn.LayerNorm(INPUTS), after=nn.LayerNorm(HIDDEN)),
    "a convolution of one step": lambda: Around(before=OverTime(nn.Conv1d(INPUTS, INPUTS, 1))),
    "a softmax over features": lambda: Around(after=lambda y: torch.softmax(y, 2)),
    "the last step": lambda: Around(after=lambda y: y[:, -1]),
    "a mean over features": lambda: Around(after=lambda y: y.mean(2, keepdim=True)),
    "a running sum": lambda: Around(after=lambda y: torch.cumsum(y, 1)),
    "attention over the last steps side by side": lambda: Around(after=Banded(masked=False)),
    "each step twice": lambda: Around(after=OverTime(nn.Upsample(scale_factor=2.0))),
    "a running sum over features": lambda: Around(after=lambda y: torch.cumsum(y, 2)),
    "positive inputs": lambda: Around(before=torch.log),
    "a root": lambda: Around(before=torch.sqrt),
    "large numbers": lambda: Around(after=lambda y: y * torch.tensor([1e6, 1e-6, 1.0, 1e3])),
    "large inputs": lambda: Around(before=lambda x: (x - 20) / 1e3, after=lambda y: y * 1e5 + 1e6),
    "padding that is cut off": lambda: Around(after=lambda y: functional.pad(y, (0, 0, 2, 0))[:, 2:]),
}


@pytest.mark.parametrize("name", SERVED)
def test_what_looks_at_one_step_at_a_time_is_served(export: Export, name: str) -> None:
    assert load(export(SERVED[name](), (X + 1,), "x", "y", FREE), 4, 1.0).graph.layers


def test_a_cell_that_runs_reverse_over_reversed_steps_is_refused_for_the_reversals(export: Export) -> None:
    file = export(Reversed(), (X,), "x", "y", FREE)
    model = onnx.load(file)
    (cell,) = (node for node in model.graph.node if node.op_type == "GRU")
    cell.attribute.append(onnx.helper.make_attribute("direction", "reverse"))
    onnx.save(model, file)
    with pytest.raises(ModelRefused, match=r"runs reverse over steps that .*\(Slice\) has reversed: the two cancel"):
        load(file, 1, 0.0)


def test_rows_along_one_axis_are_served_once_the_batch_axis_is_fixed_to_one_as_the_refusal_says(export: Export) -> None:
    with pytest.raises(
        ModelRefused, match=r"lays steps and sequences along one axis: let it keep both, or .* fixed to 1"
    ):
        load(export(Around(after=flat), (X,), "x", "y", FREE), 4, 0.0)
    path = export(Around(after=flat), (X[:1],), "x", "y", {"x": {1: "time"}, "y": {0: "time"}})
    loaded = load(path, 4, 0.0)
    assert loaded.engine.alone
    x = np.random.default_rng(0).standard_normal((1, 50, INPUTS), np.float32)
    (wanted,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    got = loaded.engine.run({"x": x.swapaxes(0, 1)}, loaded.graph.start(1), trace=False).outputs["y"]
    np.testing.assert_allclose(got[:, 0], wanted, atol=1e-6)
