"""Lists of tensors, as torch's scripts write loops over steps, are read; what reads a list that it adds to is not."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import parser
from torch import Tensor, nn

from stepgraph.graphs.graph import Graph
from stepgraph.loading import load
from stepgraph.rules.axes import ROWS, TIME
from stepgraph.rules.reader import Reader
from stepgraph.rules.value import Value
from tests.models.test_loops import HIDDEN, INPUTS, Stepping, rows, streamed


class Listed(nn.Module):
    """A recurrence over a list of the steps, whose answers are put into another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.given, self.kept = nn.Linear(INPUTS, HIDDEN), nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.size(0), 4)
        answers = []
        for x_t in torch.unbind(x, 1):
            h = torch.tanh(self.given(x_t) + self.kept(h))
            answers.append(h)
        return torch.stack(answers, 1)


class Joined(Listed):
    """The same by number, with its answers put end to end."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.size(0), 4)
        answers = []
        steps = x.unbind(1)
        for i in range(len(steps)):
            h = torch.tanh(self.given(steps[i]) + self.kept(h))
            answers += [h.unsqueeze(1)]
        return torch.cat(answers, 1)


def exported(net: nn.Module, path: Path, *fixed: Tensor) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripting is on its way out, as is this exporter
        torch.onnx.export(
            torch.jit.script(net.eval()),
            (torch.zeros(2, 3, INPUTS), *fixed),
            str(path / "model.onnx"),
            dynamo=False,
            opset_version=17,
            dynamic_axes={"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "time"}},
            input_names=["x", "mode", "twice"][: 1 + len(fixed)],
            output_names=["y"],
        )
    return path / "model.onnx"


@pytest.mark.parametrize("net", [Listed, Joined])
def test_a_script_that_lists_its_steps_and_answers_is_proved(net: type[Listed], tmp_path: Path) -> None:
    path = exported(net(), tmp_path)
    model = load(path, 4, 1.0)
    assert model.proof.unread == ""
    (whole,) = onnxruntime.InferenceSession(path).run(["y"], {"x": rows(200)})
    np.testing.assert_allclose(streamed(model, rows(200)), whole, atol=1e-5)


def test_a_script_that_lists_the_answers_of_a_cell_is_proved(tmp_path: Path) -> None:
    path = exported(Stepping(), tmp_path, torch.tensor(1), torch.tensor(1))
    path.with_name("model.toml").write_text("[fixed]\nmode = 1\ntwice = 0\n")
    assert load(path, 4, 1.0).proof.unread == ""


LISTING = """
    axis = Constant<value_ints=[1]>()  zero = Constant<value_int=0>()
    t = Shape<start=1, end=2>(x)  n = Squeeze(t)  yes = Constant<value=bool {1}>()
    none = SequenceEmpty()
    all = Loop<body = step (int64 i, bool cond, seq(float[b,3]) before) => (bool go, seq(float[b,3]) after) {
        go = Identity(cond)  BODY }>(n, yes, none)
    y = ConcatFromSequence<axis=1, new_axis=1>(all)
