"""`python -m server check`: the report as a value, the page, JSON, and the exit status of the real command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from server.operations import check
from stepgraph.report import drawing, ladder, page
from stepgraph.report.examination import examine
from stepgraph.report.report import CostFact, Report

if TYPE_CHECKING:
    from tests.zoo import Zoo

ROOT = Path(__file__).parents[3]


class Handed(nn.Module):
    """Two layers whose states go in and come out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.cell = nn.LSTM(3, 4, num_layers=2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (hn, cn) = self.cell(x, (h0, c0))
        return self.head(y), hn, cn


class Packed(Handed):
    """h and c of both layers in one tensor [4, B, H]."""

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        y, (hn, cn) = self.cell(x, (state[:2].contiguous(), state[2:].contiguous()))
        return self.head(y), torch.cat([hn, cn])


def write(
    network: nn.Module, path: Path, example: tuple[Tensor, ...], axes: dict[str, dict[int, str]], inputs: int
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(axes)
    with pytest.warns():  # the exporter warns of itself
        torch.onnx.export(
            network.eval(),
            example,
            path,
            input_names=names[:inputs],
            output_names=names[inputs:],
            dynamic_axes={name: free for name, free in axes.items() if free},
            opset_version=17,
            dynamo=False,
        )
    return path


STEPS, STATE = {0: "batch", 1: "time"}, {1: "batch"}


@pytest.fixture(scope="module")
def handed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("handed") / "model.onnx"
    example = (torch.zeros(2, 3, 3), torch.zeros(2, 2, 4), torch.zeros(2, 2, 4))
    return write(
        Handed(), path, example, {"x": STEPS, "h0": STATE, "c0": STATE, "y": STEPS, "hn": STATE, "cn": STATE}, 3
    )


def recurrent(kind: str = "LSTM", **attributes: object) -> onnx.ModelProto:
    """One operator named `the_cell`, over [time, batch, 3]."""
    random = np.random.default_rng(0)
    blocks = {"RNN": 1, "LSTM": 4, "GRU": 3}[kind] * 4
    weights = [
        numpy_helper.from_array(random.normal(size=(1, blocks, width)).astype(np.float32), name)
        for name, width in (("W", 3), ("R", 4))
    ]
    node = helper.make_node(kind, ["x", "W", "R"], ["y"], "the_cell", hidden_size=4, **attributes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["time", 1, "batch", 4])
    graph = helper.make_graph([node], "g", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def text(report: Report) -> str:
    return "\n".join(line.text for line in page.lines(report))


def one_line(page: str) -> str:
    return " ".join(page.split())


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT,
        env=variables | {"PYTHONIOENCODING": "utf-8"} | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=500,
        check=False,
    )


def test_a_model_of_two_layers_is_reported_with_all_that_a_client_needs(zoo: Zoo) -> None:
    report = examine(zoo.models / "lstm" / "1" / "model.onnx")
    assert report.served
    assert report.reason is None
    assert [(cell.kind, cell.input_size, cell.hidden_size) for cell in report.cells] == [("LSTM", 3, 8), ("LSTM", 8, 8)]
    assert {state.home for state in report.states} == {"server"}
    assert [(state.layer, state.name, state.row) for state in report.states] == [
        (0, "hidden", (8,)),
        (0, "cell", (8,)),
        (1, "hidden", (8,)),
        (1, "cell", (8,)),
    ]
    (x,) = report.inputs
    assert (x.name, x.dtype, x.row) == ("x", "float32", (3,))
    assert [(c.name, c.unit) for c in x.legend.columns] == [("a", "degC"), ("b", "hPa"), ("c", "")]
    assert report.state_bytes == 4 * 8 * 4
    assert report.traces[0].shown == ("hidden", "cell", "input", "forget", "candidate", "output")
    assert report.traces[0].unseen == ()
    assert report.proof is not None
    assert report.proof.max_error <= report.proof.tolerance
    assert [cost.batch for cost in report.costs] == [1, 16, 64]
    assert all(cost.step_us > 0 for cost in report.costs)


@pytest.mark.parametrize(
    ("costs", "said"),
    [
        ([CostFact(1, 89.34, 89.34)], "89.3 us a step alone (computing only, on this machine)"),
        (
            [CostFact(1, 1234.5, 1234.5), CostFact(16, 150.4, 9.4), CostFact(64, 40.0, 0.625)],
            "1234 us a step alone, 9.40 us in a batch of 16, 0.62 us in a batch of 64 (computing only,",
        ),
    ],
    ids=["alone", "batches"],
)
def test_the_page_says_what_a_step_costs(costs: list[CostFact], said: str) -> None:
    assert said in one_line(text(Report("model.onnx", served=True, costs=tuple(costs))))


def test_a_producer_without_a_version_is_named_alone(tmp_path: Path) -> None:
    model = recurrent()
    model.producer_name, model.producer_version = "tf2onnx", "None"
    assert "written by tf2onnx\n" in text(examine(saved(model, tmp_path)))


def test_the_page_of_a_served_model_says_so_and_stays_within_80_columns(zoo: Zoo) -> None:
    page = text(examine(zoo.models / "lstm" / "1" / "model.onnx"))
    assert page.splitlines()[0].endswith("WILL BE SERVED")
    assert max(map(len, page.splitlines())) <= 80
    for part in (
        "x  [3] float32: a [degC], b [hPa], c",
        "0  LSTM 3 -> 8  (Sigmoid, Tanh, Tanh)",
        "kept by the server, starts from zeros",
        "128 bytes of state",
        "│ LSTM  3 -> 8                       ├──╮ layer 0",
        "│  Squeeze, Transpose, Linear 8->2 (MatMul+Add)",
    ):
        assert part in page


def test_the_ladder_goes_from_the_inputs_through_the_cells_to_the_outputs(zoo: Zoo) -> None:
    rungs = examine(zoo.models / "pair" / "1" / "model.onnx").ladder
    assert [(rung.kind, [word.text for word in rung.words]) for rung in rungs] == [
        ("input", []),
        ("input", []),
        ("operators", ["Embedding 10->2 (Gather)"]),
        ("operators", ["Concat", "Transpose"]),
        ("cell", ["LSTM"]),
        ("operators", ["Squeeze"]),
        ("cell", ["GRU"]),
        ("operators", ["Squeeze", "Transpose"]),
        ("operators", ["Linear 6->3 (MatMul+Add)"]),
        ("output", []),
        ("operators", ["Softmax"]),
        ("output", []),
    ]
    assert rungs[3].above == (0, 2)
    assert rungs[10].above == (7,)


def test_a_state_that_starts_from_values_of_the_file_is_said_to(zoo: Zoo) -> None:
    report = examine(zoo.models / "pair" / "1" / "model.onnx")
    assert [state.start for state in report.states] == ["zeros", "zeros", "values of the file"]


def test_states_in_the_interface_are_shown_as_an_output_that_becomes_an_input(handed: Path) -> None:
    report = examine(handed)
    assert report.served, report.reason
    homes = [(s.layer, s.name, s.home, s.given, s.returned) for s in report.states]
    assert homes == [
        (0, "hidden", "interface", "h0", "hn"),
        (0, "cell", "interface", "c0", "cn"),
        (1, "hidden", "interface", "h0", "hn"),
        (1, "cell", "interface", "c0", "cn"),
    ]
    assert [port.name for port in report.inputs] == ["x"]
    page = text(report)
    assert "hidden [4]: hn -> h0" in page
    assert "output hn goes back into input h0" in one_line(page)
    assert [rung.name for rung in report.ladder if rung.kind in ("input", "output")] == ["x", "y"]


def test_states_that_are_packed_into_one_tensor_are_shown_too(tmp_path: Path) -> None:
    example = (torch.zeros(2, 3, 3), torch.zeros(4, 2, 4))
    axes = {"x": STEPS, "state": STATE, "y": STEPS, "after": STATE}
    report = examine(write(Packed(), tmp_path / "model.onnx", example, axes, 2))
    assert report.served, report.reason
    assert {(s.home, s.given, s.returned) for s in report.states} == {("interface", "state", "after")}


def test_a_file_that_takes_one_step_at_a_time_is_said_to(tmp_path: Path) -> None:
    example = (torch.zeros(2, 1, 3), torch.zeros(2, 2, 4), torch.zeros(2, 2, 4))
    free = {0: "batch"}
    axes = {"x": free, "h0": STATE, "c0": STATE, "y": free, "hn": STATE, "cn": STATE}
    report = examine(write(Handed(), tmp_path / "model.onnx", example, axes, 3))
    assert report.served, report.reason
    assert report.one_step
    assert "the file itself takes one step at a time" in text(report)


def test_a_state_that_is_no_cells_is_shown_where_it_goes_in_and_comes_out(tmp_path: Path) -> None:
    """y = x + the x of the step before, which the file hands from output `after` to input `before`."""
    infos = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy"}
    before, after = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3]) for n in ("before", "after"))
    nodes = [helper.make_node("Add", ["x", "before"], ["y"]), helper.make_node("Relu", ["x"], ["after"])]
    graph = helper.make_graph(nodes, "g", [infos["x"], before], [infos["y"], after])
    path = saved(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path)
    assert "any server for ONNX files will do" in one_line(text(examine(path)))
    (tmp_path / "model.toml").write_text('[state]\nbefore = "after"\n')
    report = examine(path)
    assert report.served, report.reason
    assert [(s.layer, s.given, s.returned, s.row) for s in report.states] == [(None, "before", "after", (3,))]
    assert "before  [3] state: after of the step before" in text(report)
    assert "after  [3] state: before of the next step" in text(report)


