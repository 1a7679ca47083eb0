"""The proof: what it compares, in what units, and that it decides where a graph alone could be read in two ways."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from stepgraph import loading
from stepgraph.cells import gates, kinds
from stepgraph.errors import ModelRefused
from stepgraph.loading import load
from stepgraph.proving import comparison, hints
from stepgraph.proving.difference import errors
from stepgraph.reading import axes
from stepgraph.rewriting.ports import Port
from stepgraph.running import session
from tests.onnx_writer import Layer, Writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stepgraph.model import LoadedModel

INPUTS, HIDDEN = 3, 4


def loaded(model: onnx.ModelProto, folder: Path) -> LoadedModel:
    onnx.save(model, folder / "model.onnx")
    return load(folder / "model.onnx", 4, 1e-3)


def carried(model: LoadedModel) -> list[tuple[str, str]]:
    return [(c.given.name, c.returned.name) for c in model.facts.carried]


def started(g: Writer, kind: str = "GRU") -> tuple[str, str, dict[str, str]]:
    """x and h, and a cell that starts from h."""
    x, h = g.input(["time", "batch", INPUTS]), g.input([1, "batch", HIDDEN])
    outputs, _ = g.cell(Layer(kind, HIDDEN), x, INPUTS, [h])
    return x, h, outputs


def test_a_state_that_goes_in_and_comes_out_is_carried_if_the_original_goes_on_from_it(tmp_path: Path) -> None:
    g = Writer()
    _, h, outputs = started(g)
    g.output(g.op("Relu", outputs["Y"]), ["time", 1, "batch", HIDDEN])
    g.output(outputs["Y_h"], [1, "batch", HIDDEN])
    assert carried(loaded(g.model(), tmp_path)) == [(h, outputs["Y_h"])]


def test_a_state_that_every_step_sees_as_it_was_at_the_start_is_not_made_to_remember(tmp_path: Path) -> None:
    """h starts the cell, and is added to every answer too: handed back after each step it would be another answer."""
    g = Writer()
    _, h, outputs = started(g)
    g.output(g.op("Add", g.squeeze(outputs["Y"], 1), h), ["time", "batch", HIDDEN])
    g.output(outputs["Y_h"], [1, "batch", HIDDEN])
    model = loaded(g.model(), tmp_path)
    assert carried(model) == []
    assert [(columns.layer, columns.name) for columns in model.graph.state] == [(0, "hidden")]
    assert {port.name for port in model.facts.outputs} == {g.outputs[0].name, outputs["Y_h"]}


def test_a_state_that_is_changed_on_its_way_out_is_not_handed_back(tmp_path: Path) -> None:
    g = Writer()
    _, _, outputs = started(g)
    g.output(g.op("Relu", outputs["Y"]), ["time", 1, "batch", HIDDEN])
    g.output(g.op("Tanh", outputs["Y_h"]), [1, "batch", HIDDEN])
    assert carried(loaded(g.model(), tmp_path)) == []


def test_states_that_are_returned_in_another_order_are_not_handed_back_in_it(tmp_path: Path) -> None:
    """The outputs hold the states of two cells the other way round: each must go back to where it came from."""
    g = Writer()
    x = g.input(["time", "batch", INPUTS])
    given = [g.input([1, "batch", HIDDEN]) for _ in range(2)]
    cells = [g.cell(Layer("RNN", HIDDEN), x, INPUTS, [h])[0] for h in given]
    g.output(g.op("Add", *(cell["Y"] for cell in cells)), ["time", 1, "batch", HIDDEN])
    for cell in reversed(cells):
        g.output(cell["Y_h"], [1, "batch", HIDDEN])
    pairs = [(h, cell["Y_h"]) for h, cell in zip(given, cells, strict=True)]
    assert carried(loaded(g.model(), tmp_path)) == pairs


@pytest.mark.parametrize("swap", [True, False])
def test_a_pair_that_is_declared_wrongly_is_found_by_the_proof(swap: bool, tmp_path: Path) -> None:
    g = Writer()
    x = g.input(["time", "batch", INPUTS])
    given = [g.input([1, "batch", HIDDEN]) for _ in range(2)]
    cells = [g.cell(Layer("RNN", HIDDEN), x, INPUTS, [h])[0] for h in given]
    g.output(g.op("Add", *(cell["Y"] for cell in cells)), ["time", 1, "batch", HIDDEN])
    names = [g.output(cell["Y_h"], [1, "batch", HIDDEN]) for cell in cells]
    pairs = zip(given, reversed(names) if swap else names, strict=True)
    (tmp_path / "model.toml").write_text("[state]\n" + "".join(f'{h} = "{hn}"\n' for h, hn in pairs))
    if swap:
        with pytest.raises(ModelRefused, match="a state is fed back that is not meant to be"):
            loaded(g.model(), tmp_path)
    else:
        assert loaded(g.model(), tmp_path).facts.carried


def test_states_are_compared_where_no_output_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer does not depend on the cell, so only the states can tell that its weights are wrong."""
    g = Writer()
    x = g.input(["time", "batch", INPUTS])
    outputs, _ = g.cell(Layer("LSTM", HIDDEN), x, INPUTS)
    zero = g.constant(np.zeros((1, 1, 1, 1), np.float32))
    g.output(g.op("Mul", outputs["Y"], zero), ["time", 1, "batch", HIDDEN])
    assert loaded(g.model(), tmp_path).proof.max_error > 0
    lstm = kinds.OPERATORS["LSTM"]

    def forgetful(*args: object) -> object:
        graph, cell, x_BI, states = args
        return lstm.step(graph, cell, x_BI, {**states, "cell": states["hidden"]})  # type: ignore[arg-type, dict-item, index]

    monkeypatch.setitem(kinds.OPERATORS, "LSTM", replace(lstm, step=forgetful))  # type: ignore[arg-type]
    with pytest.raises(ModelRefused, match=r"state '(hidden|cell)' of layer 0 at step 1 differs"):
        loaded(g.model(), tmp_path)


