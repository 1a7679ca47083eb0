"""What was held back must not be known: each of these fails when its guard is taken out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.fitting.trainer import Trainer
from training.tabular.judging.verdict import compare
from training.tabular.learning import splits
from training.tabular.looking.look import read_and_look
from training.tabular.task import TableTask

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.tabular.settings import Table


def test_the_scaler_never_sees_validation_or_test(
    brief_table: Callable[..., Table], gappy: str, tmp_path: Path
) -> None:
    config = brief_table()
    task = config.task()
    last = task.look.grid.time_N[task.learnt_N].max()  # type: ignore[index] # this table has times
    changed = tmp_path / "changed.csv"
    text, random = [], np.random.default_rng(0)
    for line in Path(gappy).read_text().splitlines():
        cells = line.split(",")
        if cells[0] != "when" and np.datetime64(cells[0].replace(" ", "T")) > last:
            wild = (random.normal(size=2) * 1e6).tolist()
            cells[1:3] = [f"{value:.0f}" if cell else "" for cell, value in zip(cells[1:3], wild, strict=True)]
            cells[3] = "other"
        text.append(",".join(cells))
    changed.write_text("\n".join(text) + "\n")
    other = brief_table(files=(str(changed),)).task()
    assert other.encoding == task.encoding
    assert other.inputs.columns == task.inputs.columns  # nor is a category learnt from there
    assert other.period == task.period
    for name, buffer in task._tail.state_dict().items():
        assert buffer.equal(other._tail.state_dict()[name]), name


def test_no_target_crosses_a_border_and_the_gap_is_as_long_as_the_longest_horizon(
    brief_table: Callable[..., Table],
) -> None:
    task = brief_table(horizons=(1, 12)).task()
    grid, part_N = task.look.grid, task.parts.part_N
    for index, wanted in enumerate(task.aim.wanted):
        ahead_N = grid.ahead(wanted.steps)
        for row in np.flatnonzero(~np.isnan(task.aim.y_NG[:, index])):
            assert part_N[row] == part_N[ahead_N[row]] != splits.NONE
    ticks = {part: grid.tick_N[part_N == part] for part in (splits.TRAINING, splits.VALIDATION, splits.TEST)}
    assert ticks[splits.VALIDATION].min() - ticks[splits.TRAINING].max() > 12
    assert ticks[splits.TEST].min() - ticks[splits.VALIDATION].max() > 12


def test_a_window_has_no_row_outside_of_the_training_part(brief_table: Callable[..., Table]) -> None:
    task = brief_table().task()
    for number in range(3):
        rows = task.lanes.epoch(number).rows_SBW
        assert (task.parts.part_N[rows[rows >= 0].numpy()] == splits.TRAINING).all()


def test_answers_do_not_change_with_what_comes_later(brief_table: Callable[..., Table]) -> None:
    task = brief_table().task()
    network = task.network().eval()
    x_NF = task.x_NF[:300].clone()
    before = network(x_NF[None])[0, :200]
    x_NF[200:] = float("nan")
    assert network(x_NF[None])[0, :200].equal(before)


def test_targets_in_a_random_order_are_not_forecast_better_than_by_their_median_and_the_verdict_says_so(
    brief_table: Callable[..., Table], tmp_path: Path
) -> None:
    random = np.random.default_rng(3)
    rows = 1500
    hours = np.datetime64("2024-01-01T00:00") + np.arange(rows) * np.timedelta64(1, "h")
    load = random.permutation(np.sin(np.arange(rows) / 24 * 2 * np.pi) + 3)
    path = tmp_path / "shuffled.csv"
    path.write_text("when,load\n" + "".join(f"{hour},{value:.4f}\n" for hour, value in zip(hours, load, strict=True)))
    config = brief_table(files=(str(path),), series=None, horizons=(1,), steps=60)
    task = TableTask(config, read_and_look(config.files, config.asked, config.horizons))
    trainer = Trainer(config, task)
    trainer.fit(until=config.steps)
    trainer.restore_best()
    there = ~np.isnan(task.aim.y_NG[:, 0]) & (task.parts.part_N == splits.TEST)
    came = task.aim.y_NG[there, 0]
    error = np.abs(task.served(trainer.network, splits.TEST)[there, 0] - came).mean()
    median = np.abs(np.median(came) - came).mean()
    assert error > 0.97 * median
    (compared,) = compare(task, task.served(trainer.network, splits.TEST))
    assert compared.naive == "median"
    assert compared.error("median") < 0.9 * compared.error("persistence")
    assert compared.ratio > 0.97
