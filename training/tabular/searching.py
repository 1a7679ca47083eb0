"""A search for settings within a time: Optuna proposes, and stops early what falls behind. Its journal is in the runs.

Several processes, or machines that share the folder, work on one journal.
"""

from __future__ import annotations

import fcntl
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from rich.table import Table as Page

from training.errors import ConfigError, Diverged
from training.fitting.interrupt import Interrupt
from training.fitting.trainer import Trainer
from training.tabular.task import TableTask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rich.console import Console

    from training.fitting.trainer import Evaluation
    from training.tabular.looking.look import Look
    from training.tabular.settings import Table

# No trial is stopped before so many validations: a pruner without a floor drops what only begins slowly.
FLOOR = 4
SHOWN = 10
ENDED = {
    optuna.trial.TrialState.PRUNED: " (stopped)",
    optuna.trial.TrialState.FAIL: " (failed)",
    optuna.trial.TrialState.RUNNING: " (unfinished)",  # of another process, or of one that was killed
}


class Lock:
    """A journal's lock, which the kernel frees when its holder is killed.

    Optuna's own is a link to the journal's path: where that is relative, a link that is left behind is waited for
    without end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Wait until no other process has it."""
        self._held = self._path.open("wb")
        fcntl.flock(self._held, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        assert self._held is not None
        self._held.close()


class Pruner:
    """A watcher that tells Optuna of each validation, and ends a trial that has fallen behind."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        self._count = 0

    def stepped(self, step: int, loss: float) -> None:
        """Nothing: only validations count."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """Raise TrialPruned if others were better by now."""
        self._count += 1
        self._trial.report(evaluation.validation_loss, self._count)
        if self._trial.should_prune():
            raise optuna.TrialPruned


def search(config: Table, look: Look, minutes: float, console: Console) -> Table:
    """The config with the settings that had the lowest validation loss; goes on with the journal that is there.

    In no minutes at all it is the best of the journal.

    Raises:
        ConfigError: no minutes are given, and nothing was tried to its end before.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(config.threads)
    study = open_study(config, look)
    with Interrupt() as interrupt:  # the best of what was tried is fitted then
        asked = interrupt.asked
        study.optimize(lambda trial: attempt(trial, config, look, asked), timeout=minutes * 60, catch=(Diverged,))
    console.print(page(study))
    done = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    if not done and not minutes:
        raise ConfigError("--search 0: nothing was tried to its end before, of this table and settings; give minutes")
    return replace(config, **study.best_params) if done else config


def open_study(config: Table, look: Look) -> optuna.Study:
    """The study of this config on this table; its journal's name says which."""
    folder = config.runs / config.name
    folder.mkdir(parents=True, exist_ok=True)
    name = config.fingerprint(look.rows.sha256)
    most = max(config.steps // config.evaluate_every, FLOOR + 1)
    journal = folder / f"search-{name}.journal"
    lock: Any = Lock(folder / f"{journal.name}.lock")  # the class that it is to have is not among Optuna's public ones
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal), lock)),
        study_name=name,
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(),  # without a seed, by which all processes on a journal would try the same
        pruner=optuna.pruners.HyperbandPruner(min_resource=FLOOR, max_resource=most),
    )


def attempt(trial: optuna.Trial, config: Table, look: Look, asked: Callable[[], bool]) -> float:
    """The lowest validation loss of one proposal; a trial that was interrupted does not count."""
    proposed = replace(config, **propose(trial))
    trainer = Trainer(proposed, TableTask(proposed, look), [Pruner(trial)])
    trainer.fit(until=proposed.steps, stop=asked)
    if not trainer.finished:
        trial.study.stop()
        raise optuna.TrialPruned
    return trainer.best_loss


def propose(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "cell": trial.suggest_categorical("cell", ["rnn", "lstm", "gru"]),
        "hidden": trial.suggest_int("hidden", 8, 128, log=True),
        "layers": trial.suggest_int("layers", 1, 2),
        "learning_rate": trial.suggest_float("learning_rate", 1e-3, 3e-2, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.4, step=0.1),
    }


def page(study: optuna.Study) -> Page:
    """What was tried, the best first."""
    names = ("cell", "hidden", "layers", "learning_rate", "dropout")
    found = Page("trial", *names, "validations", "validation loss")
    told = [trial for trial in study.trials if trial.intermediate_values]
    for trial in sorted(told, key=lambda trial: min(trial.intermediate_values.values()))[:SHOWN]:
        settings = [
            f"{value:.3g}" if isinstance(value, float) else str(value) for value in map(trial.params.get, names)
        ]
        stopped = ENDED.get(trial.state, "")
        loss = min(trial.intermediate_values.values())
        found.add_row(str(trial.number), *settings, f"{len(trial.intermediate_values)}{stopped}", f"{loss:.4g}")
    found.caption = f"{len(study.trials)} trials"
    return found