def test_an_equation_that_is_wrong_at_the_first_step_is_refused_without_blaming_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = Writer()
    _, _, outputs = started(g, "RNN")
    g.output(outputs["Y"], ["time", 1, "batch", HIDDEN])
    ones, zeros = np.ones((INPUTS + HIDDEN, HIDDEN), np.float32), np.zeros(HIDDEN, np.float32)
    parts = [[ones[:INPUTS]], [ones[INPUTS:]]]
    monkeypatch.setattr(
        gates, "affine", lambda g, _cell, _gates, *tensors: g.affine([*zip(tensors, parts, strict=True)], zeros)
    )
    with pytest.raises(ModelRefused, match="one step of it does not give what the whole file gives"):
        loaded(g.model(), tmp_path)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_an_error_counts_by_the_largest_value_that_the_element_has_had(scale: float) -> None:
    """Rounding of a large feature is no error of its small values, nor one of another feature."""
    wanted = np.array([[1000.0, 0.001], [-2000.0, 0.002]]) * scale
    steps = wanted[np.newaxis]
    assert errors(steps, steps + 0.01 * scale)[0] == pytest.approx(0.01 * scale / max(1.0, 0.002 * scale))
    later = np.stack([np.full((2, 2), 1e12), wanted])
    assert errors(later, later + 1.0)[1] == pytest.approx(1e-12)
    assert errors(later, later + 1.0, since_start=False)[1] == pytest.approx(1 / max(1.0, 0.002 * scale))


@pytest.mark.parametrize("strange", [np.inf, -np.inf])
def test_infinity_agrees_with_itself_only(strange: float) -> None:
    wanted = np.array([[[strange, 1.0]]])
    assert errors(wanted, wanted.copy()) == [0]
    assert errors(wanted, np.array([[[0.0, 1.0]]])) == [np.inf]


def test_a_model_that_overflows_by_itself_is_refused_for_that_and_not_for_mixing(tmp_path: Path) -> None:
    g = Writer()
    x = g.input(["time", "batch", INPUTS])
    outputs, _ = g.cell(Layer("RNN", HIDDEN, activations=("Relu",), scale=1e8), x, INPUTS)
    g.output(outputs["Y"], ["time", 1, "batch", HIDDEN])
    with pytest.raises(ModelRefused, match=r"the original file itself answers (NaN|Inf) in .* it overflows"):
        loaded(g.model(), tmp_path)


