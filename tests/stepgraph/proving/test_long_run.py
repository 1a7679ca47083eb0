"""How much the long comparison computes, and over how many steps it tells a difference from rounding."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from stepgraph.graphs import weights
from stepgraph.loading import load
from stepgraph.proving import long_run
from stepgraph.proving.difference import Difference
from stepgraph.proving.hints import STEPS, Hints
from tests.onnx_writer import Layer
from tests.recurrent_graphs import Graph, write

FILE = Path(__file__).parents[2] / "models" / "made" / "torch-dynamo" / "lstm.onnx"


@pytest.mark.parametrize(
    ("most", "reach", "wanted"),
    [(100, 0, (64, 1)), (100, 500, (564, 1)), (1000, 0, (200, 1)), (10**6, 0, (STEPS, 1)), (None, 0, (STEPS, 2))],
)
def test_very_wide_rows_are_compared_over_fewer_steps_but_as_many_as_a_constant_reaches(
    most: int | None, reach: int, wanted: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_run, "_WIDE", 1 if most else 10**6)
    monkeypatch.setattr(long_run, "_MOST", most)
    facts = load(FILE, 1, 0.0).facts
    (rows,) = long_run._data(facts, Hints(reach, ())).values()
    assert rows.shape[:2] == wanted


@pytest.mark.parametrize(
    ("mib", "reach", "wanted"), [(100, 0, (STEPS, 2)), (200, 0, (STEPS, 1)), (1024, 0, (150, 1)), (4096, 500, (564, 1))]
)
def test_a_file_with_heavy_weights_that_reading_proves_is_compared_over_one_sequence_of_hundreds_of_steps(
    mib: int, reach: int, wanted: tuple[int, int]
) -> None:
    (rows,) = long_run._data(load(FILE, 1, 0.0).facts, Hints(reach, ()), mib * 2**20).values()
    assert rows.shape[:2] == wanted


def test_weights_that_lie_beside_the_graph_count_as_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "LARGE", 100)
    monkeypatch.setattr(long_run, "_HEAVY", 100)
    monkeypatch.setattr(long_run, "_READ", 1)
    assert 64 < load(FILE, 1, 0.0).proof.steps < STEPS


def test_where_rounding_hides_the_end_of_a_sequence_from_random_states_one_from_zeros_is_compared_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate of this cell is closed for a hundred steps, and then lets out what rounding had left in the state."""
    first_apart, ends = long_run.first_apart, list[tuple[bool, int]]()

    def noted(*given: object) -> long_run.Outcome:
        outcome = first_apart(*given)  # type: ignore[arg-type]
        ends.append((bool(given[-1].begun), outcome.steps))  # type: ignore[attr-defined]
        return outcome

    monkeypatch.setattr(long_run, "first_apart", noted)
    cell = Layer("GRU", activations=("HardSigmoid", "Sigmoid"), scale=0.3)
    onnx.save(write(Graph((cell,), "kinds", head="none", before="dense", opset=7)).model, tmp_path / "model.onnx")
    assert load(tmp_path / "model.onnx", 1, 0.0).facts.carried
    assert [begun for begun, _ in ends] == [True, False]
    assert ends[0][1] < STEPS == ends[1][1]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (0, "y differs by 0.5 from the original file at the first step"),
        (3, "y agrees with the original file up to step 2 and differs by 0.5 at step 3"),
    ],
)
def test_a_difference_is_told_with_the_steps_that_agree_if_there_are_some(step: int, words: str) -> None:
    assert long_run.said(Difference("y", step, 0.5)) == words
