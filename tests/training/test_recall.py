from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from training.network import build
from training.recipes.figure import draw
from training.recipes.recall import draw as drawn
from training.recipes.recall import targets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.recipes.recall import Recall

COMMITTED = Path(__file__).parents[2] / "models" / "recall" / "1" / "model.onnx"
# The lesson: write at t=1, read at t=4 and t=6; the values in between are there to disturb.
VALUES = np.array([0.5, 0.8, -0.6, 0.9, -1.0, 0.3, -0.2])
X = np.stack([VALUES, np.eye(7)[1], np.eye(7)[4] + np.eye(7)[6]], axis=1)


def test_the_target_is_the_last_written_value_where_read_is_set(brief: Recall) -> None:
    lessons = drawn(replace(brief, flag_noise=0.0), 3, 50)
    for x, y in zip(lessons.x_BTF.tolist(), lessons.y.tolist(), strict=True):
        memory = 0.0
        for (value, write, read), (answer,) in zip(x, y, strict=True):
            memory = value if write == 1 else memory
            assert answer == (memory if read == 1 else 0)


def test_a_step_that_writes_and_reads_gives_what_it_writes() -> None:
    flag = torch.tensor([[True, False]])
    assert targets(torch.tensor([[0.5, 0.7]]), flag, flag).tolist() == [[0.5, 0.0]]


def test_flags_are_noisy_but_never_ambiguous(brief: Recall) -> None:
    clean, noisy = drawn(replace(brief, flag_noise=0.0), 3, 200), drawn(brief, 3, 200)
    assert torch.equal(clean.y, noisy.y)
    assert torch.equal(clean.x_BTF[..., 0], noisy.x_BTF[..., 0])
    assert torch.equal(clean.x_BTF[..., 1:] > 0.5, noisy.x_BTF[..., 1:] > 0.5)
    assert (clean.x_BTF - noisy.x_BTF).abs().max() <= 0.3 + 1e-6
    assert 0.13 < clean.x_BTF[..., 1].mean() < 0.17


def test_each_step_has_sequences_of_its_own_and_always_the_same(brief: Recall) -> None:
    assert torch.equal(drawn(brief, 7, 4).x_BTF, drawn(brief, 7, 4).x_BTF)
    assert not torch.equal(drawn(brief, 7, 4).x_BTF, drawn(brief, 8, 4).x_BTF)
    assert not torch.equal(drawn(brief, 0, 512).x_BTF, brief.task().validation.x_BTF)
    assert not torch.equal(drawn(brief, 7, 4).x_BTF, drawn(replace(brief, seed=1), 7, 4).x_BTF)


def sigmoid(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-value))


def gates(path: Path) -> dict[str, NDArray[np.float64]]:
    """Each gate and the answer at each step of the lesson, from the ONNX weights, which are packed i, o, f, c."""
    weights = {weight.name: onnx.numpy_helper.to_array(weight) for weight in onnx.load(path).graph.initializer}
    w, r, b = (weights[f"lstm_0.{letter}"][0].astype(float) for letter in "WRB")
    h, c, seen = np.zeros(1), np.zeros(1), []
    for x in X:
        i, o, f, g = w @ x + r @ h + b[:4] + b[4:]
        i, o, f, g = sigmoid(i), sigmoid(o), sigmoid(f), np.tanh(g)
        c = f * c + i * g
        h = o * np.tanh(c)
        seen.append([i, f, o, (h @ weights["head.weight"] + weights["head.bias"])[0]])
    return dict(zip(("input", "forget", "output", "answer"), np.array(seen).T, strict=True))


def test_the_committed_model_opens_and_closes_its_gates_as_in_the_lesson() -> None:
    found = gates(COMMITTED)
    assert "".join("o" if gate > 0.9 else "-" if gate < 0.1 else "~" for gate in found["input"]) == "-o-----"
    assert np.all(found["forget"][2:] > 0.9)
    assert "".join("o" if gate > 0.9 else "-" if gate < 0.1 else "~" for gate in found["output"]) == "----o-o"


def test_the_committed_model_answers_with_what_was_written_and_is_silent_otherwise() -> None:
    session = onnxruntime.InferenceSession(COMMITTED.read_bytes(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": X[None].astype(np.float32)})
    np.testing.assert_allclose(found[0, :, 0], gates(COMMITTED)["answer"], atol=1e-5)
    np.testing.assert_allclose(found[0, :, 0], [0, 0, 0, 0, 0.8, 0, 0.8], atol=0.05)


def test_the_committed_model_keeps_a_value_for_hundreds_of_steps() -> None:
    session = onnxruntime.InferenceSession(COMMITTED.read_bytes(), providers=["CPUExecutionProvider"])
    x = np.zeros((1, 300, 3), dtype=np.float32)
    x[0, :, 0] = np.random.default_rng(0).uniform(-1, 1, 300)
    x[0, 0] = (0.8, 1, 0)
    x[0, 299, 2] = 1
    (found,) = session.run(None, {"x": x})
    assert found[0, 299, 0] == pytest.approx(0.8, abs=0.1)


def test_the_figure_shows_the_gates_that_the_equations_give(brief: Recall) -> None:
    network = build(brief, brief.task())
    values = draw(network).values
    cell = network.cell
    w, u, b, d = (parameter.detach().numpy().astype(float) for parameter in cell.parameters())
    rows = [(-0.3, 0, 0), (0.8, 1, 0), (-0.5, 0, 0), (0.4, 0, 0), (-0.9, 0, 1), (0.6, 0, 0), (0.1, 0, 1)]
    h, c, seen = np.zeros(1), np.zeros(1), []
    for x in np.array(rows):
        i, f, g, o = w @ x + u @ h + b + d  # torch packs i, f, g, o
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        seen.append((sigmoid(i), sigmoid(f), sigmoid(o)))
    for name, expected in zip(("input", "forget", "output"), np.array(seen).T, strict=True):
        np.testing.assert_allclose(values[name], expected, atol=1e-6)


def test_the_memory_of_an_rnn_fades_by_its_own_equation(brief: Recall) -> None:
    config = replace(brief, cell="rnn")
    network = build(config, config.task())
    memory = draw(network).values["memory"]
    w, u, b, d = (parameter.detach().numpy().astype(float) for parameter in network.cell.parameters())
    rows = np.array([(-0.3, 0, 0), (0.8, 1, 0), (-0.5, 0, 0), (0.4, 0, 0), (-0.9, 0, 1), (0.6, 0, 0), (0.1, 0, 1)])
    apart = []
    for sign in (1, -1):
        h, path = np.zeros(1), []
        for step, x in enumerate(rows):
            h = np.tanh(w @ (x * (sign if step == 1 else 1, 1, 1)) + u @ h + b + d)
            path.append(h)
        apart.append(np.array(path)[:, 0])
    distance = np.abs(apart[0] - apart[1])
    assert isinstance(memory, list)
    assert memory[0] is None
    np.testing.assert_allclose(memory[1:], distance[1:] / distance[1], atol=1e-5)
