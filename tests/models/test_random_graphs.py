"""Random graphs around random cells: each loads, and streams as onnxruntime answers the whole sequence.

RANDOM_GRAPHS=5000 in the environment takes so many instead of the usual ones, and others each time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stepgraph.loading import load
from stepgraph.rewriting import runnable
from stepgraph.running import session
from tests import onnx_equations as equations
from tests.onnx_writer import Layer, Writer
from tests.recurrent_graphs import INPUTS, INTERFACE, NOWHERE, File, Graph, write

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stepgraph.running.engine import Engine

    Values = dict[str, NDArray[np.generic]]

ROOT = Path(__file__).parents[2]
TOLERANCE = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-5}
STEPS, BATCH, MANY = 5, 3, 17

_more = os.environ.get("RANDOM_GRAPHS")
random_graphs = settings(
    max_examples=int(_more or 125),
    derandomize=_more is None,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

GATES = ("Sigmoid", "HardSigmoid")  # others let a GRU grow without end
CANDIDATES = ("Tanh", "Sigmoid", "HardSigmoid", "Relu", "LeakyRelu", "ThresholdedRelu", "Elu", "Softsign", "Softplus")


@st.composite
def layers(draw: st.DrawFn, opset: int, hidden: int | None) -> Layer:
    """A recurrent operator with any attributes that keep its state from growing without end."""
    kind = draw(st.sampled_from(("RNN", "LSTM", "GRU")))
    attributes: dict[str, Any] = {}
    if draw(st.booleans()):
        gates = [] if kind == "RNN" else [draw(st.sampled_from(GATES))]
        others = {"RNN": 1, "LSTM": 2, "GRU": 1}[kind]
        attributes["activations"] = (*gates, *(draw(st.sampled_from(CANDIDATES)) for _ in range(others)))
    if draw(st.booleans()):
        attributes["clip"] = draw(st.sampled_from((0.25, 1.0, 3.0)))
    if kind == "LSTM":
        attributes |= {"peepholes": draw(st.booleans()), "input_forget": draw(st.booleans())}
    if kind == "GRU":
        attributes["linear_before_reset"] = draw(st.booleans())
    return Layer(
        kind,
        hidden=hidden or draw(st.integers(1, 6)),
        layout=draw(st.integers(0, 1)) if opset >= 14 else 0,
        bias=draw(st.booleans()),
        weights=draw(st.sampled_from(("initializer", "node", "computed"))),
        scale=0.3,
        **attributes,
    )


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any file that these parts make."""
    opset = draw(st.integers(7, 22))
    steps = draw(st.sampled_from(("many", "many", "many", "many", "blocks", "one", "none", "frames")))
    state = draw(st.sampled_from((*NOWHERE, *INTERFACE) if steps in ("many", "blocks") else INTERFACE))
    same = state in ("kinds", "one", "batch-first")
    hidden = draw(st.integers(1, 6)) if same else None
    cells = tuple(draw(layers(opset, hidden)) for _ in range(draw(st.integers(1, 3))))
    graph = Graph(
        cells,
        state,
        draw(st.sampled_from(("slice", "split", "gather"))),
        draw(st.sampled_from(("none", "every", "last", "state"))),
        draw(st.sampled_from(("", "dense") if steps == "blocks" else ("", "dense", "tokens"))),
        batch_first=draw(st.booleans()),
        steps=steps,
        end=draw(st.booleans()),
        lengths=steps == "many" and draw(st.integers(0, 4)) == 4,
        opset=opset,
        dtype=draw(st.sampled_from(("float32", "float32", "float32", "float16", "float64"))),
        seed=draw(st.integers(0, 9)),
    )
    return replace(graph, dtype="float32") if crashes_onnxruntime(graph) else graph


def crashes_onnxruntime(graph: Graph) -> bool:
    """Whether a Transpose feeds a MatMul in half precision: see test_half_precision_with_a_transposed_head_loads."""
    return graph.dtype == "float16" and graph.head == "every" and graph.batch_first != bool(graph.layers[-1].layout)


def load_model(model: onnx.ModelProto, largest: int = 1) -> Engine:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        return load(path, largest, 1e-3).engine


def whole(file: File, rows: NDArray[np.generic], states: Values) -> tuple[list[NDArray[np.generic] | None], Values]:
    """The original's answers at each step, [B, ...row], and its last states; None where it answers at the end only.

    A file for one step at a time is run step after step, with its states handed back.
    """
    reference = session.create(runnable.runnable(file.model))
    answers: list[NDArray[np.generic] | None] = []
    for part in np.split(rows, len(rows)) if file.one_step else [rows]:
        lengths = {file.lengths: np.full(rows.shape[1], len(part), np.int32)} if file.lengths else {}
        names = [file.answer.name, *(output.name for _, output, _ in file.states)]
        values = session.run(reference, names, {file.x.name: file.as_x(part)} | lengths | states)
        states = {given.name: value for (given, _, _), value in zip(file.states, values[1:], strict=True)}
        if file.answer.time is None:
            answers += [*[None] * (len(part) - 1), file.answer.of_step(values[0], 0)]
        else:
            answers += [file.answer.of_step(values[0], step) for step in range(len(part))]
    return answers, states


