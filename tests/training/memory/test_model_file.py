from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from training.errors import DataError
from training.memory.equations import GATES, of_torch
from training.memory.model_file import read

RECALL = Path(__file__).parents[3] / "models" / "recall" / "1" / "model.onnx"


def exported(path: Path, cell: torch.nn.RNNBase) -> Path:
    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.cell(x * 2)[0]

    axes = {0: "batch", 1: "time"}
    with pytest.warns():
        torch.onnx.export(
            First(),
            (torch.zeros(1, 3, 3),),
            path,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": axes, "y": axes},
            opset_version=17,
            dynamo=False,
        )
    return path


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_the_layers_of_a_file_are_the_modules_own_and_get_what_reaches_them(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    cell = getattr(torch.nn, kind)(3, 4, num_layers=2, batch_first=True)
    rows_TF = np.random.default_rng(3).normal(size=(9, 3)).astype(np.float32)
    found = read(exported(tmp_path / "model.onnx", cell), rows_TF, 9)
    for measured, layer in zip(found, of_torch(cell), strict=True):
        assert measured.layer.kind == kind.lower()
        np.testing.assert_allclose(measured.layer.from_x, layer.from_x)
        np.testing.assert_allclose(measured.layer.from_h, layer.from_h)
        np.testing.assert_allclose(measured.layer.bias_x + measured.layer.bias_h, layer.bias_x + layer.bias_h)
    np.testing.assert_allclose(found[0].x_TF, 2 * rows_TF, rtol=1e-6)
    assert found[1].x_TF.shape == (9, 4)


def test_the_committed_model_is_measured_on_random_rows() -> None:
    (found,) = read(RECALL, None, 40)
    assert (found.name, found.layer.kind, found.x_TF.shape) == ("lstm_0", "lstm", (40, 3))


def lstm_file(path: Path, **attributes: object) -> Path:
    weights = {"W": np.ones((1, 8, 3)), "R": np.ones((1, 8, 2))}
    node = helper.make_node("LSTM", ["x", "W", "R"], ["y"], name="memory", hidden_size=2, **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", 1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_an_operator_without_biases_and_with_its_default_activations_written_out_is_read(tmp_path: Path) -> None:
    path = lstm_file(tmp_path / "model.onnx", activations=["Sigmoid", "Tanh", "Tanh"])
    (found,) = read(path, None, 12)
    assert found.x_TF.shape == (12, 3)
    assert found.layer.bias_x.tolist() == [0] * len(GATES["lstm"]) * 2


@pytest.mark.parametrize(
    ("attributes", "named"),
    [({"clip": 1.0}, "clip"), ({"input_forget": 1}, "input_forget"), ({"activations": ["Relu"] * 3}, "activations")],
)
def test_an_operator_with_other_equations_is_refused_by_name(
    tmp_path: Path, attributes: dict[str, object], named: str
) -> None:
    with pytest.raises(DataError, match=f"LSTM 'memory' has {named}"):
        read(lstm_file(tmp_path / "model.onnx", **attributes), None, 5)


def test_what_is_no_model_or_has_no_recurrence_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "none.onnx", None, 5)
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(DataError, match="is no ONNX file"):
        read(tmp_path / "text.onnx", None, 5)
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    onnx.save(helper.make_model(graph), tmp_path / "relu.onnx")
    with pytest.raises(DataError, match="no RNN, LSTM or GRU"):
        read(tmp_path / "relu.onnx", None, 5)


def test_rows_of_another_width_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--rows"):
        read(lstm_file(tmp_path / "model.onnx"), np.zeros((5, 4), dtype=np.float32), 5)
