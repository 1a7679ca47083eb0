"""What a file does far back, or at numbers that noise never has, is found before it is served."""

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
from stepgraph.graphs.graph import Graph
from stepgraph.loading import load
from stepgraph.proving import long_run

CASES = Path(__file__).parent / "cases"
INPUTS, HIDDEN, STEPS = 3, 4, 200
FREE = {"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "time"}}

Part = Callable[[Tensor], Tensor]
Export = Callable[..., Path]
Exported = Callable[[Part], Path]


class Before(nn.Module):
    """A cell behind something else, [B, T, I] to [B, T, H]."""

    def __init__(self, before: Part) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before = before
        self.cell = nn.GRU(INPUTS, HIDDEN, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(self.before(x))[0]


@pytest.fixture
def exported(export: Export) -> Callable[[Part], Path]:
    return lambda before: export(Before(before), (torch.zeros(2, 5, INPUTS),), "x", "y", FREE)


def lagged(steps: int) -> Part:
    return lambda x: x + functional.pad(x, (0, 0, steps, 0))[:, : x.shape[1]]


def held_when_equal(sentinel: float) -> Part:
    return lambda x: torch.where(x == sentinel, functional.pad(x, (0, 0, 1, 0))[:, : x.shape[1]], x)


def held_above(threshold: float) -> Part:
    return lambda x: torch.where(x > threshold, functional.pad(x, (0, 0, 1, 0))[:, : x.shape[1]], x)


class Dilated(nn.Module):
    """A causal convolution that reaches back `back` steps through one tap."""

    def __init__(self, back: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.back = back
        self.conv = nn.Conv1d(INPUTS, INPUTS, 2, dilation=back)
        with torch.no_grad():
            self.conv.weight[:, :, 0] *= 0.1

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.pad(x.transpose(1, 2), (self.back, 0))).transpose(1, 2)


@pytest.mark.parametrize("name", ["long_lag", "long_last_window", "long_sentinel"])
def test_a_file_that_passed_thirteen_steps_of_noise_and_is_wrong_later_is_refused_with_its_node(name: str) -> None:
    with pytest.raises(ModelRefused, match=r"mixes steps .* agrees with the original file up to step \d+"):
        load(CASES / f"{name}.onnx", 4, 1.0)


@pytest.mark.parametrize("steps", [14, 50, 299, 700])
def test_a_lag_of_any_length_is_found(steps: int, exported: Exported) -> None:
    with pytest.raises(ModelRefused, match=f"up to step {steps - 1} "):
        load(exported(lagged(steps)), 4, 1.0)


@pytest.mark.parametrize("back", [16, 64, 512])
def test_a_dilated_convolution_is_found_by_what_its_kernel_reaches(back: int, exported: Exported) -> None:
    with pytest.raises(ModelRefused, match=r"\(Conv\) mixes steps"):
        load(exported(Dilated(back)), 4, 1.0)


@pytest.mark.parametrize("before", [held_when_equal(-999.0), held_when_equal(1e6), held_above(500.0)])
def test_what_a_file_does_at_a_number_that_it_names_is_tried(before: Part, exported: Exported) -> None:
    with pytest.raises(ModelRefused, match="mixes steps"):
        load(exported(before), 4, 1.0)


@pytest.mark.parametrize(
    "before",
    [
        lambda x: torch.where(x < -900.0, torch.zeros_like(x), x),
        lambda x: x.clamp(-5.0, 5.0),
        lambda x: torch.where(x == -999.0, torch.ones_like(x), x / 3),
        lambda x: (x * 1000).round() / 1000,
    ],
)
def test_a_file_that_looks_at_each_number_by_itself_is_served_with_the_original_s_numbers(
    before: Part, exported: Exported
) -> None:
    path = exported(before)
    engine = load(path, 4, 1.0).engine
    x = np.random.default_rng(5).normal(size=(1, STEPS, INPUTS)).astype(np.float32)
    x[0, ::7] = -999.0
    (wanted,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    state = engine.graph.initial[np.newaxis]
    for step in range(STEPS):
        result = engine.run({"x": x[:, step : step + 1]}, state, trace=False)
        state = result.state
        np.testing.assert_allclose(result.outputs["y"][0], wanted[:, step], atol=1e-4)


def test_the_hints_of_a_file_are_its_reaches_and_its_thresholds(exported: Exported) -> None:
    found = long_run.hints(Graph(onnx.load(exported(held_when_equal(-999.0)))))
    assert -999.0 in found.thresholds
    assert long_run.hints(Graph(onnx.load(exported(lagged(700))))).steps > 700
    assert long_run.hints(Graph(onnx.load(exported(Dilated(512))))).steps > 512


def test_a_network_that_makes_much_of_its_last_digits_is_not_refused_for_a_long_sequence(export: Export) -> None:
    torch.manual_seed(3)
    net = nn.RNN(INPUTS, 16, nonlinearity="tanh", batch_first=True)
    with torch.no_grad():
        net.weight_hh_l0 *= 3.5  # chaotic: a difference in the last digit grows to one in the first
    path = export(net, (torch.zeros(2, 5, INPUTS),), "x", "y h", FREE)
    assert load(path, 4, 1.0).proof.steps < long_run._STEPS  # and only what was compared is counted


def test_bounds_that_are_infinite_are_no_thresholds() -> None:
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3]) for name in "xy")
    bounds = [onnx.numpy_helper.from_array(np.array(b, np.float32), n) for n, b in (("low", -np.inf), ("high", 6.5))]
    clip = onnx.helper.make_node("Clip", ["x", "low", "high"], ["y"])
    found = long_run.hints(Graph(onnx.helper.make_model(onnx.helper.make_graph([clip], "g", [x], [y], bounds))))
    assert found.thresholds == (6.5,)
