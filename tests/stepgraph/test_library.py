"""`stepgraph` as a library: one step at a time without a server, the state a value, the gates by name."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest

import stepgraph
from tests.running_server import ROOT
from tidegate.answers import Answer
from tidegate.errors import NotTraced

if TYPE_CHECKING:
    from pathlib import Path

FILE = ROOT / "models" / "recall" / "1" / "model.onnx"
ROWS = np.array([(-0.3, 0, 0), (0.8, 1, 0), (-0.5, 0, 0), (-0.9, 0, 1)], np.float32)


@pytest.fixture(scope="module")
def model() -> stepgraph.Model:
    return stepgraph.load(FILE)


def test_each_step_gives_what_the_file_gives_and_the_state_to_go_on_from(model: stepgraph.Model) -> None:
    (whole,) = onnxruntime.InferenceSession(FILE).run(None, {"x": ROWS[np.newaxis]})
    state, answers = None, list[Answer]()
    for row in ROWS:
        answer, state = model.step(row, state)
        answers.append(answer)
    assert [answer.step for answer in answers] == [0, 1, 2, 3]
    np.testing.assert_allclose([answer.output for answer in answers], whole[0], atol=1e-6)
    assert answers[1].layer[0].input[0] > 0.9 > 0.1 > answers[2].layer[0].input[0]
    assert answers[0].layer[0].parts == ("hidden", "cell", "input", "forget", "candidate", "output")
    with pytest.raises(NotTraced, match="layer 0 shows no 'reset'"):
        _ = answers[0].layer[0].reset


def test_a_state_is_a_value_from_which_two_sequences_go_on_alike(model: stepgraph.Model) -> None:
    _, state = model.step(ROWS[1])
    before = state.row.copy()
    twice = [model.step({"x": ROWS[3]}, state) for _ in range(2)]
    assert twice[0][0].output.tobytes() == twice[1][0].output.tobytes()
    assert twice[0][1].row.tobytes() == twice[1][1].row.tobytes()
    assert (state.steps, state.row.tobytes()) == (1, before.tobytes())


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([1, 2], r"shape \[2\]; expected \[3\]"),
        ([1, 2, np.nan], "holds nan in row 0, column 'read'"),
        (["a", "b", "c"], "takes float32"),
        ({"z": [1, 2, 3]}, "inputs are z; this model takes x"),
    ],
)
def test_a_row_that_the_model_does_not_take_is_refused_in_a_sentence(
    model: stepgraph.Model, row: object, reason: str
) -> None:
    with pytest.raises(stepgraph.BadInput, match=reason):
        model.step(row)  # type: ignore[arg-type]


def test_the_page_of_a_file_is_what_the_command_prints(tmp_path: Path) -> None:
    checked = stepgraph.check(FILE)
    assert checked.report.served
    assert "LSTM 3 -> 1" in str(checked)
    graph = onnx.helper.make_graph([], "none", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    refused = stepgraph.check(tmp_path / "model.onnx")
    assert not refused.report.served
    assert "REFUSED" in str(refused).splitlines()[0]
    with pytest.raises(FileNotFoundError):
        stepgraph.check(tmp_path / "no.onnx")


def test_importing_the_library_loads_nothing_until_it_is_asked() -> None:
    code = "import stepgraph, sys; assert not {'numpy', 'onnx', 'onnxruntime'} & {*sys.modules}; stepgraph.load"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        _ = stepgraph.lode  # type: ignore[attr-defined]


def test_the_example_runs_as_it_stands() -> None:
    command = [sys.executable, "-W", "error", ROOT / "examples" / "notebook.py"]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    *page, fourth, first, second = done.stdout.splitlines()
    assert "WILL BE SERVED" in page[0]
    assert fourth.startswith("4: 0.83")
    assert (first, second) == ("0.1 was written: 0.10 is read", "-0.7 was written: -0.75 is read")
