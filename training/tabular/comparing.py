"""Several fits of one table side by side: cells, seeds, or what a search tried."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table as Page

from training.fitting import processes
from training.fitting.run import Run, open_run
from training.fitting.session import Result, finish, fit_run, stopped
from training.tabular.inheriting import keep
from training.tabular.judging import card
from training.tabular.task import TableTask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from training.config import Cell
    from training.errors import Interrupted
    from training.fitting.trainer import Trainer
    from training.tabular.looking.look import Look
    from training.tabular.settings import Table
    from training.task import Report


@dataclass(frozen=True)
class Fitted:
    """A fit with its best weights, and what they achieve on the test. A score below 1 beats what needs no network."""

    config: Table
    task: TableTask
    run: Run
    trainer: Trainer
    report: Report

    @property
    def score(self) -> float:
        """The error as a share of the best naive one's."""
        score = self.report.values["score"]
        assert isinstance(score, float)
        return score


def fit_each(
    configs: Sequence[Table], look: Look, *, fresh: bool, console: Console
) -> tuple[list[Fitted], Interrupted | None]:
    """Fit one after the other; each is a run of its own, which goes on where it was left.

    Also what is said of the last one if it was interrupted; the others are not begun then. Of several processes only
    the first gets the fits.
    """
    found: list[Fitted] = []
    for config in configs:
        task = TableTask(config, look)
        for note in () if found else task.notes:
            console.print(note)
        run = open_run(config, task.data["sha256"])
        with run.held():
            trainer = fit_run(config, task, run, fresh=fresh, console=console)
        if trainer.has_best and processes.first():
            found.append(Fitted(config, task, run, trainer, task.report(trainer.network)))
        if not trainer.finished:
            return found, stopped(config, run, trainer)
    return found, None


def varied(config: Table, cells: Sequence[Cell], seeds: int) -> list[Table]:
    """The config with each cell and each seed; with several cells the models are called after them."""
    found = []
    for cell in cells:
        name = f"{config.name}-{cell}" if len(cells) > 1 else config.name
        found += [replace(config, cell=cell, name=name, seed=config.seed + index) for index in range(seeds)]
    return found


def best_of_each(fits: Sequence[Fitted]) -> list[Fitted]:
    """Of each model the fit with the lowest validation loss: the test has no say."""
    names = dict.fromkeys(fit.config.name for fit in fits)
    return [
        min((fit for fit in fits if fit.config.name == name), key=lambda fit: fit.trainer.best_loss) for name in names
    ]


def page(fits: Sequence[Fitted]) -> Page:
    found = Page("cell", "seed", "weights", "steps", "validation loss", "error beside the best naive one")
    for fit in fits:
        weights = sum(parameter.numel() for parameter in fit.trainer.network.parameters())
        best, test = f"{fit.trainer.best_loss:.4g}", f"{fit.score:.1%}"
        found.add_row(fit.config.cell, str(fit.config.seed), f"{weights:,}", str(fit.trainer.step), best, test)
    return found


def spread(fits: Sequence[Fitted]) -> str:
    """What cells and seeds make of it, in a sentence each."""
    sentences = []
    for name in dict.fromkeys(fit.config.name for fit in fits):
        scores = np.array([fit.score for fit in fits if fit.config.name == name])
        about = f"{name}: over {len(scores)} seeds " if len(scores) > 1 else f"{name}: "
        between = f" (from {scores.min():.1%} to {scores.max():.1%})" if len(scores) > 1 else ""
        sentences.append(f"{about}the error is {scores.mean():.1%} of the best naive one's{between}.")
    return " ".join(sentences)


def land(fit: Fitted, console: Console, command: str, beside: str = "", again: str = "") -> Result:
    """Export a fit, with its card, and what a later run needs to go on from it."""
    with fit.run.held():
        result = finish(fit.config, fit.task, fit.run, fit.trainer, console)
        path = card.write(fit.task, result, command, beside, again)
        keep(fit.run.folder, fit.task.inputs, fit.task.encoding)
        if fit.trainer.finished:
            fit.run.keep()
    console.print(f"the card is {path}")
    return result
