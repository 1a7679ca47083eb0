"""What is read of a file, and what is only tried, is told apart and decides what is served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from server.operations import check
from stepgraph.cells import operators
from stepgraph.checking import check as checked
from stepgraph.errors import ModelRefused
from stepgraph.graphs.graph import Graph
from stepgraph.loading import load
from stepgraph.proving import judgement
from stepgraph.reading.interface import Interface
from stepgraph.report import remarks
from tests.onnx_writer import Layer, Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stepgraph.model import LoadedModel

INPUTS, HIDDEN = 3, 4


def written(folder: Path, after: Callable[[Writer, str], str]) -> Path:
    """A GRU over [time, batch, 3], and something after it."""
    g = Writer()
    x = g.input(["time", "batch", INPUTS])
    outputs, _ = g.cell(Layer("GRU", HIDDEN), x, INPUTS)
    g.output(after(g, g.squeeze(outputs["Y"], 1)), ["time", "batch", HIDDEN])
    onnx.save(g.model(), folder / "model.onnx")
    return folder / "model.onnx"


def loaded(path: Path) -> LoadedModel:
    return load(path, 4, 1e-3)


def lag(steps: int) -> Callable[[Writer, str], str]:
    """Each answer and, a little, that of so many steps before."""

    def add(g: Writer, y: str) -> str:
        padded = g.op("Pad", y, g.constant(np.array([steps, 0, 0, 0, 0, 0])))
        before = g.op("Slice", padded, *(g.constant(np.array([n])) for n in (0, -steps, 0)))
        return g.op("Add", y, before)

    return add


def by_way_of_a_list(g: Writer, y: str) -> str:
    """A list of single steps, put together again."""
    return g.op("ConcatFromSequence", g.op("SplitToSequence", y, axis=0), axis=0)


def by_their_places(g: Writer, y: str) -> str:
    """The numbers that are not zero, written to where they were: no rule follows it."""
    places = g.op("Transpose", g.op("NonZero", y))
    return g.op("ScatterND", g.op("Neg", y), places, g.op("GatherND", y, places))


def test_a_list_that_has_an_element_for_each_step_is_proved(tmp_path: Path) -> None:
    assert loaded(written(tmp_path, by_way_of_a_list)).proof.unread == ""


def test_what_looks_back_thousands_of_steps_is_proved_and_kept(tmp_path: Path) -> None:
    model = loaded(written(tmp_path, lag(5000)))
    assert model.proof.unread == ""
    assert model.proof.steps > 5000
    (ring,) = model.facts.rings
    assert ring.carried.given.row == (5000, HIDDEN)


def test_what_would_take_too_much_memory_to_look_back_at_is_refused_with_its_size(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"15\.3 MiB for each sequence, and at most 4 MiB .* the last 1000000 of"):
        loaded(written(tmp_path, lag(1_000_000)))


def test_what_the_rules_show_is_said_to_be_proved(tmp_path: Path) -> None:
    path = written(tmp_path, lambda g, y: g.op("Tanh", y))
    assert loaded(path).proof.unread == ""
    assert "proved for every length and value" in " ".join(str(checked(path)).split())
    assert check.main([str(path), "--strict"]) == 0


def test_what_no_rule_shows_is_served_with_a_remark_and_refused_if_that_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, by_their_places)
    (said,) = remarks.remarks(loaded(path))
    assert "NonZero" in said
    assert "tried and is not proved" in said
    assert check.main([str(path)]) == 0
    assert "not proved for every length and value" in " ".join(capsys.readouterr().out.split())
    assert check.main([str(path), "--strict"]) == 1
    assert "REFUSED" in capsys.readouterr().out


def test_rows_that_may_influence_each_other_where_no_run_shows_it_run_one_by_one(tmp_path: Path) -> None:
    def bounded(g: Writer, y: str) -> str:
        """The largest of all rows of a step counts only above what a cell can answer."""
        top = g.op("ReduceMax", y, axes=[1], keepdims=1)
        return g.op("Add", y, g.op("Relu", g.op("Sub", top, g.constant(np.array(2, np.float32)))))

    model = loaded(written(tmp_path, bounded))
    assert model.engine.largest == 1
    assert "rows of a batch may influence each other" in str(model.facts.alone)
    assert model.proof.unread == ""


def less_its_average(offset: float) -> Callable[[Writer, str], str]:
    """What differs from the average of the last 500 steps, of numbers that are all near `offset`."""

    def add(g: Writer, y: str) -> str:
        z = g.transpose(g.op("Add", y, g.constant(np.full(1, offset, np.float32))), 1, 2, 0)
        mean = g.op("AveragePool", z, kernel_shape=[500], pads=[499, 0])
        return g.transpose(g.op("Sub", z, mean), 2, 0, 1)

    return add


def test_what_is_proved_may_be_as_far_from_its_file_as_the_files_own_last_digits_lead_and_that_is_said(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, less_its_average(300.0))
    model = loaded(path)
    assert model.proof.unread == ""
    assert 1e-5 < model.proof.max_error < 1e-3
    (remark,) = remarks.remarks(model)
    assert remark.startswith(f"answers or states differ from the file's by up to {model.proof.max_error:.1e}")
    assert "at most 1e-05 and more where its own last digits lead as far" in " ".join(str(checked(path)).split())


def test_what_rounding_keeps_from_being_proved_is_refused_for_that_and_not_for_another_reading(tmp_path: Path) -> None:
    g = Writer()
    x = g.input(["batch", "time", INPUTS])
    g.output(g.transpose(less_its_average(1e6)(g, g.transpose(x, 1, 0, 2)), 1, 0, 2), ["batch", "time", INPUTS])
    onnx.save(g.model(), tmp_path / "model.onnx")
    with pytest.raises(ModelRefused, match="rounding") as refused:
        loaded(tmp_path / "model.onnx")
    assert refused.value.node is None


def test_the_largest_error_that_is_told_is_that_of_the_long_sequence_too(tmp_path: Path) -> None:
    path = written(tmp_path, less_its_average(100.0))
    model = loaded(path)
    x = np.random.default_rng(1).standard_normal((300, 1, INPUTS), np.float32)
    (wanted,) = onnxruntime.InferenceSession(path).run(None, {model.graph.inputs[0].name: x})
    got = model.engine.run({model.graph.inputs[0].name: x}, model.graph.start(1), trace=False).outputs
    error = float(np.abs(next(iter(got.values())) - wanted).max())
    assert error / 4 < model.proof.max_error <= 1e-5 or model.proof.by_rounding


OVER_STEPS = """<ir_version: 9, opset_import: ["": 19]> g (float[batch, STEPS, 4] x) => (float[batch, STEPS, 4] y) {
    one = Constant<value_ints = [1]>()  zero = Constant<value_ints = [0]>()  last = Constant<value_ints = [-1]>()
    most = Constant<value_ints = [2147483647]>()
    BEFORE
    turned = Transpose<perm = [1, 0, 2]>(z)  all, end = GRU<hidden_size = 4>(turned, W, R)  flat = Squeeze(all, one)
    y = Transpose<perm = [1, 0, 2]>(flat) }"""
ROLLED = "a = Slice(x, last, most, one)  b = Slice(x, zero, last, one)  r = Concat<axis = 1>(a, b)"


def over_steps(before: str, steps: int | str, folder: Path, **constants: np.ndarray) -> Path:
    model = onnx.parser.parse_model(OVER_STEPS.replace("STEPS", str(steps)).replace("BEFORE", before))
    constants |= {name: np.random.default_rng(0).normal(0, 0.5, (1, 12, 4)) for name in "WR"}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()
    )
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def test_a_file_that_normalises_over_the_steps_that_it_fixes_is_refused_for_that(tmp_path: Path) -> None:
    path = over_steps("z = LayerNormalization<axis = 1>(x, s)", 7, tmp_path, s=np.ones((7, 4)))
    with pytest.raises(ModelRefused, match=r"it normalises over the steps of a sequence.*takes 7 steps at once"):
        loaded(path)


def test_as_many_features_as_steps_are_not_taken_for_steps(tmp_path: Path) -> None:
    graph = Graph(onnx.load(over_steps("z = Softmax<axis = 2>(x)", 4, tmp_path)))
    assert judgement.at_once(graph, operators.find(graph), Interface()) is None


@pytest.mark.parametrize("axis", [1, 2])
def test_a_sequence_that_is_rolled_is_refused_with_what_would_be_served(axis: int, tmp_path: Path) -> None:
    """The steps stand along that axis."""
    turn = "t = Transpose<perm = [0, 2, 1]>(x)  two = Constant<value_ints = [2]>()  "
    rolled = ROLLED if axis == 1 else turn + ROLLED.replace("(x", "(t").replace("one", "two")
    back = "z = Identity(r)" if axis == 1 else "z = Transpose<perm = [0, 2, 1]>(r)"
    with pytest.raises(ModelRefused, match=r"last 1 step of a sequence before its first, as torch\.roll") as refused:
        loaded(over_steps(f"{rolled.replace('axis = 1', f'axis = {axis}')}  {back}", "time", tmp_path))
    wanted = "pad(x, (0, 0, 1, 0))[:, :-1]" if axis == 1 else "pad(x, (1, 0))[:, :, :-1]"
    assert f"`torch.nn.functional.{wanted}` is served" in str(refused.value)