def state_rows(file: File, engine: Engine, states: Values, batch: int) -> NDArray[np.generic]:
    """The engine's state for sequences whose interface states are `states`."""
    rows = np.tile(engine.graph.initial, (batch, 1))
    for given_, _, _ in file.states:
        (columns,) = (c for c in engine.graph.state if c.layer is None and c.name == given_.name)
        rows[:, columns.span] = given_.of_step(states[given_.name], 0).reshape(batch, -1)
    return rows


def inputs(file: File, engine: Engine, rows: NDArray[np.generic]) -> Values:
    """Steps [K, B, ...row] as the engine takes them: a time axis that is fixed to 1 may be part of its row."""
    (port,) = engine.graph.inputs
    return {file.x.name: rows.reshape(*rows.shape[:2], *port.row)}


def apart(wanted: NDArray[np.generic], got: NDArray[np.generic]) -> float:
    wanted, got = wanted.astype(np.float64), got.astype(np.float64)
    return float((np.abs(wanted - got) / np.maximum(1, np.abs(wanted))).max())


def check_stream(graph: Graph) -> None:
    file = write(graph)
    check_steps(graph, file, load_model(file.model))


def check_steps(graph: Graph, file: File, engine: Engine) -> None:
    random = np.random.default_rng(graph.seed)
    rows, states = file.rows(STEPS, BATCH, random), file.fresh(BATCH, random)
    answers, ends = whole(file, rows, states)
    state = state_rows(file, engine, states, BATCH)
    for row, answer in zip(rows, answers, strict=True):
        result = engine.run(inputs(file, engine, row[np.newaxis]), state, trace=False)
        state = result.state
        if answer is not None:
            got = result.outputs[file.answer.name][0]
            assert apart(answer.reshape(BATCH, -1), got.reshape(BATCH, -1)) <= TOLERANCE[graph.dtype]
    if file.states:
        assert apart(state_rows(file, engine, ends, BATCH), state) <= TOLERANCE[graph.dtype]


def check_rows(graph: Graph, file: File, engine: Engine) -> None:
    random = np.random.default_rng(graph.seed)
    rows = file.rows(2, MANY, random)
    state = state_rows(file, engine, file.fresh(MANY, random), MANY)
    together = engine.run(inputs(file, engine, rows), state, trace=True)
    assert together.trace is not None
    for i in (0, 1, 8, 15, 16):
        alone = engine.run(inputs(file, engine, rows[:, i : i + 1]), state[i : i + 1], trace=True)
        assert alone.trace is not None
        assert alone.state.tobytes() == together.state[i].tobytes()
        assert alone.trace.tobytes() == together.trace[:, i].tobytes()
        for name, output in together.outputs.items():
            assert alone.outputs[name].tobytes() == output[:, i].tobytes()


@random_graphs
@given(graphs())
@example(Graph((Layer("RNN", hidden=1, bias=False),), "kinds", "slice", "none", "", steps="one", end=True, opset=7))
def test_any_graph_streams_as_the_whole_sequence_and_a_row_has_the_same_bits_alone_and_among_seventeen(
    graph: Graph,
) -> None:
    check_both(graph)


def check_both(graph: Graph) -> None:
    file = write(graph)
    engine = load_model(file.model)
    check_steps(graph, file, engine)
    check_rows(graph, file, engine)


FOUND = [
    # two outputs of one cell once had the same name in the oracle
    Graph((Layer("LSTM", layout=1),), "layers", dtype="float64"),
    # the oracle once missed a double cell whose weights are computed
    Graph((Layer("GRU", weights="computed"),), dtype="float64"),
    # Softplus and Elu once rounded the last elements of a tensor differently
    Graph((Layer("LSTM", hidden=1, activations=("Sigmoid", "Elu", "Elu")),), before="dense", opset=7),
    Graph((Layer("RNN", hidden=3, activations=("Softplus",)),), "layers"),
    # so did Sigmoid and Tanh in double precision
    Graph((Layer("RNN", hidden=1, activations=("Sigmoid",)),) * 3, "flat", "split", "state", dtype="float64"),
    # a bound that half precision does not have
    Graph((Layer("LSTM", clip=1e30),), dtype="float16"),
    # numbers without a bound, in a sequence of hundreds of steps
    *(
        Graph(
            (
                Layer("RNN", hidden=3, bias=False),
                Layer("LSTM", hidden=1, bias=False, peepholes=True, activations=("Sigmoid", "Sigmoid", "Softplus")),
            ),
            "constant",
            "slice",
            "none",
            before=before,
            opset=opset,
            seed=seed,
        )
        for before, opset, seed in (("dense", 14, 5), ("", 7, 5), ("", 7, 0), ("dense", 14, 1))
    ),
    # a gate that is closed for a hundred steps, and then lets out what rounding had left in the state
    Graph(
        (Layer("GRU", activations=("HardSigmoid", "Sigmoid"), scale=0.3),),
        "kinds",
        head="none",
        before="dense",
        opset=7,
    ),
]