def test_an_input_that_is_fixed_beside_the_file_is_noted(tmp_path: Path) -> None:
    model = recurrent()
    model.graph.input.append(helper.make_tensor_value_info("gain", TensorProto.FLOAT, []))
    model.graph.node[0].output[0] = "plain"
    model.graph.node.append(helper.make_node("Mul", ["plain", "gain"], ["y"]))
    (tmp_path / "model.toml").write_text("[fixed]\ngain = 2.5\n")
    report = examine(saved(model, tmp_path))
    assert report.served, report.reason
    assert [port.name for port in report.inputs] == ["x"]
    assert report.remarks == ("input 'gain' is fixed to 2.5 by model.toml: clients do not send it",)


def test_attributes_that_are_not_the_defaults_stand_in_the_box(tmp_path: Path) -> None:
    report = examine(saved(recurrent("LSTM", clip=2.5, activations=["Sigmoid", "Relu", "Tanh"]), tmp_path))
    assert report.served, report.reason
    assert report.cells[0].special == ("clip 2.5",)
    assert report.cells[0].activations == ("Sigmoid", "Relu", "Tanh")
    assert "│ Sigmoid, Relu, Tanh, clip 2.5 " in text(report)


def test_a_refused_cell_is_named_and_marked_in_the_ladder(zoo: Zoo) -> None:
    report = examine(zoo.models / "both-ways" / "1" / "model.onnx")
    assert not report.served
    assert report.node == "/cell/LSTM"
    assert report.cells[0].special == ("bidirectional",)
    page = text(report)
    assert page.splitlines()[0].endswith("REFUSED")
    assert "Node '/cell/LSTM' (LSTM) runs bidirectional" in page
    assert "│ LSTM  3 -> 4                       │    <-- refused" in page
    assert page.rstrip().endswith("y  [batch, time, 8] float32")


