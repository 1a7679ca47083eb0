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
from stepgraph.proving import hints

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


def held_to_the_file(path: Path, steps: int, *marks: float) -> None:
    """Each single step gives what onnxruntime gives for the whole of the untouched file."""
    engine = load(path, 4, 1.0).engine
    x = np.random.default_rng(5).normal(size=(2, steps, INPUTS)).astype(np.float32)
    for k, mark in enumerate(marks):
        x[:, 1 + k :: 7 + k] = mark
    (wanted,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    answers = engine.run({"x": x.swapaxes(0, 1)}, engine.graph.start(2), trace=False).outputs["y"]
    np.testing.assert_allclose(answers.swapaxes(0, 1), wanted, atol=1e-4)


@pytest.mark.parametrize("name", ["long_lag", "long_sentinel"])
def test_a_file_that_looks_back_further_than_thirteen_steps_is_served_with_its_numbers(name: str) -> None:
    held_to_the_file(CASES / f"{name}.onnx", STEPS, -999.0)


@pytest.mark.parametrize("steps", [1, 14, 700])
def test_a_lag_of_any_length_is_kept_in_a_ring(steps: int, exported: Exported) -> None:
    held_to_the_file(exported(lagged(steps)), steps + 30)


def held_where_the_sum_is_zero(number: float) -> Part:
    return lambda x: torch.where((x + number).sign() == 0, functional.pad(x, (0, 0, 1, 0))[:, : x.shape[1]], x)


@pytest.mark.parametrize("back", [16, 512])
def test_a_dilated_convolution_keeps_what_its_kernel_reaches(back: int, exported: Exported) -> None:
    held_to_the_file(exported(Dilated(back)), back + 30)


@pytest.mark.parametrize("before", [held_when_equal(-999.0), held_above(500.0), held_where_the_sum_is_zero(77.0)])
def test_what_a_file_does_at_a_number_that_it_names_is_done_step_by_step(before: Part, exported: Exported) -> None:
    held_to_the_file(exported(before), STEPS, -999.0, 501.0, -77.0)


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


class Counted(nn.Module):
    """Whole numbers, of which one repeats what was before it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.GRU(INPUTS, HIDDEN, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        held = torch.where(x == 7, functional.pad(x, (0, 0, 1, 0))[:, : x.shape[1]], x)
        return self.cell(held.float())[0]


def test_what_a_file_does_at_a_whole_number_that_it_names_is_done_step_by_step(export: Export) -> None:
    path = export(Counted(), (torch.zeros(2, 5, INPUTS, dtype=torch.int64),), "x", "y", FREE)
    engine = load(path, 4, 1.0).engine
    x = np.random.default_rng(5).integers(5, 9, (2, 40, INPUTS))
    (wanted,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    answers = engine.run({"x": x.swapaxes(0, 1)}, engine.graph.start(2), trace=False).outputs["y"]
    np.testing.assert_allclose(answers.swapaxes(0, 1), wanted, atol=1e-5)


class Delayed(nn.Module):
    """A state that has it look one step back once it was above 500."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.GRU(INPUTS, HIDDEN, batch_first=True)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        late = functional.pad(x, (0, 0, 1, 0))[:, : x.shape[1]]
        x = torch.where((h[0].sum(1) > 500.0)[:, None, None], late, x)
        return self.cell(x, torch.tanh(h))


def test_what_a_file_does_from_a_state_that_it_names_is_tried(export: Export) -> None:
    toml = '[state]\nh = "h_out"\n'  # else it is an input like others, and the file does as it is told
    axes = {**FREE, "h": {1: "batch"}}
    args = (torch.zeros(2, 5, INPUTS), torch.zeros(1, 2, HIDDEN))
    with pytest.raises(ModelRefused):
        load(export(Delayed(), args, "x h", "y h_out", axes, toml), 4, 1.0)


def one_node(node: onnx.NodeProto, opset: int, *constants: tuple[str, np.ndarray]) -> Graph:
    x, y = (onnx.helper.make_empty_tensor_value_info(name) for name in "xy")
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in constants]
    graph = onnx.helper.make_graph([node], "g", [x], [y], tensors)
    return Graph(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)]))


@pytest.mark.parametrize(
    "graph",
    [
        one_node(onnx.helper.make_node("Pad", ["x"], ["y"], pads=[0, 0, 500, 0, 0, 0]), 10),
        one_node(onnx.helper.make_node("Slice", ["x"], ["y"], axes=[0], starts=[0], ends=[-500]), 9),
        one_node(onnx.helper.make_node("Conv", ["x", "w"], ["y"]), 17, ("w", np.zeros((1, 1, 501), np.float32))),
        one_node(onnx.helper.make_node("Mod", ["x", "m"], ["y"]), 17, ("m", np.array(500))),
        one_node(onnx.helper.make_node("Div", ["x", "m"], ["y"]), 17, ("m", np.array(500))),
        one_node(
            onnx.helper.make_node("STFT", ["x", "step", "", "n"], ["y"]),
            17,
            ("step", np.array(250)),
            ("n", np.array(500)),
        ),
    ],
    ids=lambda graph: graph.nodes[0].op_type,
)
def test_a_reach_is_found_where_any_version_of_an_operator_has_it(graph: Graph) -> None:
    assert hints.hints(graph).steps > 500


def test_the_hints_of_a_file_are_its_reaches_and_its_thresholds(exported: Exported) -> None:
    found = hints.hints(Graph(onnx.load(exported(held_when_equal(-999.0)))))
    assert -999.0 in found.thresholds
    assert hints.hints(Graph(onnx.load(exported(lagged(700))))).steps > 700
    assert hints.hints(Graph(onnx.load(exported(Dilated(512))))).steps > 512


def test_a_network_that_makes_much_of_its_last_digits_is_not_refused_for_a_long_sequence(export: Export) -> None:
    torch.manual_seed(3)
    net = nn.RNN(INPUTS, 16, nonlinearity="tanh", batch_first=True)
    with torch.no_grad():
        net.weight_hh_l0 *= 3.5  # chaotic: a difference in the last digit grows to one in the first
    path = export(net, (torch.zeros(2, 5, INPUTS),), "x", "y h", FREE)
    assert load(path, 4, 1.0).proof.steps < hints.STEPS  # and only what was compared is counted


def test_bounds_that_are_infinite_are_no_thresholds() -> None:
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3]) for name in "xy")
    bounds = [onnx.numpy_helper.from_array(np.array(b, np.float32), n) for n, b in (("low", -np.inf), ("high", 6.5))]
    clip = onnx.helper.make_node("Clip", ["x", "low", "high"], ["y"])
    found = hints.hints(Graph(onnx.helper.make_model(onnx.helper.make_graph([clip], "g", [x], [y], bounds))))
    assert found.thresholds == (6.5,)
