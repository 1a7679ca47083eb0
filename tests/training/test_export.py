from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import training.export
import training.network
from training.errors import ExportRefused
from training.export import export
from training.fitting.session import train
from training.network import build

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from torch import Tensor

    from training.network import Network
    from training.recipes.recall import Recall
    from training.tabular.settings import Table
    from training.task import Task

CELLS = ("rnn", "lstm", "gru")


def model_of(config: Recall | Table) -> onnx.ModelProto:
    task = config.task()
    return onnx.load_model_from_string(export(build(config, task), task, {"recipe": config.recipe}).content)


def answers(content: bytes, x_btf: np.ndarray) -> np.ndarray:  # type: ignore[type-arg] # any shape
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x_btf})
    return np.asarray(found)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_each_layer_is_one_operator_and_nothing_is_unrolled(brief: Recall, cell: str, layers: int) -> None:
    model = model_of(replace(brief, cell=cell, layers=layers, hidden=4))
    recurrent = [node for node in model.graph.node if node.op_type == cell.upper()]
    assert [node.name for node in recurrent] == [f"{cell}_{index}" for index in range(layers)]
    assert not {"Loop", "Scan", "If"} & {node.op_type for node in model.graph.node}
    assert sum(node.op_type in {"MatMul", "Gemm"} for node in model.graph.node) == 1  # the head
    weights = {weight.name for weight in model.graph.initializer}
    assert {f"{cell}_{index}.{letter}" for index in range(layers) for letter in "WRB"} <= weights


@pytest.mark.parametrize("cell", CELLS)
def test_batch_and_time_are_dynamic_and_named(brief: Recall, cell: str) -> None:
    model = model_of(replace(brief, cell=cell))
    (x,), (y,) = model.graph.input, model.graph.output
    for value, name, width in ((x, "x", 3), (y, "y", 1)):
        batch, length, features = value.type.tensor_type.shape.dim
        assert value.name == name
        assert (batch.dim_param, length.dim_param, features.dim_value) == ("batch", "time", width)


@pytest.mark.parametrize("cell", CELLS)
def test_onnxruntime_gives_what_torch_gives_at_sizes_that_the_export_never_saw(brief: Recall, cell: str) -> None:
    config = replace(brief, cell=cell, layers=2, hidden=5)
    task = config.task()
    network = build(config, task)
    content = export(network, task, {}).content
    for batch, length in ((1, 1), (5, 13), (31, 3)):
        x = torch.randn(batch, length, 3)
        with torch.no_grad():
            np.testing.assert_allclose(answers(content, x.numpy()), network(x).numpy(), atol=1e-5)


def test_the_file_says_what_it_is_and_where_it_is_from(brief_weather: Table) -> None:
    props = {prop.key: prop.value for prop in model_of(brief_weather).metadata_props}
    inputs, outputs = json.loads(props["tidegate.inputs"])["x"], json.loads(props["tidegate.outputs"])["y"]
    assert props["tidegate.description"].endswith(".")
    assert dict(zip(inputs["features"], inputs["units"], strict=True)) == {
        "TEMP": "degC",
        "month": "",
        "hour": "h",
        "pm2.5": "ug/m3",
        "DEWP": "degC",
        "PRES": "hPa",
        "Iws": "m/s",
        "Is": "h",
        "Ir": "h",
        "cbwd": "",
        "weekday": "",
    }
    assert outputs == {"features": ["TEMP_in_1", "TEMP_in_6", "TEMP_in_24"], "units": ["degC"] * 3}
    assert json.loads(props["tidegate.provenance"]) == {"recipe": "table"}


def test_the_provenance_is_enough_to_make_the_model_again(brief: Recall, console: Console) -> None:
    path = train(brief, console=console).model.path
    props = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    provenance = json.loads(props["tidegate.provenance"])
    assert provenance["recipe"] == "recall"
    assert provenance["seed"] == 0
    assert provenance["steps"] == 60
    assert provenance["torch"] == torch.__version__
    assert provenance["data"]["sha256"] == ""
    again = type(brief)(**provenance["config"], runs=brief.runs, models=brief.models)
    assert again == brief
    assert train(again, console=console).model.path.read_bytes() == path.read_bytes()