def test_an_operator_that_mixes_steps_is_marked_in_the_ladder(zoo: Zoo) -> None:
    report = examine(zoo.models / "mixing" / "1" / "model.onnx")
    assert not report.served
    assert report.node == "/ReduceMean"
    assert "│  ReduceMean  <-- refused" in text(report)


def test_only_the_refused_node_is_marked_also_where_it_has_no_name(tmp_path: Path) -> None:
    """Two unnamed cells, the second of which runs backwards, and is known by its first output."""
    model = recurrent()
    first, axis = model.graph.node[0], helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    first.name, first.output[0] = "", "y_of"
    model.graph.initializer.append(axis)
    model.graph.node.append(helper.make_node("Squeeze", ["y_of", "axis"], ["y_of_1"]))
    model.graph.node.append(helper.make_node("LSTM", ["y_of_1", "R", "R"], ["y"], hidden_size=4, direction="reverse"))
    report = examine(saved(model, tmp_path))
    assert report.node == "y"
    marked = [line.text for line in page.lines(report) if "<-- refused" in line.text]
    assert [rung.name for rung in report.ladder if rung.kind == "cell"] == ["y_of", "y"]
    assert len(marked) == 1


def test_a_file_that_is_no_model_has_a_reason_and_no_ladder(zoo: Zoo) -> None:
    report = examine(zoo.models / "garbage" / "1" / "model.onnx")
    assert not report.served
    assert report.ladder == ()
    assert "cannot be read as an ONNX model" in one_line(text(report))
    assert "Export or copy it once more" in text(report)


def test_a_graph_with_a_cycle_has_a_reason_and_no_ladder(tmp_path: Path) -> None:
    model = recurrent()
    model.graph.node[0].input[0] = "z"
    model.graph.node.append(helper.make_node("Add", ["x", "y"], ["z"]))
    report = examine(saved(model, tmp_path))
    assert not report.served
    assert report.reason


def test_a_file_whose_names_are_no_text_has_a_reason(tmp_path: Path) -> None:
    path = saved(recurrent(), tmp_path)
    path.write_bytes(path.read_bytes().replace(b"the_cell", b"the\xff\xfecel"))
    report = examine(path)
    assert not report.served
    assert json.dumps(asdict(report))
    assert "REFUSED" in text(report)
    assert r"the name 'the\xff\xfecel', which is not UTF-8" in one_line(text(report))


