"""A small model of a table: a number that may be missing, a category, an hour and a bounded number; two outputs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

INPUTS = {
    "features": ["temp", "wind", "hour", "load"],
    "units": ["degC", "", "h", "%"],
    "missing": ["temp"],
    "categories": {"wind": ["", "NW", "SE"]},
    "range": {"load": [0, 100]},
    "calendar": {"hour": "hour"},
    "source": {"temp": "Temperature (C)"},
    "timestamp": ["Date", "Time"],
    "time_format": "%d.%m.%Y %H:%M",
}
OUTPUTS = {
    "forecast": {"features": ["demand"], "units": ["MW"]},
    "weather": {"features": ["p(sun)", "p(rain)"], "classes": ["sun", "rain"]},
}
_HIDDEN, _WIDTH = 4, 6  # what the cell sees: temp, whether it is there, two numbers for the wind, hour, load


def table_model(*, fills: bool = True, inputs: object = INPUTS, outputs: object = OUTPUTS) -> onnx.ModelProto:
    """The file; `fills`: it puts a zero where the temperature is missing. `inputs` is said of its input x."""
    random = np.random.default_rng(5)
    weights = {
        "zero": np.zeros(1, np.float32),
        "table": random.standard_normal((3, 2)).astype(np.float32),
        "W": random.standard_normal((1, 4 * _HIDDEN, _WIDTH)).astype(np.float32) * 0.1,
        "R": random.standard_normal((1, 4 * _HIDDEN, _HIDDEN)).astype(np.float32) * 0.5,
        "head": random.standard_normal((_HIDDEN, 3)).astype(np.float32),
        "sizes": np.array([1, 2]),
        "last": np.array([2]),
        "direction": np.array([1]),
        "places": np.array([1, 1, 1, 1]),
    }
    temp = "filled" if fills else "temp"
    nodes = [
        helper.make_node("Split", ["x", "places"], ["temp", "wind", "hour", "load"], axis=2),
        helper.make_node("IsNaN", ["temp"], ["gone"]),
        helper.make_node("Where", ["gone", "zero", "temp"], ["filled"]),
        helper.make_node("Cast", ["gone"], ["mask"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Squeeze", ["wind", "last"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["index"], to=onnx.TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["embedded"]),
        helper.make_node("Concat", [temp, "mask", "embedded", "hour", "load"], ["all"], axis=2),
        helper.make_node("Transpose", ["all"], ["by_time"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["by_time", "W", "R"], ["Y"], hidden_size=_HIDDEN, name="lstm"),
        helper.make_node("Squeeze", ["Y", "direction"], ["hidden"]),
        helper.make_node("Transpose", ["hidden"], ["by_batch"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["by_batch", "head"], ["scores"]),
        helper.make_node("Split", ["scores", "sizes"], ["forecast", "logits"], axis=2),
        helper.make_node("Softmax", ["logits"], ["weather"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "table",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", "time", 4])],
        [
            helper.make_tensor_value_info("forecast", onnx.TensorProto.FLOAT, ["batch", "time", 1]),
            helper.make_tensor_value_info("weather", onnx.TensorProto.FLOAT, ["batch", "time", 2]),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    said = outputs if isinstance(outputs, str) else json.dumps(outputs)
    helper.set_model_props(model, {"tidegate.inputs": json.dumps({"x": inputs}), "tidegate.outputs": said})
    return model


def write(folder: Path, model: onnx.ModelProto, toml: str = "") -> Path:
    """The model in a folder, with a model.toml beside it; the path of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    if toml:
        (folder / "model.toml").write_text(toml, encoding="utf-8")
    return folder / "model.onnx"
