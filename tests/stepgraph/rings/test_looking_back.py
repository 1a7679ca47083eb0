"""What looks back over steps is cut to one with rings: loading proves each against onnxruntime on the whole file."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional

import stepgraph
from stepgraph.checking import check
from stepgraph.errors import ModelRefused
from stepgraph.loading import load
from stepgraph.rewriting import rings
from stepgraph.rewriting.rings import Span
from stepgraph.rings import windows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stepgraph.model import LoadedModel

INPUTS, HIDDEN = 3, 4
FREE = {"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "time"}}


class Net(nn.Module):
    """A part between a convolution within a step and a GRU."""

    def __init__(self, part: nn.Module | Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.part = part
        self.cell = nn.GRU(self.part(torch.zeros(1, 9, INPUTS)).shape[-1], HIDDEN, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(self.part(x))[0]


class Along(nn.Module):
    """Modules along time, over [B, C, T]."""

    def __init__(self, *modules: nn.Module, cut: int = 0) -> None:
        super().__init__()
        self.inner, self.cut = nn.Sequential(*modules), cut

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x.transpose(1, 2))
        return (y[:, :, : -self.cut] if self.cut else y).transpose(1, 2)


class Spectral(nn.Module):
    """A convolution over time and frequency, as networks that clean speech have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, (3, 3), padding=(0, 1), dilation=(2, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(functional.pad(x.unsqueeze(1), (0, 0, 4, 0)))
        return y.transpose(1, 2).flatten(2)


def averaged(x: Tensor) -> Tensor:
    late = functional.pad(x.unsqueeze(1), (0, 0, 2, 0))
    return functional.avg_pool2d(late, 3, 1, (0, 1), count_include_pad=False).squeeze(1)


def two_lags(x: Tensor) -> Tensor:
    late = functional.pad(x, (0, 0, 6, 0), value=0.5)
    return torch.cat([x, late[:, 2:-4], late[:, : x.shape[1]]], 2)


def difference(x: Tensor) -> Tensor:
    return functional.pad(x[:, 1:] - x[:, :-1], (0, 0, 1, 0), value=0.25)


class Differences(nn.Module):
    """A window over the last three differences, the first of which is of the second step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(INPUTS, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        late = (x[:, 1:] - x[:, :-1]).transpose(1, 2)
        return self.conv(functional.pad(late, (3, 0))).transpose(1, 2)


def loaded(net: nn.Module, path: Path) -> LoadedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": FREE}
        torch.onnx.export(net.eval(), (torch.zeros(2, 9, INPUTS),), path, dynamo=False, opset_version=17, **names)
    return load(path, 2, 0.0)


CONSTANT = nn.ConstantPad1d
LOOKING_BACK: dict[str, tuple[Callable[[], nn.Module | Callable[[Tensor], Tensor]], list[tuple[int, ...]]]] = {
    "a convolution": (lambda: Along(CONSTANT((2, 0), 0.0), nn.Conv1d(INPUTS, 5, 3)), [(INPUTS, 2)]),
    "padding inside": (
        lambda: Along(CONSTANT((6, 0), 1.0), nn.Conv1d(INPUTS, 2, 3), nn.Tanh(), nn.Conv1d(2, 2, 2, dilation=4)),
        [(INPUTS, 2), (2, 4)],
    ),
    "a transposed convolution": (lambda: Along(nn.ConvTranspose1d(INPUTS, 2, 3, dilation=2), cut=4), [(INPUTS, 4)]),
    "a maximum of the past": (lambda: Along(CONSTANT((3, 0), -2.0), nn.MaxPool1d(4, 1)), [(INPUTS, 3)]),
    "an average of the past": (lambda: Along(CONSTANT((3, 0), 0.0), nn.AvgPool1d(4, 1)), [(INPUTS, 3)]),
    "an average that leaves out what it pads": (
        lambda: Along(nn.AvgPool1d(4, 1, padding=2, count_include_pad=False), cut=2),
        [(1,), (INPUTS, 3), (INPUTS, 3)],  # also of ones; the first step has no answer
    ),
    "time and frequency": (Spectral, [(1, 4, INPUTS)]),
    "an average over time and frequency": (lambda: averaged, [(1, 2, INPUTS)]),
    "a sum": (lambda: lambda x: torch.cumsum(x, 1) * 0.1, [(1, INPUTS)]),
    "a difference from the second step on": (lambda: difference, [(1,), (1, INPUTS)]),
    "a window of differences": (Differences, [(1,), (1, INPUTS), (INPUTS, 2)]),
    "two lags of one tensor": (lambda: two_lags, [(6, INPUTS)]),
}


@pytest.mark.parametrize("name", LOOKING_BACK)
def test_a_part_that_looks_back_is_proved_and_keeps_no_more_than_it_looks_back_at(name: str, tmp_path: Path) -> None:
    part, rows = LOOKING_BACK[name]
    model = loaded(Net(part()), tmp_path / "model.onnx")
    assert model.proof.unread == ""
    assert sorted(ring.carried.given.row for ring in model.facts.rings) == sorted(rows)


class Bare(Net):
    """The part alone: no cell."""

    def __init__(self, part: nn.Module | Callable[[Tensor], Tensor], time_first: bool = False) -> None:
        super().__init__(part)
        self.time_first = time_first

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x.transpose(0, 1)).transpose(0, 1) if self.time_first else self.part(x)


@pytest.mark.parametrize("time_first", [False, True])
def test_a_file_whose_only_state_is_what_it_looks_back_at_streams(time_first: bool, tmp_path: Path) -> None:
    part, rows = LOOKING_BACK["padding inside"]
    model = loaded(Bare(part(), time_first), tmp_path / "model.onnx")
    assert model.proof.unread == ""
    assert not model.graph.layers
    assert sorted(ring.carried.given.row for ring in model.facts.rings) == sorted(rows)
    x = np.random.default_rng(0).standard_normal((200, 2, INPUTS), np.float32)
    given = x if time_first else x.swapaxes(0, 1)
    (whole,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(["y"], {"x": given})
    served = model.engine.run({"x": x}, model.graph.start(2), trace=False).outputs["y"]
    np.testing.assert_allclose(served, whole if time_first else whole.swapaxes(0, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (torch.tanh, "nothing that looks back .*, so there is no state"),
        (lambda x: torch.softmax(x @ x.transpose(1, 2), -1) @ x, r"\(MatMul\) relates every step to every other step"),
        (lambda x: x - x.mean(1, keepdim=True), "averages over all steps"),
    ],
    ids=["each step alone", "attention", "a mean"],
)
def test_a_file_without_a_cell_that_looks_back_at_no_ring_is_refused_for_that(
    part: Callable[[Tensor], Tensor], why: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelRefused, match=why):
        loaded(Bare(part), tmp_path / "model.onnx")


def test_the_page_of_a_file_says_what_looks_back(tmp_path: Path) -> None:
    part, _ = LOOKING_BACK["a convolution"]
    loaded(Net(part()), tmp_path / "model.onnx")
    page = " ".join(str(check(tmp_path / "model.onnx")).split())
    assert "the last elements that node '/part/inner/inner.1/Conv' (Conv) looks back at, starts from zeros" in page


def test_a_ring_that_begins_wrongly_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = rings.Ring.start
    monkeypatch.setattr(rings.Ring, "start", lambda ring, held: start(ring, held) * 0)
    with pytest.raises(ModelRefused, match="output 'y' at step 0 differs"):
        loaded(Net(LOOKING_BACK["padding inside"][0]()), tmp_path / "model.onnx")


def test_a_window_that_is_one_element_off_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    span = windows.span
    monkeypatch.setattr(
        windows, "span", lambda *given: replace(made := span(*given), first=made.first - 1, last=made.last - 1)
    )
    with pytest.raises(ModelRefused, match="output 'y' at step 0 differs"):
        loaded(Net(LOOKING_BACK["a convolution"][0]()), tmp_path / "model.onnx")


def test_what_sums_up_whole_numbers_is_refused_for_that(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"\(CumSum\) sums up whole numbers over all steps"):
        loaded(Net(lambda x: x * torch.cumsum(x.to(torch.int64), 1)), tmp_path / "model.onnx")


def maximum(kind: int, path: Path) -> onnx.ModelProto:
    """The highest of the last three rows, in numbers of a type."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MaxPool", ["t"], ["p"], kernel_shape=[3], pads=[2, 0]),
        helper.make_node("Cast", ["p"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["y"], perm=[0, 2, 1]),
    ]
    ports = [helper.make_tensor_value_info(*port, ["b", "t", 2]) for port in (("x", kind), ("y", TensorProto.FLOAT))]
    graph = helper.make_graph(nodes, "maximum", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return model


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.UINT8, TensorProto.FLOAT, TensorProto.DOUBLE])
def test_before_the_first_step_a_maximum_has_the_lowest_number_of_its_type(kind: int, tmp_path: Path) -> None:
    model = maximum(kind, tmp_path / "model.onnx")
    rows = np.array([[-5, 3], [-7, 2], [-100, 1], [-101, 0]]).astype(helper.tensor_dtype_to_np_dtype(kind))
    whole = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    loaded, state, found = stepgraph.load(tmp_path / "model.onnx"), None, []
    for row in rows:
        answer, state = loaded.step(row, state)
        found.append(answer.output)
    np.testing.assert_array_equal(found, whole.run(None, {"x": rows[None]})[0][0])


def test_a_wrong_start_of_whole_numbers_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of a whole type are not only 0 and 1 where the file takes others."""
    monkeypatch.setattr(Span, "before", lambda _, dtype: np.array(0, dtype))
    maximum(TensorProto.INT8, tmp_path / "model.onnx")
    with pytest.raises(ModelRefused):
        load(tmp_path / "model.onnx", 4, 0.0)
    monkeypatch.undo()
    assert load(tmp_path / "model.onnx", 4, 0.0).proof
