"""Files whose shapes hold the sizes of their example: batch and time are freed, in one Reshape too."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from stepgraph.loading import load
from stepgraph.model import LoadedModel

CASES = Path(__file__).parent / "cases"
STEPS, INPUTS, HIDDEN = 200, 4, 8

Export = Callable[..., Path]


def streamed(loaded: LoadedModel, x: np.ndarray) -> np.ndarray:
    """The answers [B, T, O] to x [B, T, I], a step at a time; sequences one by one where they must be."""
    rows = [x] if not loaded.engine.alone else [x[i : i + 1] for i in range(len(x))]
    answers = []
    for row in rows:
        state, steps = np.tile(loaded.graph.initial, (len(row), 1)), []
        for step in range(x.shape[1]):
            result = loaded.engine.run({"x": row[np.newaxis, :, step]}, state, trace=False)
            state = result.state
            (y,) = result.outputs.values()
            steps.append(y[0].reshape(len(row), -1))
        answers.append(np.stack(steps, 1))
    return np.concatenate(answers)


def drawn(batch: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(batch, STEPS, INPUTS)).astype(np.float32)


def test_a_loop_of_keras_with_batch_and_time_in_one_reshape_is_freed() -> None:
    path = CASES / "keras_gru_static.onnx"
    weights = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    (b,), (w,), (r,), (head,) = ([v for v in weights if v.shape == s] for s in [(2, 24), (4, 24), (8, 24), (8, 2)])
    x, h, answers = drawn(1), np.zeros(HIDDEN), []
    for row in x[0]:
        z_x, r_x, n_x = np.split(row @ w + b[0], 3)
        z_h, r_h, n_h = np.split(h @ r + b[1], 3)
        update, reset = (1 / (1 + np.exp(-gate)) for gate in (z_x + z_h, r_x + r_h))
        h = update * h + (1 - update) * np.tanh(n_x + reset * n_h)
        answers.append(h @ head)
    got = streamed(load(path, 4, 1.0), x)
    np.testing.assert_allclose(got[0], answers, atol=1e-5)
    (whole,) = onnxruntime.InferenceSession(path).run(None, {"x": x[:, :6]})
    np.testing.assert_allclose(got[:, :6], whole, atol=1e-5)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.cell, self.head = nn.Linear(INPUTS, 5), nn.GRU(5, HIDDEN), nn.Linear(HIDDEN, 2)

    def steps(self, x: Tensor) -> Tensor:
        """[B, T, I] to [T, B, H]."""
        return self.cell(torch.tanh(self.before(x)).transpose(0, 1))[0]


class Folded(Net):
    """A layer on all steps of all sequences at once, as Keras distributes it over time."""

    def forward(self, x: Tensor) -> Tensor:
        batch, time = x.shape[:2]
        flat = self.head(self.steps(x).transpose(0, 1).reshape(batch * time, HIDDEN))
        return flat.reshape(batch, time, 2)


class Turned(Net):
    """Of one sequence a Reshape does what a Transpose does."""

    def forward(self, x: Tensor) -> Tensor:
        time = x.shape[1]
        y = self.cell(torch.tanh(self.before(x)).reshape(time, 1, 5))[0]
        return self.head(y.reshape(time, HIDDEN)).reshape(1, time, 2)


class Grouped(Net):
    def forward(self, x: Tensor) -> Tensor:
        batch, time = x.shape[:2]
        y = self.steps(x).transpose(0, 1).reshape(batch, time, 2, HIDDEN // 2)
        return self.head((y * 0.5).reshape(batch, time, HIDDEN))


@pytest.mark.parametrize(
    ("net", "batch", "time"),
    [(Folded(), 2, 6), (Folded(), 1, 6), (Folded(), 3, HIDDEN), (Turned(), 1, 6), (Grouped(), 2, 6), (Grouped(), 3, 2)],
    ids=lambda value: type(value).__name__,
)
def test_sizes_in_shapes_are_those_of_the_input_if_the_file_can_be_freed_so(
    net: nn.Module, batch: int, time: int, export: Export
) -> None:
    path = export(net, (torch.zeros(batch, time, INPUTS),), "x", "y", {})
    loaded = load(path, 4, 1.0)
    x = drawn(2)
    with torch.no_grad():
        wanted = torch.cat([net(torch.tensor(row[np.newaxis])) for row in x]).numpy()
    np.testing.assert_allclose(streamed(loaded, x), wanted, atol=1e-5)
    assert bool(loaded.engine.alone) == (batch == 1)


class Heads(Net):
    """Several heads, split by a size of the example, as an exporter writes it that could not trace the length."""

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(x).transpose(0, 1).reshape(-1, 6, 2, HIDDEN // 2).tanh()


def test_an_axis_of_time_that_is_free_in_name_only_is_freed(export: Export) -> None:
    net = Heads()
    path = export(net, (torch.zeros(2, 6, INPUTS),), "x", "y", {"x": {0: "batch", 1: "time"}, "y": {0: "batch"}})
    model = onnx.load(path)
    for dim, size in zip(model.graph.output[0].type.tensor_type.shape.dim[1:], (6, 2, HIDDEN // 2), strict=True):
        dim.dim_value = size  # as torch's newer exporter writes it
    onnx.save(model, path)
    loaded, x = load(path, 1, 0.0), drawn(2)
    assert loaded.facts.freed == "the time axis of input 'x'"
    with torch.no_grad():
        wanted = net.steps(torch.tensor(x)).transpose(0, 1).tanh().numpy()
    np.testing.assert_allclose(streamed(loaded, x), wanted, atol=1e-5)
    (whole,) = onnxruntime.InferenceSession(path).run(None, {"x": x[:, :6]})
    np.testing.assert_allclose(streamed(loaded, x[:, :6]), whole.reshape(2, 6, HIDDEN), atol=1e-5)
