"""Files that compute with 8 bits, as onnxruntime's quantisation makes them: states, gates, and what is proved."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from stepgraph.errors import ModelRefused
from stepgraph.loading import load
from stepgraph.model import LoadedModel
from stepgraph.report.examination import examine
from stepgraph.report.page import lines
from tests.equations import sigmoid

BATCH, TIME, INPUTS, HIDDEN, OUTPUTS = 3, 6, 3, 8, 2
Array = NDArray[np.float32]
ROUNDED = {"default": {}, "each channel": {"per_channel": True}, "signed": {"weight_type": QuantType.QInt8}}


class Net(nn.Module):
    def __init__(self, kind: str = "LSTM", layers: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = getattr(nn, kind)(INPUTS, HIDDEN, layers, batch_first=True)
        self.head = nn.Linear(HIDDEN, OUTPUTS)
        with torch.no_grad():  # no two gates may be mistaken for each other
            for name, bias in self.cell.named_parameters():
                if name.startswith("bias"):
                    for gate, block in enumerate(bias.chunk({"LSTM": 4, "GRU": 3}[kind])):
                        block.add_(0.3 * gate - 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0])


class Shown(Net):
    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        y, (h, c) = self.cell(x, (h, c))
        return self.head(y), h, c


class Mixing(Net):
    """A little of the mean of all steps, far less than what rounding may do."""

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.cell(x)
        return self.head(y + 0.002 * y.mean(1, keepdim=True))


def export(net: nn.Module, folder: Path, **options: object) -> tuple[Path, Path]:
    """The files of a network before and after quantisation."""
    exact, rounded = folder / "exact.onnx", folder / "model.onnx"
    shown = isinstance(net, Shown)
    args = (torch.zeros(BATCH, TIME, INPUTS), *([torch.zeros(2, BATCH, HIDDEN)] * 2 if shown else []))
    axes = {"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "time"}}
    axes |= {name: {1: "batch"} for name in ("h", "c", "hn", "cn") if shown}
    names = (["x", "h", "c"], ["y", "hn", "cn"]) if shown else (["x"], ["y"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            net.eval(),
            args,
            str(exact),
            dynamo=False,
            opset_version=17,
            dynamic_axes=axes,
            input_names=names[0],
            output_names=names[1],
        )
    quantize_dynamic(exact, rounded, **options)
    return exact, rounded


def rows(steps: int = TIME) -> Array:
    return np.random.default_rng(0).standard_normal((BATCH, steps, INPUTS)).astype(np.float32)


def streamed(model: LoadedModel, x_BTI: Array) -> tuple[Array, Array]:
    """What the server answers and traces, each sequence and each step alone: [B, T, ...] both."""
    answers, traces = [], []
    for x_TI in x_BTI:
        state = model.graph.initial[np.newaxis]
        for x_I in x_TI:
            result = model.engine.run({"x": x_I[np.newaxis, np.newaxis]}, state, trace=True)
            state = result.state
            answers.append(result.outputs["y"][0, 0])
            traces.append(result.trace[0, 0])
    shape = x_BTI.shape[:2]
    return np.stack(answers).reshape(*shape, -1), np.stack(traces).reshape(*shape, -1)


def parts(model: LoadedModel, trace: Array, layer: int) -> dict[str, Array]:
    return {columns.name: trace[..., columns.span] for columns in model.graph.trace if columns.layer == layer}


def check_gates(parts: dict[str, Array]) -> None:
    """The states of each step follow from the gates and the states of the step before."""
    before = np.concatenate([np.zeros_like(parts["cell"][:, :1]), parts["cell"][:, :-1]], 1)
    np.testing.assert_allclose(parts["cell"], parts["forget"] * before + parts["input"] * parts["candidate"], atol=1e-6)
    np.testing.assert_allclose(parts["hidden"], parts["output"] * np.tanh(parts["cell"]), atol=1e-6)


@pytest.mark.parametrize("options", ROUNDED.values(), ids=ROUNDED)
def test_an_lstm_in_8_bits_streams_what_its_operator_answers_to_single_steps(
    tmp_path: Path, options: dict[str, object]
) -> None:
    _, path = export(Shown(), tmp_path, **options)
    assert "DynamicQuantizeLSTM" in {node.op_type for node in onnx.load(path).graph.node}
    model = load(path, 4, 1.0)
    answers, _ = streamed(model, rows())
    original = onnxruntime.InferenceSession(path)
    for x_TI, y_TO in zip(rows(), answers, strict=True):
        h = c = np.zeros((2, 1, HIDDEN), np.float32)
        for x_I, y_O in zip(x_TI, y_TO, strict=True):
            wanted, h, c = original.run(None, {"x": x_I[np.newaxis, np.newaxis], "h": h, "c": c})
            np.testing.assert_allclose(y_O, wanted[0, 0], atol=1e-6)


@pytest.mark.parametrize("options", ROUNDED.values(), ids=ROUNDED)
def test_its_gates_are_those_that_made_its_states(tmp_path: Path, options: dict[str, object]) -> None:
    exact, path = export(Net(), tmp_path, **options)
    model, unrounded = load(path, 4, 1.0), load(exact, 4, 1.0)
    (_, trace), (_, wanted) = streamed(model, rows()), streamed(unrounded, rows())
    assert [columns.name for columns in model.graph.trace] == [columns.name for columns in unrounded.graph.trace]
    for layer in range(2):
        check_gates(parts(model, trace, layer))
        for name, part in parts(unrounded, wanted, layer).items():
            np.testing.assert_allclose(parts(model, trace, layer)[name], part, atol=0.03)


def test_a_cell_in_8_bits_may_have_peepholes_and_a_clip(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    shapes = {"w": (1, INPUTS, 4 * HIDDEN), "r": (1, HIDDEN, 4 * HIDDEN)}
    weights = {name: random.integers(0, 256, shape).astype(np.uint8) for name, shape in shapes.items()}
    scales = {name: random.uniform(0.001, 0.01, (1, 4 * HIDDEN)).astype(np.float32) for name in ("ws", "rs")}
    zeros = {name: np.full((1, 4 * HIDDEN), 120, np.uint8) for name in ("wz", "rz")}
    floats = {"bias": (1, 8 * HIDDEN), "peep": (1, 3 * HIDDEN)}
    numbers = {name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in floats.items()}
    node = helper.make_node(
        "DynamicQuantizeLSTM",
        ["x", "w", "r", "bias", "", "", "", "peep", "ws", "wz", "rs", "rz"],
        ["y4", "", ""],
        domain="com.microsoft",
        hidden_size=HIDDEN,
        clip=0.9,
    )
    graph = helper.make_graph(
        [node, helper.make_node("Squeeze", ["y4", "one"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, ["t", "b", INPUTS])],
        [helper.make_tensor_value_info("y", 1, ["t", "b", HIDDEN])],
        [
            numpy_helper.from_array(a, n)
            for n, a in (weights | scales | zeros | numbers | {"one": np.array([1])}).items()
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "model.onnx")
    model = load(tmp_path / "model.onnx", 4, 1.0)
    _, trace = streamed(model, rows())
    gates = parts(model, trace, 0)
    check_gates(gates)
    bound = sigmoid(np.float32(0.9))
    assert gates["output"].max() == pytest.approx(bound)
    assert gates["output"].min() == pytest.approx(1 - bound)


def test_what_stands_beside_a_step_does_not_reach_its_answer(tmp_path: Path) -> None:
    """The file's own answers do depend on it: here a number that is far larger than the others."""
    _, path = export(Net(), tmp_path)
    model, original = load(path, 16, 1.0), onnxruntime.InferenceSession(path)
    quiet, loud = rows(), rows()
    loud[1:] *= 50
    assert np.abs(original.run(None, {"x": quiet})[0][0] - original.run(None, {"x": loud})[0][0]).max() > 1e-3
    assert model.engine.largest == 1
    assert streamed(model, quiet)[0][0].tobytes() == streamed(model, loud)[0][0].tobytes()


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_ordinary_cells_may_stand_beside_operators_in_8_bits(tmp_path: Path, kind: str) -> None:
    exact, path = export(Net(kind), tmp_path, op_types_to_quantize=["MatMul"])
    assert {kind, "MatMulInteger"} <= {node.op_type for node in onnx.load(path).graph.node}
    model, unrounded = load(path, 4, 1.0), load(exact, 4, 1.0)
    (answers, trace), (wanted, states) = streamed(model, rows()), streamed(unrounded, rows())
    np.testing.assert_array_equal(trace, states)
    np.testing.assert_allclose(answers, wanted, atol=0.02)
    assert 1e-5 < model.proof.rounding < 0.02


