"""One training run from its start to the exported model: joins the parts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from training.errors import Interrupted
from training.export import Artefact, export
from training.fitting import atomic_files, checkpoint, plot, processes
from training.fitting.interrupt import Interrupt
from training.fitting.metrics import Metrics, read
from training.fitting.progress import watch
from training.fitting.run import Run, open_run
from training.fitting.tensorboard import TensorBoard
from training.fitting.trainer import Trainer
from training.repository import Version, land

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.config import Config
    from training.fitting.trainer import Watcher
    from training.task import Report, Task


@dataclass(frozen=True)
class Result:
    """What a finished run leaves behind."""

    run: Run
    model: Version
    steps: int
    best_step: int
    validation_loss: float
    export_error: float
    report: Report


def train(config: Config, *, fresh: bool = False, console: Console | None = None) -> Result:
    """Fit, report, export. Goes on from an unfinished run of the same config, unless `fresh`.

    Of several processes the first finishes; all get the result.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; a checkpoint holds the step that was reached, and the best so far is exported.
        RunBusy: another process is training with this config.
        ExportRefused: the file would not compute what torch computes; nothing was exported.
    """
    console = console or Console(highlight=False, soft_wrap=True)
    task = config.task()
    for note in task.notes:
        console.print(note)
    run = open_run(config, task.data["sha256"])
    with run.held():
        trainer = fit_run(config, task, run, fresh=fresh, console=console)
        result = None
        if trainer.has_best and processes.first():
            result = finish(config, task, run, trainer, console)
        result = processes.told(result)
        if result is None or not trainer.finished:
            raise stopped(config, run, trainer)
        run.keep()
        return result


def fit_run(config: Config, task: Task, run: Run, *, fresh: bool, console: Console) -> Trainer:
    """Fit, or go on with what was left, until finished or interrupted, and put the best weights in place.

    The run must be held.
    """
    torch.set_num_threads(config.threads)
    state = processes.told(take_up(run, fresh=fresh, console=console) if processes.first() else None)
    run.begin(config, task.data)
    trainer = fit(config, task, run, state, console)
    trainer.restore_best()
    return trainer


def take_up(run: Run, *, fresh: bool, console: Console) -> dict[str, Any] | None:
    """The checkpoint to go on from, if there is one; says what happens and why."""
    if run.checkpoint.exists() and not run.result.exists() and not fresh:
        state = checkpoint.load(run.checkpoint)
        console.print(f"resuming {run.folder} at step {state['step']}")
        return state
    why = " (--fresh)" if fresh else " (it was finished before)" if run.result.exists() else ""
    run.clear()
    console.print(f"starting {run.folder}{why}")
    return None


def fit(config: Config, task: Task, run: Run, state: dict[str, Any] | None, console: Console) -> Trainer:
    """Train until finished or interrupted, with a checkpoint now and then."""
    start = state["step"] if state else 0
    with Interrupt() as interrupt, watch(console, config, start) as progress:
        watchers: list[Watcher] = []
        if processes.first():  # it alone writes
            watchers += [Metrics(run.metrics, start), progress]
            watchers += [TensorBoard(run.folder / "tensorboard", start)] if config.tensorboard else []
        trainer = Trainer(config, task, watchers)
        if state:
            trainer.resume(state)
        advance(trainer, config, run, interrupt.asked)
    return trainer


def stopped(config: Config, run: Run, trainer: Trainer) -> Interrupted:
    """What is said of a fit that was interrupted."""
    best = f"the best so far, of step {trainer.best_step}, is exported" if trainer.has_best else "nothing to export yet"
    return Interrupted(f"stopped at step {trainer.step} of {config.steps}; the checkpoint is {run.checkpoint}; {best}")


def advance(trainer: Trainer, config: Config, run: Run, asked: Callable[[], bool]) -> None:
    """Fit from checkpoint to checkpoint."""
    while True:
        target = trainer.step + config.checkpoint_every
        trainer.fit(until=target, stop=asked)
        state = trainer.state()
        if processes.first():
            checkpoint.save(state, run.checkpoint)
        if trainer.finished or trainer.step < target:
            return


def finish(config: Config, task: Task, run: Run, trainer: Trainer, console: Console) -> Result:
    """Plot, report, export the best weights, which may be those of a fit that was interrupted."""
    early = " (stopped early)" if trainer.stopped_early else "" if trainer.finished else " (interrupted)"
    console.print(
        f"{trainer.step} steps{early}; best validation loss {trainer.best_loss:.3g} at step {trainer.best_step}"
    )
    plot.draw(read(run.metrics), title(config), run.plot)
    report = task.report(trainer.network)
    console.print(report.picture)
    artefact = export(trainer.network, task, provenance(config, task, trainer))
    model = land(artefact.content, config.models, config.name)
    console.print(f"exported {model.path} (onnxruntime within {artefact.error:.0e} of torch); plot {run.plot}")
    result = Result(run, model, trainer.step, trainer.best_step, trainer.best_loss, artefact.error, report)
    if trainer.finished:
        record(result, artefact)
    return result


def title(config: Config) -> str:
    plural = "s" if config.layers > 1 else ""
    return f"{config.name}: {config.layers} {config.cell.upper()} layer{plural} of {config.hidden}"


def provenance(config: Config, task: Task, trainer: Trainer) -> dict[str, object]:
    """Where a model is from: enough to make it again, and nothing of the machine or the day."""
    return {
        "recipe": config.recipe,
        "config": config.as_json(),
        "data": task.data,
        "torch": torch.__version__,
        "steps": trainer.step,
        "best_step": trainer.best_step,
        "validation_loss": trainer.best_loss,
        "seed": config.seed,
    }


def record(result: Result, artefact: Artefact) -> None:
    """Write the report and, last, the file that marks the run as finished."""
    with result.run.report.open("w") as file:
        Console(file=file, width=100).print(result.report.picture)
    values = {
        "model": result.model.name,
        "version": result.model.number,
        "steps": result.steps,
        "best_step": result.best_step,
        "validation_loss": result.validation_loss,
        "export_error": artefact.error,
        "report": result.report.values,
    }
    atomic_files.write(result.run.result, json.dumps(values, indent=2) + "\n")
