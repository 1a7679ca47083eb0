"""The model.toml that `check` shows below a refusal can be read as one, and names what the file has."""

import tomllib
from pathlib import Path

import onnx
import pytest

import stepgraph
from stepgraph.errors import ModelRefused
from stepgraph.file import sidecar
from stepgraph.report import example, inspection
from tests import recurrent_graphs
from tests.onnx_writer import Layer, Writer
from tests.recurrent_graphs import Graph
from tests.table_model import INPUTS, OUTPUTS, table_model, write

CASES = Path(__file__).parents[2] / "models" / "cases"


@pytest.mark.parametrize("path", sorted(CASES.glob("*.onnx")), ids=lambda path: path.stem)
def test_an_example_is_a_model_toml(path: Path) -> None:
    model = onnx.load(path)
    shown = "\n".join(example.lines(model))
    sidecar.parse(shown.encode())
    sidecar.parse("\n".join(line.removeprefix("# ") for line in example.lines(model)).encode())
    tables = tomllib.loads(shown)
    named = {name for table in ("state", "fixed", "block") for name in tables.get(table, ())}
    assert named <= {info.name for info in model.graph.input}


def test_a_refusal_shows_the_pairs_the_sizes_and_the_outputs_of_its_file() -> None:
    model = onnx.load(CASES / "luong_decoder.onnx")
    report = inspection.refused(inspection.described("f", 1, model), ModelRefused("why"), model)
    said = tomllib.loads("\n".join(report.example))
    assert said["state"] == {"h": "h_out", "c": "c_out"}
    assert said["block"] == {"memory": 512, "mask": 512}
    assert said["outputs"]["leave_out"] == ["h_out"]


def test_the_only_input_of_a_refused_file_is_not_offered_as_its_state() -> None:
    g = Writer()
    x = g.input(["time", "batch", 3])
    y = g.output(g.op("Relu", x), ["time", "batch", 3])
    assert "state" not in tomllib.loads("\n".join(example.lines(g.model())))
    g.input(["time", "batch", 4])
    assert tomllib.loads("\n".join(example.lines(g.model())))["state"] == {x: y}


def test_the_page_of_a_served_file_shows_all_that_is_said_of_it_and_says_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path, table_model())
    before = str(stepgraph.check(path)).splitlines()[1:]
    first = next(i for i, line in enumerate(before) if line.startswith("model.toml "))
    shown = "\n".join(line[11:] for line in before[first : before.index("", first)])
    said = sidecar.parse(shown.encode())
    assert (said.inputs["x"], said.outputs) == (INPUTS, OUTPUTS | {"weather": OUTPUTS["weather"] | {"units": ["", ""]}})
    write(tmp_path, table_model(inputs={}, outputs={}), shown)
    after = str(stepgraph.check(path)).splitlines()[1:]
    measured = ("file ", "time ", "           64 ")
    for page in (before, after):
        page[:] = [line for line in page if not line.startswith(measured)]
    assert after == before


@pytest.mark.parametrize("name", ["rnn-tanh", "lstm-static"])  # the other as one that holds an RNN, too, would be
def test_only_what_torchs_newer_exporter_wrote_is_told_of_it(name: str) -> None:
    model = onnx.load(Path(__file__).parents[2] / "models" / "made" / "torch-dynamo" / f"{name}.onnx")
    advice = inspection.refused(inspection.described("f", 1, model), ModelRefused("why"), model).advice
    assert "newer exporter" in str(advice)
    for node in model.graph.node:
        node.name = f"/net/{node.name.removeprefix('node_')}"  # as the older one calls them
    advice = inspection.refused(inspection.described("f", 1, model), ModelRefused("why"), model).advice
    assert "newer exporter" not in str(advice)


def test_a_refused_recurrent_operator_is_not_taken_for_a_plain_rnn_that_was_written_out() -> None:
    model = onnx.load(Path(__file__).parents[2] / "models" / "made" / "torch-dynamo" / "lstm-static.onnx")
    (lstm,) = (node.name for node in model.graph.node if node.op_type == "LSTM")
    advice = inspection.refused(inspection.described("f", 1, model), ModelRefused("why", lstm), model).advice
    assert advice is None


@pytest.mark.parametrize("weights", ["initializer", "node", "computed"])
def test_the_drawing_of_a_refused_file_and_its_list_have_the_sizes_of_its_cells(weights: str) -> None:
    model = recurrent_graphs.write(Graph((Layer("LSTM", weights=weights), Layer("GRU", weights=weights)))).model
    report = inspection.refused(inspection.described("f", 1, model), ModelRefused("why"), model)
    boxes = [(rung.name, rung.box.input_size, rung.box.hidden_size) for rung in report.ladder if rung.box]
    assert boxes == [(cell.node, cell.input_size, cell.hidden_size) for cell in report.cells]
    assert [sizes for _, *sizes in boxes] == [[3, 4], [4, 4]]


def test_a_reason_that_begins_with_a_files_name_keeps_it_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, table_model(), "[window] steps = 5")
    assert "why        model.toml cannot be read: " in str(stepgraph.check(path))
