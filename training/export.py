"""A trained network as a standard ONNX file: RNN, LSTM or GRU operators, dynamic batch and time, proved against torch.

Legend: B batch, T time, F features, O outputs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import torch

from training.errors import ExportRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.network import Trained
    from training.task import Feature, Signature, Task

CELLS = ("RNN", "LSTM", "GRU")
TOLERANCE = 1e-5
# Batch size and length of the random sequences that an export must prove itself on.
TRIALS = ((1, 1), (1, 2), (3, 7), (2, 50), (16, 25))


@dataclass(frozen=True)
class Artefact:
    """An ONNX file, and how far onnxruntime is from torch on it, as `difference` says."""

    content: bytes
    error: float


def export(network: Trained, task: Task, provenance: dict[str, object]) -> Artefact:
    """The network as a file's bytes; nothing is written.

    Raises:
        ExportRefused: onnxruntime and torch differ, or the recurrence is not what the file says.
    """
    model = network.graph()
    layers = [node for node in model.graph.node if node.op_type in CELLS]
    if len(layers) != network.layers:
        raise ExportRefused(f"{network.layers} recurrent layers became {len(layers)} operators")
    clean(model)
    name_layers(model, layers)
    describe(model, task.signature, provenance)
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString(deterministic=True)
    return Artefact(content, prove(network, content))


def clean(model: onnx.ModelProto) -> None:
    """Take out what shows the exporting machine: stack traces with its paths stand in the doc strings."""
    model.ClearField("doc_string")
    model.graph.ClearField("doc_string")
    model.graph.name = "network"
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")


def name_layers(model: onnx.ModelProto, layers: list[onnx.NodeProto]) -> None:
    """Call layer 0 of an LSTM `lstm_0` and its weights `lstm_0.W`, `.R`, `.B`, as the ONNX operator names them."""
    names: dict[str, str] = {}
    for index, node in enumerate(layers):
        node.name = f"{node.op_type.lower()}_{index}"
        names |= {node.input[slot]: f"{node.name}.{letter}" for slot, letter in ((1, "W"), (2, "R"), (3, "B"))}
    # The exporter folds the transposed weight of the head into a numbered constant.
    names |= {node.input[1]: "head.weight" for node in model.graph.node if node.name == "/head/MatMul"}
    for weight in model.graph.initializer:
        weight.name = names.get(weight.name, weight.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.name = node.name.removeprefix("/")


def describe(model: onnx.ModelProto, signature: Signature, provenance: dict[str, object]) -> None:
    """Say in the file what it is: in words, the names and units of its axes, and where it is from."""
    classes = {"classes": signature.classes} if signature.classes else {}
    texts = {
        "tidegate.description": signature.description,
        "tidegate.inputs": json.dumps({"x": axis(signature.inputs) | dict(signature.said)}),
        "tidegate.outputs": json.dumps({"y": axis(signature.outputs) | classes}),
        "tidegate.provenance": json.dumps(provenance, sort_keys=True),
    }
    onnx.helper.set_model_props(model, texts)


def axis(features: tuple[Feature, ...]) -> dict[str, object]:
    """Names, units and categories along the last axis of a tensor."""
    found: dict[str, object] = {
        "features": [feature.name for feature in features],
        "units": [feature.unit for feature in features],
    }
    categories = {feature.name: feature.categories for feature in features if feature.categories}
    return found | ({"categories": categories} if categories else {})


def prove(network: Trained, content: bytes) -> float:
    """Run random sequences through torch and through onnxruntime; the largest difference.

    Raises:
        ExportRefused: it is above the tolerance.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    differences = []
    for batch, length in TRIALS:
        x_BTF = network.example(batch, length)
        (found_BTO,) = session.run(["y"], {"x": x_BTF.numpy()})
        with torch.no_grad():
            differences.append(difference(network(x_BTF).numpy(), found_BTO))
    worst = float(np.max(differences))  # unlike max(), it does not lose a NaN
    if not worst <= TOLERANCE:  # NaN is not either
        raise ExportRefused(f"onnxruntime is {worst:.1e} away from torch, more than {TOLERANCE:g}: nothing was written")
    return worst


def difference(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """The largest |expected - found| as a share of the largest |expected| of that output, or of 1 if that is less.

    A forecast in thousands that comes near to 0 has the rounding of its thousands. Infinite if the shapes differ.
    """
    if expected.shape != found.shape:
        return float("inf")
    size_O = np.maximum(1, np.abs(expected).reshape(-1, expected.shape[-1]).max(axis=0))
    return float(np.max(np.abs(expected - found) / size_O))
