"""A trained network as a standard ONNX file: RNN, LSTM or GRU operators, dynamic batch and time, proved against torch.

Legend: B batch, T time, F features, O outputs.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import torch

from training.errors import ExportRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.network import Network
    from training.task import Feature, Signature, Task

OPSET = 17
CELLS = ("RNN", "LSTM", "GRU")
TOLERANCE = 1e-5
# Batch size and length of the random sequences that an export must prove itself on.
TRIALS = ((1, 1), (1, 2), (3, 7), (2, 50), (16, 25))
# What torch says on every export: that this exporter is the old one (we name it on purpose) and that its own parts are;
# and that a state of zeros, or a check of a shape, may be frozen at one size, which the proof would find.
EXPECTED_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    ("You are using the legacy TorchScript-based ONNX export", DeprecationWarning),
    ("The feature will be removed. Please remove usage of this function", DeprecationWarning),
    ("Exporting a model to ONNX with a batch_size other than 1", UserWarning),
    ("Converting a tensor to a Python boolean", Warning),  # torch.jit hides its own category
)


@dataclass(frozen=True)
class Artefact:
    """An ONNX file, and how far onnxruntime is from torch on it: |difference| / max(1, |value|), the largest."""

    content: bytes
    error: float


def export(network: Network, task: Task, provenance: dict[str, object]) -> Artefact:
    """The network as a file's bytes; nothing is written.

    Raises:
        ExportRefused: onnxruntime and torch differ, or the recurrence is not what the file says.
    """
    model = onnx.load_model_from_string(trace(network, len(task.signature.inputs)))
    layers = [node for node in model.graph.node if node.op_type in CELLS]
    if len(layers) != network.cell.num_layers:
        raise ExportRefused(f"{network.cell.num_layers} recurrent layers became {len(layers)} operators")
    clean(model)
    name_layers(model, layers)
    describe(model, task.signature, provenance)
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString(deterministic=True)
    return Artefact(content, prove(network, task, content))


def trace(network: Network, features: int) -> bytes:
    """What torch's TorchScript exporter writes.

    The newer exporter (dynamo) unrolls an RNN and cannot give it a time axis, and fails on the second LSTM with a time
    axis in one process.
    """
    axes = {0: "batch", 1: "time"}
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        file = Path(folder) / "model.onnx"
        for message, category in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=category)
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, 3, features),),
            file,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": axes, "y": axes},
            opset_version=OPSET,
            dynamo=False,
        )
        return file.read_bytes()


def clean(model: onnx.ModelProto) -> None:
    """Take out what tells of the exporting machine: stack traces with its paths stand in the doc strings."""
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
        "tidegate.inputs": json.dumps({"x": axis(signature.inputs)}),
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


def prove(network: Network, task: Task, content: bytes) -> float:
    """Run random sequences through torch and through onnxruntime; the largest difference.

    Raises:
        ExportRefused: it is above the tolerance.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    differences = []
    for batch, length in TRIALS:
        x_BTF = sequences(task, batch, length)
        (found_BTO,) = session.run(["y"], {"x": x_BTF.numpy()})
        with torch.no_grad():
            differences.append(difference(network(x_BTF).numpy(), found_BTO))
    worst = float(np.max(differences))  # unlike max(), it does not lose a NaN
    if not worst <= TOLERANCE:  # NaN is not either
        raise ExportRefused(f"onnxruntime is {worst:.1e} away from torch, more than {TOLERANCE:g}: nothing was written")
    return worst


def sequences(task: Task, batch: int, length: int) -> torch.Tensor:
    """Random inputs of the size that the model's units have, [B, T, F]."""
    generator = torch.Generator().manual_seed(batch * 1000 + length)
    x_BTF = torch.randn((batch, length, len(task.signature.inputs)), generator=generator)
    return task.scaling.raw(x_BTF) if task.scaling else x_BTF


def difference(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """The largest |expected - found| / max(1, |expected|); infinite if the shapes differ."""
    if expected.shape != found.shape:
        return float("inf")
    return float(np.max(np.abs(expected - found) / np.maximum(1, np.abs(expected))))