def test_nothing_of_the_exporting_machine_is_in_the_file(
    brief_weather: Table, console: Console, tmp_path: Path
) -> None:
    content = train(brief_weather, console=console).model.path.read_bytes()
    for trace in (str(tmp_path), "site-packages", ".py", "/home", "/root", "/tmp"):  # noqa: S108 - what must not be there
        assert trace.encode() not in content, trace
    model = onnx.load_model_from_string(content)
    assert not any(node.doc_string for node in model.graph.node)
    assert not re.search(rb"20\d\d-\d\d-\d\d", content)


def test_raw_units_go_in_and_come_out(brief_weather: Table, console: Console) -> None:
    content = train(brief_weather, console=console).model.path.read_bytes()
    # A July noon of 30 degC at 1003 hPa and a January midnight of -8 degC at 1030 hPa, for two days each.
    july = [30, 7, 12, 60, 20, 1003, 5, 0, 0, 3, 2]
    january = [-8, 1, 0, 60, -20, 1030, 30, 0, 0, 2, 2]
    x = np.array([[july] * 48, [january] * 48], dtype=np.float32)
    found = answers(content, x)[:, -1]
    assert np.all(np.abs(found[0] - 30) < 15)
    assert np.all(np.abs(found[1] + 8) < 15)


def test_an_export_that_differs_from_torch_is_refused_and_leaves_nothing_behind(
    brief: Recall, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = training.network.trace

    def perturbed(network: Network, inputs: dict[str, Tensor]) -> onnx.ModelProto:
        model = honest(network, inputs)
        bias = next(weight for weight in model.graph.initializer if weight.name == "head.bias")
        bias.raw_data = (onnx.numpy_helper.to_array(bias) + np.float32(2e-5)).tobytes()
        return model

    monkeypatch.setattr(training.network, "trace", perturbed)
    with pytest.raises(ExportRefused, match=r"2\.0e-05 away from torch, more than 1e-05: nothing was written"):
        train(brief, console=console)
    assert not brief.models.exists()
    assert not list(brief.runs.glob("*/*/result.json"))


def test_swapped_gates_are_refused(brief: Recall, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = training.network.trace

    def swapped(network: Network, inputs: dict[str, Tensor]) -> onnx.ModelProto:
        model = honest(network, inputs)
        (node,) = (node for node in model.graph.node if node.op_type == "LSTM")
        weight = next(weight for weight in model.graph.initializer if weight.name == node.input[1])
        value = onnx.numpy_helper.to_array(weight)
        weight.raw_data = value[:, [0, 2, 1, 3]].tobytes()  # ONNX packs i, o, f, c: o and f change places
        return model

    monkeypatch.setattr(training.network, "trace", swapped)
    task = brief.task()
    with pytest.raises(ExportRefused, match="away from torch"):
        export(build(brief, task), task, {})


def test_answers_that_are_no_numbers_are_refused(brief: Recall) -> None:
    task = brief.task()
    network = build(brief, task)
    with torch.no_grad():
        network.get_parameter("head.bias").fill_(float("nan"))
    with pytest.raises(ExportRefused):
        export(network, task, {})


def test_the_tolerance_is_relative_only_above_one() -> None:
    def apart(value: float, by: float) -> float:
        return training.export.difference(np.array([value]), np.array([value + by]))

    assert apart(0.001, 1e-3) == pytest.approx(1e-3)
    assert apart(1000.0, 1.0) == pytest.approx(1e-3)
    assert training.export.difference(np.zeros(2), np.zeros(3)) == float("inf")


def test_an_unrolled_recurrence_is_refused(brief: Recall, monkeypatch: pytest.MonkeyPatch) -> None:
    task: Task = brief.task()
    network = build(brief, task)

    def unrolled(_: Network, inputs: dict[str, Tensor]) -> onnx.ModelProto:
        features = inputs["x"].shape[-1]
        x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", "time", features])
        y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", "time", features])
        graph = onnx.helper.make_graph([onnx.helper.make_node("Tanh", ["x"], ["y"])], "g", [x], [y])
        return onnx.helper.make_model(graph)

    monkeypatch.setattr(training.network, "trace", unrolled)
    with pytest.raises(ExportRefused, match="1 recurrent layers became 0 operators"):
        export(network, task, {})


def test_the_proof_uses_several_lengths_and_batch_sizes() -> None:
    assert len({batch for batch, _ in training.export.TRIALS}) > 2
    assert len({length for _, length in training.export.TRIALS}) > 2


def test_the_random_sequences_of_the_proof_are_in_raw_units(brief_weather: Table) -> None:
    x: Tensor = build(brief_weather, brief_weather.task()).example(4, 200)
    assert 1000 < x[..., 5].mean() < 1035