HALF = [
    Graph((Layer("GRU", 64),) * 3, dtype="float16"),
    Graph((Layer("LSTM", 128),) * 3, dtype="float16"),
    Graph((Layer("RNN", 128, activations=("Relu",), scale=0.3),) * 3, dtype="float16"),
]


@pytest.mark.parametrize("graph", HALF, ids=["gru-64", "lstm-128", "rnn-relu-128"])
def test_half_precision_of_a_common_size_stays_within_its_tolerance(graph: Graph) -> None:
    assert load_model(write(graph).model).graph.layers


@pytest.mark.parametrize("opset", [7, 9, 10, 22])
@pytest.mark.parametrize("state", ["absent", "constant"])
def test_a_file_for_one_step_that_hands_no_state_back_starts_anew_at_each(state: str, opset: int) -> None:
    check_stream(Graph((Layer("GRU"), Layer("LSTM")), state, steps="one", opset=opset))


def test_an_input_that_starts_a_cell_and_is_never_returned_is_zeros_for_a_new_sequence() -> None:
    g = Writer()
    x, h = g.input(["time", "batch", INPUTS]), g.input([1, "batch", 4])
    outputs, _ = g.cell(Layer("GRU", outputs=("Y",)), x, INPUTS, [h])
    g.output(outputs["Y"], ["time", 1, "batch", 4])
    assert [(c.layer, c.name) for c in load_model(g.model()).graph.state] == [(0, "hidden")]


def test_a_file_whose_only_output_is_its_state_gives_it_as_its_answer() -> None:
    g = Writer()
    x, h = g.input(["time", "batch", INPUTS]), g.input([1, "batch", 4])
    outputs, _ = g.cell(Layer("GRU"), x, INPUTS, [h])
    g.output(outputs["Y_h"], [1, "batch", 4])
    graph = load_model(g.model()).graph
    assert [(c.layer, c.name) for c in graph.state] == [(None, h)]
    assert [port.name for port in graph.outputs] == [outputs["Y_h"]]


def test_an_output_without_a_shape_in_the_file_is_served() -> None:
    model = write(Graph((Layer("GRU"),))).model
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert load_model(model).graph.layers


@pytest.mark.parametrize("graph", FOUND, ids=str)
def test_a_graph_that_once_failed_streams_with_the_same_bits_in_every_batch(graph: Graph) -> None:
    check_both(graph)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", equations.ACTIVATIONS)
def test_each_activation_gives_a_row_the_same_bits_in_every_batch(name: str, dtype: str) -> None:
    for hidden in (1, 3, 5):
        lstm = Layer("LSTM", hidden, activations=("Sigmoid", name, name), alphas=(0.5, 0.6), betas=(0.3, 0.2))
        graph = Graph((Layer("RNN", hidden, activations=(name,)), lstm), dtype=dtype)
        file = write(graph)
        check_rows(graph, file, load_model(file.model))


def test_a_file_for_one_step_may_have_lengths() -> None:
    check_stream(Graph((Layer("GRU"),), "layers", steps="one", lengths=True))


def test_half_precision_with_a_transposed_head_loads() -> None:
    graph = Graph((Layer("GRU"),), batch_first=True, dtype="float16")
    assert crashes_onnxruntime(graph)
    statement = f"from tests.models.{Path(__file__).stem} import *; check_stream({graph!r})"
    done = subprocess.run([sys.executable, "-c", statement], cwd=ROOT, check=False, capture_output=True)
    assert done.returncode == 0


@pytest.mark.parametrize("operator", ["Softplus", "Elu", "Atan"])
def test_rows_run_alone_where_the_head_would_change_their_bits_in_a_batch(operator: str) -> None:
    """onnxruntime rounds the last elements of a tensor unlike the others in these operators."""
    files = [write(Graph((Layer("GRU"),), head=f"last {operator}", seed=seed)) for seed in range(3)]
    assert [load_model(file.model, MANY).largest for file in files] == [1, 1, 1]


def test_rows_share_batches_where_their_bits_stay_the_same() -> None:
    assert load_model(write(Graph((Layer("GRU"), Layer("LSTM")))).model, MANY).largest == MANY
