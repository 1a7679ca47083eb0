"""Files of cells in plain operators as torch exports them, and loaded models run one step at a time."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from stepgraph.model import LoadedModel


def export(net: nn.Module, folder: Path, cells: object, **given: Tensor) -> Path:
    """The file of a network as torch writes it, with a name for its cell."""
    path = folder / "model.onnx"
    names = {"input_names": list(given), "output_names": ["y", *(f"{name}_out" for name in list(given)[1:])]}
    axes = {name: {i: f"axis{i}" for i in range(x.ndim - 1)} for name, x in given.items()}
    axes["y"] = axes["x"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            net.eval(), tuple(given.values()), str(path), dynamo=False, opset_version=17, dynamic_axes=axes, **names
        )
    return annotate(path, cells)


def annotate(path: Path, cells: object) -> Path:
    """Writes what names the cells of a file into its metadata."""
    model = onnx.load(path)
    del model.metadata_props[:]
    model.metadata_props.add(key="tidegate.cells", value=cells if isinstance(cells, str) else json.dumps(cells))
    onnx.save(model, path)
    return path


def streamed(loaded: LoadedModel, x_BTI: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The output `y` and what a trace shows of the one layer, [T, B, n] each, one step at a time."""
    state = np.tile(loaded.graph.initial, (len(x_BTI), 1))
    seen: dict[str, list[NDArray[np.float32]]] = {}
    for x_BI in x_BTI.transpose(1, 0, 2):
        result = loaded.engine.run({"x": x_BI[np.newaxis]}, state, trace=True)
        state = result.state
        assert result.trace is not None
        seen.setdefault("y", []).append(result.outputs["y"][0])
        for columns in loaded.graph.trace:
            seen.setdefault(columns.name, []).append(result.trace[0][:, columns.span])
    return {name: np.stack(values) for name, values in seen.items()}
