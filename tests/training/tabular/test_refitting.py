"""Fitted again on the way through the test: what is learnt from, and which fit forecasts which rows."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from training.command import main
from training.errors import ConfigError
from training.tabular.judging import card
from training.tabular.learning import splits
from training.tabular.refitting import later

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from training.tabular.settings import Table


def test_each_further_fit_learns_from_more_rows_and_none_of_its_own_test(brief_table: Callable[..., Table]) -> None:
    config = brief_table(refit=3)
    configs = later(config)
    assert len(configs) == 3
    assert all(one.refit == 0 for one in configs)
    tasks = [one.task() for one in (config, *configs)]
    for before, after in pairwise(tasks):
        learnt, more = (np.flatnonzero(task.learnt_N) for task in (before, after))
        assert set(learnt) < set(more)
        tick_N, part_N = after.look.grid.tick_N, after.parts.part_N
        assert tick_N[part_N == splits.TEST].min() >= tick_N[part_N == splits.VALIDATION].max() + after.parts.gap
        assert tick_N[part_N == splits.VALIDATION].min() >= tick_N[part_N == splits.TRAINING].max() + after.parts.gap


def test_the_card_says_what_fitting_again_gains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "served", lambda _: "")  # a process of its own, which other tests start
    random = np.random.default_rng(0)
    drift = np.where(np.arange(900) < 700, 0.8, -0.8)  # what is learnt first is wrong in the last stretch
    values = [0.0]
    for row in range(1, 900):
        values.append(drift[row] * values[-1] + random.normal())
    table = tmp_path / "drift.csv"
    table.write_text("y\n" + "\n".join(f"{value:.4f}" for value in values) + "\n")
    places = ["--runs", str(tmp_path / "runs"), "--models", str(tmp_path / "models")]
    small = ["--hidden", "2", "--lags", "2", "--steps", "20", "--batch", "4", "--evaluate-every", "10", "--refit", "2"]
    split = ["--training-share", "0.6", "--validation-share", "0.1"]
    assert main(["table", str(table), "--target", "y", *small, *split, *places]) == 0
    (path,) = (tmp_path / "runs" / "drift").glob("*/card.md")
    text = path.read_text()
    found = re.search(r"fitted once \| fitted 3 times .*\n.*\n\| y, 1 ahead \| ([\d.]+) \| ([\d.]+) \|", text)
    assert found, text
    once, again = map(float, found.groups())
    assert again < once


def test_what_has_no_last_stretch_of_time_is_refused(brief_table: Callable[..., Table]) -> None:
    with pytest.raises(ConfigError):
        brief_table(refit=2, target=("kind",)).task()
