"""The figures of the report by their subject, with their spread over the seeds; and all of them as CSV.

Legend: S seeds, N points of a curve.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.memory.equations import of_torch
from training.memory.gradients import Reach, reach
from training.memory.starts import BY_NAME, STARTS
from training.network import Network
from training.recipes.named import adding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from training.memory.experiments import Outcome

# The networks whose gradients are measured before any training: those of the table that the report is held to.
HIDDEN, LENGTH, SEQUENCES = 64, 100, 1


@dataclass(frozen=True)
class Spread:
    """The middle of several seeds' curves, and the lowest and highest at each point."""

    middle: list[float]
    low: list[float]
    high: list[float]


def spread(curves_SN: Sequence[Sequence[float]]) -> Spread:
    """Median, minimum and maximum over the seeds."""
    values = np.array(curves_SN)
    return Spread(np.median(values, axis=0).tolist(), values.min(axis=0).tolist(), values.max(axis=0).tolist())


@dataclass(frozen=True)
class Beginning:
    """How far a network sees back before it has learned anything."""

    start: str
    seed: int
    reach: Reach


def beginnings(seeds: int) -> list[Beginning]:
    """Every start with every seed, on sequences of the adding task."""
    found = []
    for start in STARTS:
        for seed in range(seeds):
            config = replace(adding(), length=LENGTH, hidden=HIDDEN, seed=seed, **start.changes(LENGTH))
            task = config.task()
            torch.manual_seed(seed)
            (layer,) = of_torch(Network(config, task).cell)
            found.append(Beginning(start.name, seed, reach(layer, list(task.test.x_BTF[:SEQUENCES].numpy()))))
    return found


def of(outcomes: Iterable[Outcome], kind: str, length: int | None = None, start: str | None = None) -> list[Outcome]:
    """The outcomes of one task, of one length, of one start."""
    return [
        outcome
        for outcome in outcomes
        if outcome.experiment.kind == kind
        and length in (None, outcome.experiment.length)
        and start in (None, outcome.experiment.start)
    ]


def lengths(outcomes: Iterable[Outcome], kind: str) -> list[int]:
    return sorted({outcome.experiment.length for outcome in of(outcomes, kind)})


def starts(outcomes: Iterable[Outcome], kind: str) -> list[str]:
    """The networks that tried a task, in the page's order."""
    tried = {outcome.experiment.start for outcome in of(outcomes, kind)}
    return [name for name in BY_NAME if name in tried]


def write(folder: Path, begun: Sequence[Beginning], outcomes: Sequence[Outcome]) -> list[str]:
    """Every number that the page draws, as CSV files in a folder; their names."""
    tables = {
        "beginnings.csv": (["network", "seed", "lag", "by_input", "by_carrier"], begun_rows(begun)),
        "gradients.csv": (
            ["task", "length", "network", "seed", "when", "lag", "by_input", "by_carrier"],
            gradient_rows(outcomes),
        ),
        "solved.csv": (
            ["task", "length", "network", "seed", "units", "solved_at", "steps", "figure", "value"],
            solved_rows(outcomes),
        ),
        "course.csv": (["task", "length", "network", "seed", "step", "figure", "value"], course_rows(outcomes)),
        "half_lives.csv": (["task", "length", "network", "seed", "unit", "before", "after"], half_life_rows(outcomes)),
        "saturation.csv": (
            ["task", "length", "network", "seed", "gate", "unit", "open", "closed"],
            saturation_rows(outcomes),
        ),
        "flow.csv": (["task", "length", "network", "seed", "step", "kept", "written"], flow_rows(outcomes)),
        "lesson.csv": (["seed", "step", "input", "forget", "output", "memory", "answer"], lesson_rows(outcomes)),
    }
    for name, (head, rows) in tables.items():
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([head, *rows])
    return list(tables)


Row = list[object]


def named(outcome: Outcome) -> Row:
    """The first columns of a row: which experiment it is of."""
    one = outcome.experiment
    return [one.kind, one.length, one.start, one.seed]


def begun_rows(begun: Sequence[Beginning]) -> Iterable[Row]:
    """A row for each lag before any training."""
    for one in begun:
        for lag, sizes in enumerate(zip(one.reach.by_input, one.reach.by_carrier, strict=True)):
            yield [one.start, one.seed, lag, *sizes]


def gradient_rows(outcomes: Sequence[Outcome]) -> Iterable[Row]:
    for outcome in outcomes:
        for when, probe in (("before", outcome.before), ("after", outcome.after)):
            for lag, sizes in enumerate(zip(probe.by_input, probe.by_carrier, strict=True)):
                yield [*named(outcome), when, lag, *sizes]


def solved_rows(outcomes: Sequence[Outcome]) -> Iterable[Row]:
    for outcome in outcomes:
        last = outcome.course[-1][1] if outcome.course else ""
        yield [*named(outcome), outcome.experiment.hidden, outcome.solved_at, outcome.steps, outcome.figure, last]


def course_rows(outcomes: Sequence[Outcome]) -> Iterable[Row]:
    """A row for each figure that was taken on the way."""
    return ([*named(outcome), step, outcome.figure, value] for outcome in outcomes for step, value in outcome.course)


def half_life_rows(outcomes: Sequence[Outcome]) -> Iterable[Row]:
    for outcome in outcomes:
        pairs = zip(outcome.before.half_lives, outcome.after.half_lives, strict=True)
        yield from ([*named(outcome), unit, *pair] for unit, pair in enumerate(pairs))


def saturation_rows(outcomes: Sequence[Outcome]) -> Iterable[Row]:
    for outcome in outcomes:
        for gate, dots in outcome.after.saturated.items():
            yield from ([*named(outcome), gate, unit, *dot] for unit, dot in enumerate(dots))


def flow_rows(outcomes: Sequence[Outcome]) -> Iterable[Row]:
    for outcome in outcomes:
        pairs = zip(outcome.after.kept, outcome.after.written, strict=True)
        yield from ([*named(outcome), step, *pair] for step, pair in enumerate(pairs))


def lesson_rows(outcomes: Sequence[Outcome]) -> Iterable[Row]:
    for outcome in of(outcomes, "lesson"):
        columns = [outcome.lesson[name] for name in ("input", "forget", "output", "memory", "answer")]
        yield from ([outcome.experiment.seed, step, *values] for step, values in enumerate(zip(*columns, strict=True)))
