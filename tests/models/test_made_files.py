"""Files as toolkits make them: each is served with the toolkit's own answers, or refused for a true reason.

`makers/` says how those in `made/` were made; those of torch's older exporter are made here.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from stepgraph.errors import ModelRefused
from stepgraph.file import sidecar
from stepgraph.loading import load
from stepgraph.reading import legends, starts
from stepgraph.report import example
from tests.forked import forked_here
from tests.models.makers import artefact, torch_exporters

if TYPE_CHECKING:
    from stepgraph.model import LoadedModel
    from tests.models.makers.artefact import Recorded

MADE = Path(__file__).parent / "made"
MIXES = "mixes steps with one another"
NO_CELL = "holds no RNN, LSTM or GRU node"

# what each file holds once it is served: its cells in their order
SERVED = {
    "keras2/gru": ("GRU",),
    "keras2/lstm": ("LSTM",),
    "keras2/lstm-stateful": ("LSTM",),
    "keras2/time-distributed": ("LSTM",),
    # tf2onnx writes these cells as `Loop`, so that they are not seen as such
    "keras2/gru-masking": (),
    "keras2/gru-reset-before": (),
    "keras2/lstm-masking": (),
    "keras2/simple-rnn": (),
    "keras3/gru": (),
    "keras3/gru-last": (),
    "keras3/gru-masking": (),
    "keras3/gru-reset-before": (),
    "keras3/lstm-masking": (),
    "keras3/lstm-then-gru": ("LSTM",),
    "keras3/simple-rnn": (),
    "keras3/simple-rnn-last": (),
    "keras3/lstm": ("LSTM",),
    "keras3/lstm-last": ("LSTM",),
    "keras3/lstm-shown": ("LSTM",),
    "keras3/lstm-sigmoid": ("LSTM",),
    "keras3/lstm-stacked": ("LSTM", "LSTM"),
    "keras3/lstm-stateful": ("LSTM",),
    "keras3/normalised": ("LSTM",),
    "keras3/tokens": ("LSTM",),
    "darts/gru": ("GRU", "GRU"),
    "darts/gru-likelihood": ("GRU",),
    "darts/lstm": ("LSTM",),
    "darts/lstm-covariates": ("LSTM",),
    "darts/lstm-free-axes": ("LSTM",),
    "darts/rnn": ("RNN",),
    "torch-dynamo/gru": ("GRU",),
    "torch-dynamo/gru-shown": ("GRU", "GRU"),
    "torch-dynamo/gru-static": ("GRU",),
    "torch-dynamo/lstm": ("LSTM",),
    "torch-dynamo/lstm-batch": ("LSTM",),
    "torch-dynamo/lstm-last": ("LSTM",),
    "torch-dynamo/lstm-shown": ("LSTM",),
    "torch-dynamo/lstm-stacked": ("LSTM", "LSTM"),
    "torch-dynamo/lstm-static": ("LSTM",),
    "torch-dynamo/lstm-time-first": ("LSTM",),
    "torch-dynamo/scan": (),
    "torch-dynamo/tokens": ("LSTM",),
    "torch-dynamo/while-loop": (),
    **dict.fromkeys((f"torch-dynamo/{name}" for name in ("chomped", "lag", "tcn", "unfold")), ("GRU",)),
}

# and why not
REFUSED = {
    "keras3/attention": rf"attention.*\(MatMul\) {MIXES}",
    "keras3/backwards": rf"\(ReverseSequence\) {MIXES}",
    "keras3/bidirectional": r"\(LSTM\) runs bidirectional: it needs steps that have not come yet",
    "keras3/conv1d": rf"\(Conv\) {MIXES}",
    "keras3/lstm-unrolled": NO_CELL,  # it is written out for six steps
    "keras3/pooled": rf"\(ReduceMean\) {MIXES}",
    "keras3/time-distributed": "batch and time cannot be found",  # tf2onnx confuses them
    "torch-dynamo/attention": rf"\(MatMul\) {MIXES}",
    "torch-dynamo/bidirectional": r"\(LSTM\) runs bidirectional",
    "torch-dynamo/conv1d": rf"\(Conv\) {MIXES}",
    # the exporter forgets the projection, and the states have another size than the cell
    "torch-dynamo/lstm-projected": r"does not run.*initial_c must have shape \{1,\d,2\}. Actual:\{1,\d,4\}",
    "torch-dynamo/rnn-relu": NO_CELL,  # this exporter writes nn.RNN out for the steps of its example
    "torch-dynamo/rnn-shown": NO_CELL,
    "torch-dynamo/rnn-static": NO_CELL,
    "torch-dynamo/rnn-tanh": NO_CELL,
}

TORCHSCRIPT_REFUSED = {
    "attention": rf"\(MatMul\) {MIXES}",
    "bidirectional": r"\(LSTM\) runs bidirectional",
    "conv1d": rf"\(Conv\) {MIXES}",
    "lstm-cell": NO_CELL,  # it is made of ordinary operators
}
BY_DYNAMO = "lstm", "gru"  # of the cases, those that are made anew
BY_TORCHSCRIPT = torch_exporters.CASES.keys() - torch_exporters.NOT_BY_TORCHSCRIPT


def check_stream(model: LoadedModel, recorded: Recorded) -> None:
    """What the model answers step by step is what the toolkit answered, and so are the states of its cells."""
    steps, batch = next(iter(recorded.inputs.values())).shape[:2]
    state = np.tile(model.graph.initial, (batch, 1))
    for step in range(steps):
        inputs = {name: x[step : step + 1] for name, x in recorded.inputs.items()}
        answer = model.engine.run(inputs, state, trace=bool(model.graph.trace))
        state = answer.state
        for name, wanted in recorded.outputs.items():
            np.testing.assert_allclose(answer.outputs[name][0], wanted[step], atol=1e-5)
        for columns in model.graph.trace:
            wanted = recorded.trace.get((columns.layer, columns.name))
            if wanted is not None:
                np.testing.assert_allclose(answer.trace[0][:, columns.span], wanted[step], atol=1e-5)


def test_a_cell_that_torch_wrote_as_operators_streams_once_its_states_are_said(tmp_path: Path) -> None:
    made = MADE / "torch-dynamo" / "lstm-cell.onnx"
    path = tmp_path / "model.onnx"
    path.write_bytes(made.read_bytes())
    with pytest.raises(ModelRefused, match=NO_CELL):
        load(path, 4, 1.0)
    path.with_name("model.toml").write_text('[state]\nh = "h_out"\nc = "c_out"\n')
    check_stream(load(path, 4, 1.0), artefact.read(made))


@pytest.mark.parametrize("name", ["darts/lstm", "torch-dynamo/lstm-static"])
def test_a_batch_that_is_fixed_in_the_shape_of_a_reshape_is_freed(name: str) -> None:
    facts = load(MADE / f"{name}.onnx", 4, 1.0).facts
    assert "batch" in facts.freed
    assert not facts.alone


def test_every_file_is_either_served_or_refused() -> None:
    made = {str(path.relative_to(MADE).with_suffix("")) for path in MADE.rglob("*.onnx")}
    assert made == {*SERVED, *REFUSED, "torch-dynamo/lstm-cell"}


def kinds(model: LoadedModel) -> tuple[str, ...]:
    return tuple(cell.kind for cell in model.graph.layers)


@pytest.mark.parametrize("name", SERVED)
def test_a_file_streams_what_the_toolkit_that_made_it_answers(name: str) -> None:
    model = load(MADE / f"{name}.onnx", 4, 1.0)
    assert kinds(model) == SERVED[name]
    check_stream(model, artefact.read(MADE / f"{name}.onnx"))
    check_example(model)


def check_example(model: LoadedModel) -> None:
    """The model.toml that is shown for a file is true of it, also with what stands as comments in it."""
    shown = example.of_served(model, {})
    for lines in (shown, [line.removeprefix("# ") for line in shown]):
        said = sidecar.parse("\n".join(lines).encode())
        assert {*said.inputs, *said.outputs} == {port.name for port in (*model.facts.inputs, *model.facts.outputs)}
        assert not legends.put(model.facts, onnx.ModelProto(), said).misread
        assert said.state == {pair.given.name: pair.returned.name for pair in model.facts.carried}
        starts.check(model.facts, said.start)


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_stream_is_refused_for_what_it_holds(name: str) -> None:
    with pytest.raises(ModelRefused, match=REFUSED[name]):
        load(MADE / f"{name}.onnx", 4, 1.0)
    shown = example.lines(onnx.load(MADE / f"{name}.onnx"))
    for lines in (shown, [line.removeprefix("# ") for line in shown]):
        assert sidecar.parse("\n".join(lines).encode()).inputs


@pytest.mark.parametrize("name", sorted(BY_TORCHSCRIPT - TORCHSCRIPT_REFUSED.keys()))
def test_what_torchs_older_exporter_writes_streams_what_torch_answers(name: str, tmp_path: Path) -> None:
    recorded = torch_exporters.make(name, tmp_path / "model.onnx", dynamo=False)
    model = load(tmp_path / "model.onnx", 4, 1.0)
    cells = torch_exporters.CASES[name]().net.cell
    assert kinds(model) == (type(cells).__name__,) * cells.num_layers
    assert recorded.trace.keys() <= {(columns.layer, columns.name) for columns in model.graph.trace}
    check_stream(model, recorded)


@pytest.mark.parametrize("name", TORCHSCRIPT_REFUSED)
def test_what_torchs_older_exporter_writes_is_refused_where_it_cannot_stream(name: str, tmp_path: Path) -> None:
    torch_exporters.make(name, tmp_path / "model.onnx", dynamo=False)
    with pytest.raises(ModelRefused, match=TORCHSCRIPT_REFUSED[name]):
        load(tmp_path / "model.onnx", 4, 1.0)


@pytest.fixture(scope="module")
def by_dynamo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what torch's dynamo exporter writes today."""
    folder = tmp_path_factory.mktemp("dynamo")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch warns itself of
        process = forked_here(torch_exporters.main, str(folder), *BY_DYNAMO)
    process.join(500)
    assert process.exitcode == 0
    return folder


@pytest.mark.parametrize("name", BY_DYNAMO)
def test_what_torchs_dynamo_exporter_writes_today_streams_what_torch_answers(name: str, by_dynamo: Path) -> None:
    model = load(by_dynamo / f"{name}.onnx", 4, 1.0)
    assert kinds(model) == SERVED[f"torch-dynamo/{name}"]
    check_stream(model, artefact.read(by_dynamo / f"{name}.onnx"))


def test_no_file_tells_of_the_machine_that_made_it() -> None:
    for path in MADE.rglob("*.onnx"):
        content = path.read_bytes()
        assert not any(word in content for word in (b"/tmp", b"/home", b"/root", b".py")), path  # looked for