"""
STEP = "xt = Gather<axis=1>(x, i)"


def read(body: str) -> Value:
    text = f'<ir_version: 10, opset_import: ["": 17]> g (float[b,t,3] x) => (y) {{{LISTING.replace("BODY", body)}}}'
    graph = Graph(parser.parse_model(text))
    return Reader(graph).values({"x": Value(((ROWS,), (TIME,), (3,)), live=True)})["y"]


def test_a_list_that_a_loop_adds_each_step_to_has_an_element_for_each_step() -> None:
    value = read(f"{STEP}  after = SequenceInsert(before, xt)")
    assert value.finding is None
    assert value.axes == ((ROWS,), (TIME,), (3,))
    assert not value.far


@pytest.mark.parametrize(
    "body",
    [
        f"{STEP}  twice = SequenceInsert(before, xt)  after = SequenceInsert(twice, xt)",
        f"{STEP}  after = SequenceInsert(before, xt, i)",
        f"{STEP}  z = Constant<value_int=0>()  after = SequenceInsert(before, xt, z)",
        f"{STEP}  grown = SequenceInsert(before, xt)  f = SequenceAt(grown, i)  after = SequenceInsert(before, f)",
        f"{STEP}  c = SequenceLength(before)  k = Cast<to=1>(c)  z = Mul(xt, k)  after = SequenceInsert(before, z)",
    ],
    ids=["two elements", "at a place", "at the front", "one of its own", "its own length"],
)
def test_a_list_that_a_loop_reads_or_changes_otherwise_is_not_followed(body: str) -> None:
    finding = read(body).finding
    assert finding is not None
    assert finding.kind == "unknown"


def test_what_a_loop_lists_of_its_own_count_depends_on_the_number_of_the_step() -> None:
    value = read("k = Cast<to=1>(i)  z = Unsqueeze(k, axis)  after = SequenceInsert(before, z)")
    assert value.varies


FILLING = """
    axis = Constant<value_ints=[1]>()  t = Shape<start=1, end=2>(x)  n = Squeeze(t)  yes = Constant<value=bool {1}>()
    size = Shape(x)  empty = ConstantOfShape(size)
    y = Loop<body = step (int64 i, bool cond, float[b,t,3] before) => (bool go, float[b,t,3] after) {
        go = Identity(cond)  xt = Gather<axis=1>(x, i)  at = Reshape(i, two)  row = Unsqueeze(xt, first)
        flat = Transpose<perm=[1, 0, 2]>(before)  BODY }>(n, yes, empty)
"""
WRITTEN = "full = ScatterND(flat, at, row)  after = Transpose<perm=[1, 0, 2]>(full)"


def filled(body: str) -> Value:
    begin = "two = Constant<value_ints=[1, 1]>()  first = Constant<value_ints=[0]>()"
    text = f'<ir_version: 10, opset_import: ["": 17]> g (float[b,t,3] x) => (y) {{{begin}'
    graph = Graph(parser.parse_model(f"{text} {FILLING.replace('BODY', body)}}}"))
    return Reader(graph).values({"x": Value(((ROWS,), (TIME,), (3,)), live=True)})["y"]


def test_a_buffer_that_each_iteration_writes_its_own_step_of_has_a_place_for_each_step() -> None:
    value = filled(WRITTEN)
    assert value.finding is None
    assert value.axes == ((ROWS,), (TIME,), (3,))
    assert not value.far


@pytest.mark.parametrize(
    "body",
    [
        "k = Add(at, two)  full = ScatterND(flat, k, row)  after = Transpose<perm=[1, 0, 2]>(full)",
        "old = Gather<axis=1>(before, i)  b = Add(xt, old)  both = Unsqueeze(b, first)  "
        + WRITTEN.replace("row", "both"),
        'full = ScatterND<reduction="add">(flat, at, row)  after = Transpose<perm=[1, 0, 2]>(full)',
        "full = ScatterND(flat, at, row)  f = Tanh(full)  after = Transpose<perm=[1, 0, 2]>(f)",
        "full = ScatterND(flat, at, row)  after = Transpose<perm=[0, 1, 2]>(full)",
    ],
    ids=["the next step", "with what it held", "added", "changed as a whole", "transposed"],
)
def test_a_buffer_that_a_loop_reads_or_writes_otherwise_is_not_followed(body: str) -> None:
    finding = filled(body).finding
    assert finding is not None
    assert finding.kind == "unknown"


def test_the_loop_that_torch_writes_with_a_buffer_of_all_steps_is_proved() -> None:
    path = Path(__file__).parents[2] / "models" / "made" / "torch-dynamo" / "while-loop.onnx"
    assert load(path, 1, 0.0).proof.unread == ""