def test_names_that_a_terminal_would_obey_are_printed_without_effect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = recurrent(direction="reverse")
    model.graph.node[0].name = "\x1b[2J\nevil\u202e"
    assert check.main([str(saved(model, tmp_path))]) == 1
    printed = capsys.readouterr().out
    assert "evil" in printed
    assert "\x1b" not in printed
    assert "\u202e" not in printed


@pytest.mark.parametrize("name", ["pair", "mixing", "garbage", "no-state"])
def test_the_json_is_the_report(name: str, zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    path = zoo.models / name / "1" / "model.onnx"
    status = check.main([str(path), "--json"])
    said = json.loads(capsys.readouterr().out)
    report = json.loads(json.dumps(asdict(examine(path))))
    for measured in (said, report):
        del measured["costs"]
    assert said == report
    assert status == (0 if said["served"] else 1)


def test_a_folder_is_checked_model_by_model(zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.zoo import repository

    models = repository(zoo, tmp_path, "tiny", "both-ways")
    assert check.main([str(models)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("refused")
    assert "runs bidirectional" in lines[0]
    assert lines[1].startswith("served")
    assert lines[1].endswith("LSTM 1 -> 1")
    assert lines[2] == "1 of 2 will be served"
    assert check.main([str(models), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["served"], len(said["models"])) == (1, 2)
    assert check.main([str(models / "tiny")]) == 0
    assert "WILL BE SERVED" in capsys.readouterr().out


def test_the_exit_status_tells_scripts_what_became_of_a_file(zoo: Zoo, tmp_path: Path) -> None:
    statuses = {
        name: run("check", str(path))
        for name, path in {
            "served": zoo.models / "tiny" / "1" / "model.onnx",
            "refused": zoo.models / "garbage" / "1" / "model.onnx",
            "missing": tmp_path / "missing.onnx",
        }.items()
    }
    assert {name: done.returncode for name, done in statuses.items()} == {"served": 0, "refused": 1, "missing": 2}
    assert statuses["missing"].stderr.startswith("python -m server check: ")
    assert statuses["missing"].stderr.endswith("missing.onnx: No such file or directory\n")
    assert statuses["refused"].stdout.count("Export or copy it once more") == 1
    assert not any("Traceback" in done.stdout + done.stderr for done in statuses.values())
    assert "\x1b" not in statuses["served"].stdout  # colour is for terminals


def test_a_file_that_the_server_would_not_find_in_a_folder_is_named_and_not_checked(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = zoo.models / "tiny" / "1" / "model.onnx"
    for place in ("tiny/1", "tiny/new"):
        (tmp_path / place).mkdir(parents=True)
        shutil.copy(tiny, tmp_path / place)
    assert check.main([str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert (
        said.err == f"{tmp_path}/tiny/new/model.onnx is passed over: the version 'new' is no whole number from 1 on\n"
    )
    assert "tiny/new" not in said.out


@pytest.mark.parametrize(("producer", "mentioned"), [("pytorch", True), ("", False)])
def test_where_torch_may_have_written_a_plain_rnn_out_the_way_to_keep_it_is_said(
    tmp_path: Path, producer: str, mentioned: bool
) -> None:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 5, 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Tanh", ["x"], ["y"])], "g", infos[:1], infos[1:])
    model = helper.make_model(graph, producer_name=producer, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    said = one_line(text(examine(saved(model, tmp_path))))
    assert ("export it with torch.onnx.export(..., dynamo=False)" in said) == mentioned


@pytest.mark.parametrize("arguments", [[], ["."]], ids=["no file", "a folder without models"])
def test_the_exit_status_is_2_where_there_is_nothing_to_check(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        check.main(arguments)
    assert left.value.code == 2


def test_where_the_encoding_has_no_lines_the_ladder_is_drawn_in_ascii(zoo: Zoo) -> None:
    done = run("check", str(zoo.models / "tiny" / "1" / "model.onnx"), PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert "| LSTM  1 -> 1                       +--+ hidden [1], cell [1]" in done.stdout


def test_the_servers_help_mentions_the_check() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage:")
    assert "`python -m server check FILE` says" in one_line(done.stdout)


def test_an_empty_graph_has_an_empty_ladder() -> None:
    model = helper.make_model(helper.make_graph([], "g", [], []))
    assert ladder.read(model) == ()
    assert drawing.draw((), {}, {}) == []
