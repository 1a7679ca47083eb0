"""Networks that were trained on windows of so many steps, with [window] in model.toml: each window begins anew."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import stepgraph
from stepgraph.errors import ModelRefused
from stepgraph.file.sidecar import parse
from stepgraph.file.window import Window
from stepgraph.loading import load
from stepgraph.report import example, remarks
from stepgraph.rewriting import windows
from tests.onnx_writer import Layer
from tests.recurrent_graphs import Graph, write

N, INPUTS = 16, 3
ROWS = np.random.default_rng(3).standard_normal((200, INPUTS)).astype(np.float32)

Export = Callable[..., Path]


class Classifier(nn.Module):
    """Answers once for a whole window."""

    def __init__(self, cell: str = "LSTM") -> None:
        super().__init__()
        torch.manual_seed(4)
        self.cell = getattr(nn, cell)(INPUTS, 5, batch_first=True)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.cell(x)
        return torch.softmax(self.head(y[:, -1]), 1)


class Tagger(Classifier):
    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.cell(x)
        return self.head(y)


def of_file(path: Path) -> list[np.ndarray]:
    """What onnxruntime answers to each whole window, with the file as it is."""
    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    windows = [ROWS[start : start + N] for start in range(0, len(ROWS) - N + 1, N)]
    return [session.run(None, {name: window[np.newaxis]})[0][0] for window in windows]


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("fixed", [True, False])
def test_a_classifier_answers_the_last_step_of_each_window_as_the_file_answers_that_window(
    export: Export, cell: str, fixed: bool
) -> None:
    axes = {} if fixed else {"x": {0: "batch", 1: "time"}}
    toml = f'[window]\nsteps = {N}\nanswer = "last"\n'
    path = export(Classifier(cell), (torch.zeros(1, N, INPUTS),), "x", "y", axes, toml)
    model, state, answers = stepgraph.load(path), None, []
    for row in ROWS:
        answer, state = model.step(row, state)
        assert answer.answered == ((answer.step + 1) % N == 0)
        assert np.isnan(answer.output).all() != answer.answered
        answers += [answer.output] if answer.answered else []
    np.testing.assert_allclose(answers, of_file(path), atol=1e-6)


def test_every_step_is_answered_from_its_window_alone(export: Export) -> None:
    path = export(Tagger(), (torch.zeros(1, N, INPUTS),), "x", "y", {}, f"[window]\nsteps = {N}\n")
    model, state, answers = stepgraph.load(path), None, []
    for row in ROWS:
        answer, state = model.step(row, state)
        assert answer.answered
        answers.append(answer.output)
    wanted = np.concatenate(of_file(path))
    np.testing.assert_allclose(answers[: len(wanted)], wanted, atol=1e-6)


def test_a_file_of_one_step_that_shows_its_state_begins_anew_too(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(write(Graph((Layer("GRU"),), "layers", steps="one")).model, path)
    path.with_name("model.toml").write_text("[window]\nsteps = 3\n")
    model, state, answers = stepgraph.load(path), None, []
    for row in [*ROWS[:3], *ROWS[:3]]:
        answer, state = model.step(row[np.newaxis], state)
        answers.append(answer.output.tobytes())
    assert answers[:3] == answers[3:]
    assert answers[0] != answers[1]


def test_where_in_its_window_a_sequence_is_belongs_to_its_state(export: Export) -> None:
    axes = {"x": {0: "batch", 1: "time"}}
    toml = f'[window]\nsteps = {N}\nanswer = "last"\n'
    model = stepgraph.load(export(Classifier(), (torch.zeros(1, N, INPUTS),), "x", "y", axes, toml))
    state = None
    for row in ROWS[:7]:
        _, state = model.step(row, state)
    kept, answers = state, []
    for _ in range(2):  # on from there, and from there once more
        state = kept
        for row in ROWS[7:N]:
            answer, state = model.step(row, state)
        answers.append(answer.output.tobytes())
        assert answer.answered
    assert answers[0] == answers[1]


def test_a_file_that_is_made_for_so_many_steps_is_served_with_a_remark_that_names_the_table(export: Export) -> None:
    loaded = load(export(Classifier(), (torch.zeros(1, N, INPUTS),), "x", "y", {}), 1, 0.0)
    assert f'under [window]: steps = {N} and answer = "last"' in " ".join(remarks.remarks(loaded))
    shown = "\n".join(line.removeprefix("# ") for line in example.of_served(loaded, {}))
    assert parse(shown.encode()).window == Window(N, last=True)
    free = load(export(Classifier(), (torch.zeros(1, N, INPUTS),), "x", "y", {"x": {1: "time"}}), 1, 0.0)
    assert "[window]" not in " ".join(remarks.remarks(free))


@pytest.mark.parametrize("wrong", [Window(N - 1, last=True), Window(N + 1, last=True), Window(N - 1), Window(N + 1)])
def test_a_step_graph_that_ends_its_windows_elsewhere_is_not_proved(
    export: Export, monkeypatch: pytest.MonkeyPatch, wrong: Window
) -> None:
    answer = "last" if wrong.last else "every"
    toml = f'[window]\nsteps = {N}\nanswer = "{answer}"\n'
    path = export(Tagger(), (torch.zeros(1, N, INPUTS),), "x", "y", {"x": {0: "batch", 1: "time"}}, toml)
    monkeypatch.setattr(windows, "write", partial(elsewhere, windows.write, wrong))
    with pytest.raises(ModelRefused, match="window"):
        load(path, 1, 0.0)


def elsewhere(written: Callable[..., None], wrong: Window, *given: object, keep: tuple[str, ...]) -> None:
    *rest, _ = given
    written(*rest, wrong, keep)


@pytest.mark.parametrize(
    "table", ["", "steps = 0", "steps = true", 'steps = "9"', "steps = 1e9", 'steps = 4\nanswer = "first"', "n = 1"]
)
def test_a_window_that_says_something_else_is_refused(table: str) -> None:
    with pytest.raises(ModelRefused, match="of the window; expected steps"):
        parse(f"[window]\n{table}\n".encode())