def test_a_freed_axis_is_compared_with_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were freeing to make another network of it, the copy alone would still agree with itself."""
    freed = axes.freed

    def spoilt(*given: object, **more: object) -> Iterator[axes.Freed]:
        for candidate in freed(*given, **more):  # type: ignore[arg-type]
            bias = candidate.model.graph.initializer[2]
            bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.1), bias.name))
            yield candidate

    g = Writer()
    outputs, _ = g.cell(Layer("GRU", HIDDEN), g.input([5, 2, INPUTS]), INPUTS)
    g.output(outputs["Y"], [5, 1, 2, HIDDEN])
    assert loaded(g.model(), tmp_path).facts.freed
    monkeypatch.setattr(axes, "freed", spoilt)
    with pytest.raises(ModelRefused, match="once the axes that the file fixes are freed, so they cannot be"):
        loaded(g.model(), tmp_path)


def test_the_proof_says_how_far_apart_the_two_were_and_over_how_many_steps(tmp_path: Path) -> None:
    g = Writer()
    _, _, outputs = started(g)
    g.output(outputs["Y"], ["time", 1, "batch", HIDDEN])
    proved = loaded(g.model(), tmp_path).proof
    assert 0 < proved.max_error < proved.tolerance == 1e-5
    assert proved.steps == max(comparison._LENGTHS) * sum(comparison._BATCHES) + hints.STEPS


@pytest.mark.parametrize("table", [2, 50])
def test_tokens_are_drawn_within_the_smallest_table_that_they_pick_from(table: int, tmp_path: Path) -> None:
    g = Writer()
    token = g.input(["time", "batch"], np.int64)
    rows = [g.op("Gather", g.constant(g.numbers(size, INPUTS)), g.op("Identity", token)) for size in (table, 60)]
    outputs, _ = g.cell(Layer("GRU", HIDDEN), g.op("Add", *rows), INPUTS)
    g.output(outputs["Y"], ["time", 1, "batch", HIDDEN])
    (port,) = loaded(g.model(), tmp_path).graph.inputs
    drawn = port.sample(500, 1, np.random.default_rng(0))
    assert set(drawn.flat) == set(range(table))


def test_a_port_puts_steps_into_the_originals_axes_and_takes_them_out_again() -> None:
    random = np.random.default_rng(0)
    for batch, time, block, row in [
        (0, 1, 0, (3,)), (1, 0, 0, (3,)), (2, 0, 0, (3,)), (0, 2, 0, (3,)), (None, 0, 0, (3,)), (0, 1, 5, (5,)),
        (1, 0, 5, (5, 2)), (0, 2, 4, (2, 4)), (2, 1, 4, (2, 4)), (None, 1, 4, (2, 4)),
    ]:  # fmt: skip
        port = Port("x", np.dtype(np.float32), row, batch, time, block)
        rows = 1 if batch is None else 3
        x = port.sample(7, rows, random)
        original = port.original(x)
        assert original.shape == port.shape(rows, 7)
        np.testing.assert_array_equal(port.steps(original), x)
        np.testing.assert_array_equal(port.last(original), x[-1])


def test_a_file_that_divides_by_a_whole_number_is_proved_with_others_than_zero(tmp_path: Path) -> None:
    g = Writer()
    x, rate = g.input(["time", "batch", INPUTS]), g.input(["batch"], np.int64)
    halved = g.op("Div", g.constant(np.array(1000, np.int64)), rate)  # onnxruntime fails where it is zero
    scaled = g.op("Mul", x, g.unsqueeze(g.op("Cast", halved, to=onnx.TensorProto.FLOAT), 1))
    outputs, _ = g.cell(Layer("GRU", HIDDEN), scaled, INPUTS)
    g.output(outputs["Y"], ["time", 1, "batch", HIDDEN])
    assert loaded(g.model(), tmp_path).graph.layers


def test_an_operator_that_makes_numbers_of_nan_does_not_hide_it(tmp_path: Path) -> None:
    """onnxruntime's GRU gives numbers for NaN; what is never a number is refused in a sentence about it."""
    g = Writer()
    x = g.input(["time", "batch", INPUTS])
    never = g.op("Log", g.op("Neg", g.op("Add", g.op("Abs", x), g.constant(np.ones(1, np.float32)))))
    outputs, _ = g.cell(Layer("GRU", HIDDEN), never, INPUTS)
    g.output(outputs["Y"], ["time", 1, "batch", HIDDEN])
    with pytest.raises(ModelRefused, match=r"NaN at step 0 .* the file divides by its input, or takes its root"):
        loaded(g.model(), tmp_path)