def test_rounding_to_fixed_scales_leaves_batches_as_they_are(tmp_path: Path) -> None:
    exact, _ = export(Net("GRU"), tmp_path)
    model = onnx.load(exact)
    scale, zero = np.array(0.05, np.float32), np.array(128, np.uint8)
    model.graph.initializer.extend([numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(zero, "zero")])
    for node in model.graph.node:
        node.input[:] = ["rounded" if name == "x" else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["whole", "scale", "zero"], ["rounded"]))
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["whole"]))
    onnx.save(model, tmp_path / "model.onnx")
    served = load(tmp_path / "model.onnx", 4, 1.0)
    assert served.engine.largest == 4
    (whole,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"x": rows()})
    np.testing.assert_allclose(streamed(served, rows())[0], whole, atol=1e-6)


def test_what_mixes_steps_is_refused_however_much_the_rounding_hides_it(tmp_path: Path) -> None:
    _, path = export(Mixing(), tmp_path)
    with pytest.raises(ModelRefused, match=r"ReduceMean.*mixes steps with one another"):
        load(path, 4, 1.0)


def test_a_bidirectional_cell_in_8_bits_is_refused(tmp_path: Path) -> None:
    net = Net()
    net.cell = nn.LSTM(INPUTS, HIDDEN // 2, batch_first=True, bidirectional=True)
    _, path = export(net, tmp_path)
    with pytest.raises(ModelRefused, match=r"DynamicQuantizeLSTM\) runs bidirectional"):
        load(path, 4, 1.0)


def test_the_check_says_what_8_bits_do_to_the_answers(tmp_path: Path) -> None:
    _, path = export(Net(), tmp_path)
    page = " ".join(" ".join(line.text for line in lines(examine(path))).split())
    assert "0 LSTM 3 -> 8 (Sigmoid, Tanh, Tanh) 8 bits" in page
    assert "sequences run one by one, not in batches: the file rounds to 8 bits by the range" in page
    assert "without its rounding to 8 bits, agrees with the original file in all of 352 steps" in page
    assert "at most 0.1 is accepted" in page
    assert "in a batch of" not in page
