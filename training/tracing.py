"""A torch module as the ONNX file that torch's exporter writes of it, with dynamic batch and time.

Legend: B batch, T time.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import onnx
import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

OPSET = 17
# What torch says on every export: that this exporter is the old one (we name it on purpose) and that its own parts are;
# and that a state of zeros, or a check of a shape, may be frozen at one size, which the proof would find.
EXPECTED_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    ("You are using the legacy TorchScript-based ONNX export", DeprecationWarning),
    ("The feature will be removed. Please remove usage of this function", DeprecationWarning),
    ("Exporting a model to ONNX with a batch_size other than 1", UserWarning),
    ("Converting a tensor to a Python boolean", Warning),  # torch.jit hides its own category
)


def trace(network: nn.Module, inputs: dict[str, Tensor]) -> onnx.ModelProto:
    """What torch's TorchScript exporter writes; every input is [B, T, ...], and the only output is y.

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
            tuple(inputs.values()),
            file,
            input_names=list(inputs),
            output_names=["y"],
            dynamic_axes=dict.fromkeys([*inputs, "y"], axes),
            opset_version=OPSET,
            dynamo=False,
        )
        return onnx.load_model_from_string(file.read_bytes())