def test_a_sequence_that_is_not_a_tensor_does_not_make_the_diagnosis_fail(tmp_path: Path) -> None:
    g = Writer()
    x = g.input(["time", "batch", INPUTS])
    outputs, _ = g.cell(Layer("GRU", HIDDEN), x, INPUTS)
    y = g.squeeze(outputs["Y"], 1)
    pieces = g.op("SplitToSequence", y, axis=0)
    joined = g.op("ConcatFromSequence", pieces, axis=0)
    mean = g.op("ReduceMean", joined, axes=[0], keepdims=0)
    g.output(mean, ["batch", HIDDEN])
    with pytest.raises(ModelRefused, match=r"ReduceMean.*mixes steps"):
        loaded(g.model(), tmp_path)


def test_a_proof_reads_the_file_and_not_what_was_made_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the loader makes of an interface, the reference is a session over the file's own operators."""
    seen: list[list[str]] = []
    create = session.create

    def noting(model: onnx.ModelProto, *kept: object) -> object:
        seen.append([node.op_type for node in model.graph.node])
        return create(model, *kept)

    monkeypatch.setattr(session, "create", noting)
    g = Writer()
    _, _, outputs = started(g)
    g.output(outputs["Y"], ["time", 1, "batch", HIDDEN])
    model = loading.load(_saved(g.model(), tmp_path), 1, 1e-3)
    assert ["GRU"] in seen
    assert "GRU" not in [node.op_type for node in model.graph.model.graph.node]


def _saved(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("factor", [600.0, 3000.0])
def test_a_network_that_loses_digits_is_served_with_its_error_if_reading_proves_it(
    factor: float, tmp_path: Path
) -> None:
    """The sine of something large has few of its digits: answers differ by more than usual, and not by much."""
    g = Writer()
    _, _, outputs = started(g)
    large = g.op("Mul", outputs["Y"], g.constant(np.full(1, factor, np.float32)))
    g.output(g.op("Sin", large), ["time", 1, "batch", HIDDEN])
    proof = loaded(g.model(), tmp_path).proof
    assert not proof.unread
    assert proof.tolerance < proof.max_error < 1e-3
    assert f"by up to {proof.max_error:.1e}, more than the usual" in proof.by_rounding


def test_a_network_that_loses_most_digits_is_refused_for_its_rounding_and_no_node_is_blamed(tmp_path: Path) -> None:
    g = Writer()
    _, _, outputs = started(g)
    large = g.op("Mul", outputs["Y"], g.constant(np.full(1, 1e5, np.float32)))
    g.output(g.op("Sin", large), ["time", 1, "batch", HIDDEN])
    with pytest.raises(ModelRefused, match=r"the difference is rounding.* at most 1e-03 is accepted") as refused:
        loaded(g.model(), tmp_path)
    assert refused.value.node is None


@pytest.mark.parametrize("head", [0.0, 10.0, 1e4])
def test_a_cell_whose_weights_make_rounding_grow_is_refused_for_that_and_not_for_mixing(
    head: float, tmp_path: Path
) -> None:
    g = Writer()
    x, wide = g.input(["time", "batch", INPUTS]), 300
    outputs, _ = g.cell(Layer("RNN", wide, scale=4.0), x, INPUTS, [])
    y = outputs["Y"]
    if head:
        y = g.op("MatMul", y, g.constant(np.full((wide, wide), head, np.float32)))
    g.output(y, ["time", 1, "batch", wide])
    with pytest.raises(ModelRefused, match="in this network rounding grows") as refused:
        loaded(g.model(), tmp_path)
    assert refused.value.node is None
    assert "mixes steps" not in str(refused.value)


@pytest.mark.parametrize("share", [3e-5, 1e-3])
def test_a_node_that_mixes_steps_is_named_however_little_the_answer_has_of_it(share: float, tmp_path: Path) -> None:
    g = Writer()
    _, _, outputs = started(g)
    mean = g.op("ReduceMean", outputs["Y"], axes=[0], keepdims=1)
    little = g.op("Mul", mean, g.constant(np.full(1, share, np.float32)))
    g.output(g.op("Add", outputs["Y"], little), ["time", 1, "batch", HIDDEN])
    with pytest.raises(ModelRefused, match=r"ReduceMean.* mixes steps") as refused:
        loaded(g.model(), tmp_path)
    assert refused.value.node
