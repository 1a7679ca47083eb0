"""Experiments go on where they were stopped, one after the other or several at a time."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rich.console import Console

from training.errors import Interrupted
from training.examples.task import ExamplesTask
from training.memory import work
from training.memory.experiments import carry_out
from training.memory.plan import Experiment, Plan, full, quick

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BRIEF = Experiment("adding", "LSTM", 10, 4, seed=0, limit=12, every=3)


def never() -> bool:
    return False


def after_some_steps() -> Callable[[], bool]:
    answers = iter([False] * 7)
    return lambda: next(answers, True)


def plan_of(*experiments: Experiment) -> Plan:
    return Plan("brief", 1, experiments)


def test_an_experiment_that_was_stopped_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    while (cut := carry_out(BRIEF, tmp_path / "cut", after_some_steps())) is None:
        assert (tmp_path / "cut" / f"{BRIEF.name}.pt").exists()
    whole = carry_out(BRIEF, tmp_path, never)
    assert whole is not None
    assert cut == whole
    assert [step for step, _ in whole.course] == [3, 6, 9, 12]
    assert list((tmp_path / "cut").glob("*.pt")) == []


def test_a_finished_experiment_is_read_and_not_trained_again(tmp_path: Path) -> None:
    first = carry_out(BRIEF, tmp_path, never)
    assert carry_out(BRIEF, tmp_path, lambda: pytest.fail("it trains again")) == first


def test_a_stopped_plan_says_how_much_is_left_and_the_same_call_finishes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(BRIEF, replace(BRIEF, seed=1), replace(BRIEF, seed=2))
    console = Console(file=io.StringIO(), width=200)
    answers = iter([False] * 8)
    with monkeypatch.context() as patched:
        patched.setattr(work.Interrupt, "asked", lambda _: next(answers, True))
        with pytest.raises(Interrupted, match="3 of 3 experiments to go"):
            work.carry_out_all(plan, tmp_path, 1, console)
    outcomes = work.carry_out_all(plan, tmp_path, 1, console)
    assert [outcome.experiment.seed for outcome in outcomes] == [0, 1, 2]
    work.carry_out_all(plan, tmp_path, 1, console)
    assert "3 of 3 experiments are finished" in console.file.getvalue()


def test_several_at_a_time_come_to_the_same_numbers_as_one_after_the_other(tmp_path: Path) -> None:
    plan = plan_of(BRIEF, replace(BRIEF, start="RNN"))
    console = Console(file=io.StringIO(), width=200)
    together = work.carry_out_all(plan, tmp_path / "together", 2, console)
    alone = work.carry_out_all(plan, tmp_path / "alone", 1, console)
    assert together == alone
    assert "2/2  adding of 10, RNN, seed 0: not solved in 12 steps" in console.file.getvalue()


def test_what_needs_the_longest_memory_has_three_seeds_and_names_of_its_own() -> None:
    for plan in (quick(), full()):
        names = [experiment.name for experiment in plan.experiments]
        assert len(set(names)) == len(names)
        assert {experiment.seed for experiment in plan.experiments} == {0, 1, 2}
        assert {experiment.kind for experiment in plan.experiments} == {
            "lesson",
            "adding",
            "temporal-order",
            "latch",
            "text",
        }
        for experiment in plan.experiments:
            experiment.config()  # is one that can be trained


def test_the_text_and_the_lesson_are_measured_like_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lesson = carry_out(Experiment("lesson", "LSTM, chrono", 20, 1, seed=0, limit=2, every=1), tmp_path, never)
    monkeypatch.setattr(ExamplesTask, "figures", lambda *_: {"bits_per_character": 1.0, "mean_squared_error": 1.0})
    text = carry_out(Experiment("text", "LSTM", 12, 3, seed=0, limit=2, every=1), tmp_path, never)
    assert lesson is not None
    assert text is not None
    assert len(lesson.lesson["answer"]) == len(lesson.after.kept) == 7
    assert (text.figure, text.solved_at, text.steps) == ("bits_per_character", None, 2)  # all go to the same step
    assert np.array(text.after.saturated["forget"]).shape == (3, 2)
