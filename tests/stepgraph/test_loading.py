"""From a file to numbers: the step graph against onnxruntime's own operators, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from stepgraph import loading
from stepgraph.cells import kinds
from stepgraph.errors import ModelRefused, StepFailed
from stepgraph.loading import load

if TYPE_CHECKING:
    from pathlib import Path

    from stepgraph.model import LoadedModel
    from tests.zoo import Zoo

BLOCKS = {"RNN": 1, "LSTM": 4, "GRU": 3}
INPUTS, HIDDEN = 3, 4


def operator(kind: str, opset: int = 17, bias: bool = True, **attributes: object) -> onnx.ModelProto:
    """A model that is one recurrent operator, named `the_cell`, with all its outputs."""
    random = np.random.default_rng(0)
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    blocks = BLOCKS[kind] * HIDDEN
    shapes = {"W": (blocks, INPUTS), "R": (blocks, HIDDEN)} | ({"B": (2 * blocks,)} if bias else {})
    weights = [
        numpy_helper.from_array(random.normal(0, 0.5, (directions, *shape)).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    states = {"Y_h": ["h"], "Y_c": ["c"]} if kind == "LSTM" else {"Y_h": ["h"]}
    node = helper.make_node(
        kind,
        ["x", *shapes],
        ["y", *(n for v in states.values() for n in v)],
        "the_cell",
        hidden_size=HIDDEN,
        **attributes,
    )
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", INPUTS])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["time", directions, "batch", HIDDEN])
    last = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [directions, "batch", HIDDEN])
        for names in states.values()
        for n in names
    ]
    graph = helper.make_graph([node], "g", [x], [y, *last], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def loaded(model: onnx.ModelProto, folder: Path) -> LoadedModel:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return load(path, 4, 1e-3)


CASES = [
    *((kind, opset, {}) for kind in BLOCKS for opset in (7, 11, 14, 17, 22)),
    ("GRU", 17, {"linear_before_reset": 1}),
    ("RNN", 17, {"activations": ["Relu"]}),
    ("LSTM", 17, {"activations": ["Sigmoid", "Relu", "Tanh"]}),
    ("GRU", 17, {"activations": ["Sigmoid", "Relu"], "linear_before_reset": 1}),
    ("LSTM", 17, {"bias": False}),
    ("GRU", 17, {"bias": False}),
    ("RNN", 17, {"bias": False}),
]


@pytest.mark.parametrize(("kind", "opset", "more"), CASES, ids=str)
def test_the_step_graph_computes_what_the_operator_computes(
    kind: str, opset: int, more: dict[str, object], tmp_path: Path
) -> None:
    model = operator(kind, opset, **more)
    x = np.random.default_rng(1).normal(size=(9, 4, INPUTS)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y, *last = session.run(None, {"x": x})
    engine = loaded(model, tmp_path).engine
    result = engine.run({"x": x}, np.tile(engine.graph.initial, (4, 1)), trace=True)
    names = list(result.outputs)
    np.testing.assert_allclose(np.squeeze(result.outputs[names[0]]), y[:, 0], rtol=0, atol=1e-5)
    for name, expected in zip(names[1:], last, strict=True):
        np.testing.assert_allclose(result.outputs[name][-1].reshape(4, HIDDEN), expected[0], rtol=0, atol=1e-5)
    assert result.trace is not None
    (hidden,) = (columns for columns in engine.graph.trace if columns.name == "hidden")
    np.testing.assert_allclose(result.trace[..., hidden.span], y[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("kind", BLOCKS)
def test_a_step_into_arrays_that_are_kept_has_the_bits_of_one_into_new_arrays(
    kind: str, trace: bool, tmp_path: Path
) -> None:
    engine = loaded(operator(kind), tmp_path).engine
    for rows in range(1, 6):  # one more than are warmed up
        x = np.random.default_rng(rows).normal(size=(3, rows, INPUTS)).astype(np.float32)
        state = again = engine.graph.settled(rows)
        earlier = []
        for step in range(len(x)):
            new = engine.run({"x": x[step : step + 1]}, state, trace)
            kept = engine.run_once({"x": x[step : step + 1]}, again, trace)
            state, again = new.state, kept.state.copy()
            earlier.append((new, kept))
            assert np.array_equal(state, again)
        for new, kept in earlier:  # what was given stays as it was
            assert all(np.array_equal(kept.outputs[name], values) for name, values in new.outputs.items())
            assert (kept.trace is None) is (not trace)
            assert new.trace is None or (kept.trace is not None and np.array_equal(kept.trace, new.trace))


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("kind", BLOCKS)
def test_many_steps_in_one_call_have_the_bits_of_single_steps(kind: str, trace: bool, tmp_path: Path) -> None:
    engine = loaded(operator(kind), tmp_path).engine
    for rows in (1, 3):
        x = np.random.default_rng(rows).normal(size=(7, rows, INPUTS)).astype(np.float32)
        state = engine.graph.settled(rows)
        whole = engine.run({"x": x}, state, trace)
        later = engine.run({"x": x}, whole.state, trace)  # changes nothing of what the call before gave
        for result in (whole, later):
            assert (result.trace is None) is (not trace)
            for step in range(len(x)):
                single = engine.run({"x": x[step : step + 1]}, state, trace)
                state = single.state
                for name, values in single.outputs.items():
                    assert np.array_equal(result.outputs[name][step], values[0])
                assert single.trace is None or np.array_equal(result.trace[step], single.trace[0])
            assert np.array_equal(result.state, state)


def test_steps_whose_output_changes_its_shape_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = loaded(operator("LSTM"), tmp_path).engine
    run, wrong = engine._step, iter([0, 1])

    def changing(*given: Any) -> list[np.ndarray]:  # noqa: ANN401 - what the engine is given
        y, *others = run(*given)
        return [y[..., next(wrong) :], *others]

    monkeypatch.setattr(engine, "_step", changing)
    with pytest.raises(StepFailed, match="has not the shape that it has in a sequence"):
        engine.run({"x": np.zeros((2, 2, INPUTS), np.float32)}, engine.graph.settled(2), trace=False)


@pytest.mark.parametrize("direction", ["bidirectional", "reverse"])
@pytest.mark.parametrize("kind", BLOCKS)
def test_a_cell_that_needs_the_future_is_refused_by_its_name(kind: str, direction: str, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=rf"'the_cell' \({kind}\) runs {direction}"):
        loaded(operator(kind, direction=direction), tmp_path)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_the_proof_finds_gates_that_are_packed_in_another_order(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *rest = kinds.OPERATORS[kind].blocks
    swapped = replace(kinds.OPERATORS[kind], blocks=(second, first, *rest))
    monkeypatch.setitem(kinds.OPERATORS, kind, swapped)
    with pytest.raises(ModelRefused, match="differs"):
        loaded(operator(kind), tmp_path)


def test_the_proof_finds_an_output_gate_and_a_forget_gate_that_changed_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    i, o, f, g = kinds.OPERATORS["LSTM"].blocks
    monkeypatch.setitem(kinds.OPERATORS, "LSTM", replace(kinds.OPERATORS["LSTM"], blocks=(i, f, o, g)))
    with pytest.raises(ModelRefused, match="differs"):
        loaded(operator("LSTM"), tmp_path)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x07" * 100], ids=["empty", "text", "noise"])
def test_a_file_that_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelRefused, match=r"."):
        load(path, 4, 1e-3)


def test_every_way_to_cut_a_file_short_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    content = (zoo.models / "tiny" / "1" / "model.onnx").read_bytes()
    path = tmp_path / "model.onnx"
    for length in range(1, len(content), len(content) // 20):
        path.write_bytes(content[:length])
        with pytest.raises(ModelRefused):
            load(path, 4, 1e-3)


@pytest.mark.parametrize("name", ["the_cell", "time", "an_axis", "a_key", "the_graph"])
def test_a_name_that_is_no_text_is_refused_in_a_sentence_that_shows_it(name: str, tmp_path: Path) -> None:
    model = operator("LSTM")
    model.graph.name = "the_graph"
    model.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["an_axis"]))
    helper.set_model_props(model, {"a_key": "a value"})
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString().replace(name.encode(), b"\xff" + name[1:].encode()))
    with pytest.raises(ModelRefused, match=rf"the name '\\xff{name[1:]}', which is not UTF-8"):
        load(path, 4, 1e-3)


def test_a_comment_that_is_no_text_is_nobodys_business(tmp_path: Path) -> None:
    model = operator("LSTM")
    model.graph.node[0].doc_string = "a comment"
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString().replace(b"a comment", b"\xff comment"))
    assert load(path, 4, 1e-3).graph.layers[0].node == "the_cell"


@pytest.mark.parametrize("name", ["both-ways", "no-state", "mixing"])
def test_an_unservable_export_of_torch_is_refused(zoo: Zoo, name: str) -> None:
    with pytest.raises(ModelRefused):
        load(zoo.models / name / "1" / "model.onnx", 4, 1e-3)


def test_a_model_that_cannot_be_loaded_for_a_missing_weight_says_which_node(tmp_path: Path) -> None:
    model = operator("LSTM")
    model.graph.node[0].input[2] = "nowhere"
    with pytest.raises(ModelRefused, match=r"nowhere|the_cell"):
        loaded(model, tmp_path)


def test_the_gates_say_what_the_equations_say(tmp_path: Path) -> None:
    model = operator("LSTM", bias=False)
    w, r = (numpy_helper.to_array(t)[0] for t in model.graph.initializer)
    x = np.random.default_rng(2).normal(size=INPUTS).astype(np.float32)
    engine = loaded(model, tmp_path).engine
    h, c = np.linspace(-1, 1, HIDDEN), np.linspace(2, -2, HIDDEN)
    state = np.concatenate([h, c]).astype(np.float32)[None]
    assert [columns.name for columns in engine.graph.state] == ["hidden", "cell"]
    trace = engine.run({"x": x[None, None]}, state, trace=True).trace
    assert trace is not None
    i, o, f, g = np.split(w @ x + r @ h, 4)  # ONNX' packing
    i, o, f, g = (1 / (1 + np.exp(-i)), 1 / (1 + np.exp(-o)), 1 / (1 + np.exp(-f)), np.tanh(g))
    after = f * c + i * g
    expected = {"input": i, "output": o, "forget": f, "candidate": g, "cell": after, "hidden": o * np.tanh(after)}
    for columns in engine.graph.trace:
        np.testing.assert_allclose(trace[0, 0, columns.span], expected[columns.name], rtol=0, atol=1e-5)


def test_an_error_that_came_of_itself_is_told_as_it_is() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__context__, second.__context__ = second, first
    with pytest.raises(ModelRefused, match="ValueError: first"), loading._refusing():
        raise first
