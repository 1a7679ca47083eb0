"""CausalConvWithState of ONNX: one step at a time it answers as its untouched file and as a convolution of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from stepgraph.loading import load
from stepgraph.report import examination
from tests.stepgraph.cells.streaming import streamed

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BATCH, STEPS, CHANNELS, WINDOW = 2, 40, 3, 4
KERNEL = np.random.default_rng(0).standard_normal((CHANNELS, 1, WINDOW)).astype(np.float32)
BIAS = np.random.default_rng(1).standard_normal(CHANNELS).astype(np.float32)
X = np.random.default_rng(2).standard_normal((BATCH, STEPS, CHANNELS)).astype(np.float32)


def saved(folder: Path, activation: str, *, shown: bool = False) -> Path:
    """x [B, T, C] to y [B, T, C]; `shown`: the window is an input and an output."""
    given = ["swapped", "kernel", "bias", *(["window"] if shown else [])]
    nodes = [
        helper.make_node("Transpose", ["x"], ["swapped"], perm=[0, 2, 1]),
        helper.make_node("CausalConvWithState", given, ["c", "window_out"], "conv", activation=activation),
        helper.make_node("Transpose", ["c"], ["y"], perm=[0, 2, 1]),
    ]
    sizes = {"x": ["batch", "time", CHANNELS], "y": ["batch", "time", CHANNELS]}
    sizes |= {name: ["batch", CHANNELS, WINDOW - 1] for name in ("window", "window_out") if shown}
    infos = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()}
    ins, outs = ([infos[name] for name in names if name in infos] for names in (("x", "window"), ("y", "window_out")))
    tensors = [numpy_helper.from_array(KERNEL, "kernel"), numpy_helper.from_array(BIAS, "bias")]
    graph = helper.make_graph(nodes, "conv", ins, outs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 27)], ir_version=11)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def by_torch(activation: str) -> NDArray[np.float32]:
    """[T, B, C]."""
    padded = functional.pad(torch.from_numpy(X).transpose(1, 2), (WINDOW - 1, 0))
    y = functional.conv1d(padded, torch.from_numpy(KERNEL), torch.from_numpy(BIAS), groups=CHANNELS)
    wanted: NDArray[np.float32] = (y if activation == "none" else functional.silu(y)).permute(2, 0, 1).numpy()
    return wanted


@pytest.mark.parametrize("shown", [False, True], ids=["a window of its own", "a window in the interface"])
@pytest.mark.parametrize("activation", ["none", "silu"])
def test_it_answers_as_its_file_and_as_torch_and_shows_its_window(activation: str, shown: bool, tmp_path: Path) -> None:
    path = saved(tmp_path, activation, shown=shown)
    loaded = load(path, 4, 1e-3)
    (cell,) = loaded.graph.layers
    assert (cell.kind, cell.node, cell.input_size, cell.hidden_size) == ("CausalConv", "conv", CHANNELS, CHANNELS)
    assert [port.name for port in loaded.facts.outputs] == ["y"]
    assert loaded.engine.alone is None, "rows keep their bits in a batch"
    got = streamed(loaded, X)
    np.testing.assert_allclose(got["y"], by_torch(activation), atol=1e-5)
    last = X[:, STEPS - WINDOW + 1 :].transpose(0, 2, 1).reshape(BATCH, -1)
    np.testing.assert_array_equal(got["window"][-1], last)
    feeds = {"x": X} | ({"window": np.zeros((BATCH, CHANNELS, WINDOW - 1), np.float32)} if shown else {})
    (original,) = onnxruntime.InferenceSession(path).run(["y"], feeds)
    np.testing.assert_allclose(got["y"], original.transpose(1, 0, 2), atol=1e-5)


def test_the_report_says_where_the_window_is(tmp_path: Path) -> None:
    report = examination.examine(saved(tmp_path, "silu"))
    assert [(state.name, state.row, state.home) for state in report.states] == [
        ("window", (CHANNELS, WINDOW - 1), "server")
    ]
    assert [trace.shown for trace in report.traces] == [("window",)]
