"""Carries out one experiment: measures the network, trains it until it solves its task, measures it again.

What is finished is a JSON file; what is not, a checkpoint that the same call goes on from.

Legend: T time, F inputs, H units.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from training.examples.task import ExamplesTask
from training.fitting import atomic_files, checkpoint
from training.fitting.trainer import Trainer
from training.memory.equations import of_torch, run
from training.memory.gradients import reach
from training.memory.measures import KEEPING, flow, half_lives, saturation
from training.memory.plan import Experiment
from training.network import Network
from training.recipes import figure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

# Sequences that the measures are a mean of, characters of a text that they look at, and examples that decide "solved".
SEQUENCES, CHARACTERS, JUDGED = 4, 120, 400


@dataclass(frozen=True)
class Probe:
    """What is measured of a network: gradients by lag, and of each gate and unit what the page draws."""

    by_input: list[float]
    by_carrier: list[float]
    half_lives: list[float]
    saturated: dict[str, list[tuple[float, float]]]
    kept: list[float]
    written: list[float]


Course = list[tuple[int, float]]


@dataclass(frozen=True)
class Outcome:
    """What became of an experiment. `course` is (step, figure) on the way; `lesson` is a one-unit network's figure."""

    experiment: Experiment
    solved_at: int | None
    steps: int
    figure: str
    course: Course
    before: Probe
    after: Probe
    lesson: dict[str, Any]


def carry_out(experiment: Experiment, folder: Path, stop: Callable[[], bool]) -> Outcome | None:
    """The outcome, from its file if there is one; None if it was stopped, with a checkpoint to go on from."""
    file, kept = folder / f"{experiment.name}.json", folder / f"{experiment.name}.pt"
    if file.exists():
        return read(file.read_text())
    config = experiment.config()
    task = config.task()
    assert isinstance(task, ExamplesTask)
    trainer = Trainer(config, task)
    network = network_of(trainer)
    before, course = probe(network, task, experiment), []
    if kept.exists():
        state = checkpoint.load(kept)
        trainer.resume(state["trainer"])
        course = [(int(step), float(figure)) for step, figure in state["course"]]
    name, solved_at = train(experiment, task, trainer, course, stop)
    if solved_at is None and not trainer.finished:
        checkpoint.save({"trainer": trainer.state(), "course": course}, kept)
        return None
    after = probe(network, task, experiment)
    lesson = figure.draw(network).values if experiment.kind == "lesson" else {}
    outcome = Outcome(experiment, solved_at, trainer.step, name, course, before, after, lesson)
    atomic_files.write(file, json.dumps(asdict(outcome)))
    kept.unlink(missing_ok=True)
    return read(file.read_text())  # as it will be read again: JSON has lists for tuples


def network_of(trainer: Trainer) -> Network:
    assert isinstance(trainer.network, Network)
    return trainer.network


def train(
    experiment: Experiment,
    task: ExamplesTask,
    trainer: Trainer,
    course: Course,
    stop: Callable[[], bool],
) -> tuple[str, int | None]:
    """Fit from figure to figure, until the task is solved, the steps are used up, or it is to stop."""
    name, solved = judge(experiment.kind, task, network_of(trainer), course)
    while not solved and not trainer.finished and not stop():
        trainer.fit(until=(trainer.step // experiment.every + 1) * experiment.every, stop=stop)
        told = course[-1][0] if course else 0
        if trainer.step % experiment.every == 0 and trainer.step > told:
            name, solved = judge(experiment.kind, task, network_of(trainer), course, trainer.step)
    return name, trainer.step if solved else None


def judge(kind: str, task: ExamplesTask, network: Network, course: Course, step: int | None = None) -> tuple[str, bool]:
    """The name of the figure and whether the task is solved; with a step, the figure joins the course."""
    network.eval()
    with torch.no_grad():
        figures = task.figures(network, JUDGED)
    name = task.goal.figure
    if step is not None:
        course.append((step, figures[name]))
    return name, kind != "text" and task.goal.reached(figures)  # texts are compared after as many steps


def probe(network: Network, task: ExamplesTask, experiment: Experiment) -> Probe:
    """Measures the (one) layer on a few sequences of the task."""
    sequences = inputs(network, task, experiment)
    (layer,) = of_torch(network.cell)
    far = reach(layer, sequences)
    passages = [run(layer, x_TF) for x_TF in sequences]
    gates = {name: np.concatenate([one.gates[name] for one in passages]) for name in passages[0].gates}
    kept = gates.get(KEEPING.get(layer.kind, ""))
    flows = [moved for one in passages if (moved := flow(layer, one))]
    dots = {name: saturation(gate_TH) for name, gate_TH in gates.items() if name != "candidate"}
    return Probe(
        by_input=far.by_input.tolist(),
        by_carrier=far.by_carrier.tolist(),
        half_lives=[] if kept is None else half_lives(kept).tolist(),
        saturated={name: list(zip(dot.right.tolist(), dot.left.tolist(), strict=True)) for name, dot in dots.items()},
        kept=[] if not flows else np.mean([np.abs(one.kept).mean(axis=1) for one in flows], axis=0).tolist(),
        written=[] if not flows else np.mean([np.abs(one.written).mean(axis=1) for one in flows], axis=0).tolist(),
    )


def inputs(network: Network, task: ExamplesTask, experiment: Experiment) -> list[NDArray[np.float64]]:
    """What reaches the recurrence in a few sequences of the test, or in the lesson's own."""
    x_BTF = torch.tensor(figure.LESSON)[None] if experiment.kind == "lesson" else task.test.x_BTF[:SEQUENCES]
    x_BTF = x_BTF[:, :CHARACTERS] if experiment.kind == "text" else x_BTF
    with torch.no_grad():
        encoded = network.encoder(x_BTF) if network.encoder else x_BTF
    return [x_TF.double().numpy() for x_TF in encoded]


def read(text: str) -> Outcome:
    values = json.loads(text)
    for name, kind in (("experiment", Experiment), ("before", Probe), ("after", Probe)):
        values[name] = kind(**values[name])
    return Outcome(**values)
