"""Carries out the experiments of a plan, several at a time, each in a process of its own; shows how far it is."""

from __future__ import annotations

import multiprocessing
import signal
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import TYPE_CHECKING

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from training.errors import Interrupted
from training.fitting.interrupt import Interrupt
from training.memory.experiments import carry_out, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.synchronize import Event
    from pathlib import Path

    from rich.console import Console

    from training.memory.experiments import Outcome
    from training.memory.plan import Experiment, Plan

LINES = 10
# Seconds after which a signal is answered at the latest.
ASK_EVERY = 0.3


def carry_out_all(plan: Plan, folder: Path, jobs: int, console: Console) -> list[Outcome]:
    """Every outcome, in the plan's order. Those whose files are in the folder are read.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; what was reached is in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting = [one for one in plan.experiments if not path(folder, one).exists()]
    done = len(plan.experiments) - len(waiting)
    if done:
        console.print(f"{done} of {len(plan.experiments)} experiments are finished in {folder}")
    with Interrupt() as interrupt:
        run = alone(waiting, folder, interrupt.asked) if jobs == 1 else together(waiting, folder, jobs, interrupt.asked)
        shown(run, done, len(plan.experiments), console)
    missing = [one for one in plan.experiments if not path(folder, one).exists()]
    if missing:
        raise Interrupted(f"stopped with {len(missing)} of {len(plan.experiments)} experiments to go")
    return [read(path(folder, one).read_text()) for one in plan.experiments]


def path(folder: Path, experiment: Experiment) -> Path:
    return folder / f"{experiment.name}.json"


def alone(waiting: list[Experiment], folder: Path, asked: Callable[[], bool]) -> Iterator[Outcome | None]:
    """One experiment after the other, in this process."""
    torch.set_num_threads(1)
    for experiment in waiting:
        if asked():
            return
        yield carry_out(experiment, folder, asked)


def together(waiting: list[Experiment], folder: Path, jobs: int, asked: Callable[[], bool]) -> Iterator[Outcome | None]:
    """Several at a time. A signal reaches this process, which sets an event for the others."""
    context = multiprocessing.get_context("forkserver")
    # their imports take seconds, once for all; an optimiser imports the second
    context.set_forkserver_preload([__name__, "torch._dynamo"])
    stop = context.Event()
    with ProcessPoolExecutor(jobs, context, initializer=begin, initargs=(stop,)) as pool:
        pending = {pool.submit(carry_out_here, experiment, folder) for experiment in waiting}
        while pending:
            done, pending = wait(pending, timeout=ASK_EVERY, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
            if asked():
                stop.set()
                pool.shutdown(cancel_futures=True)
                return


STOP: list[Event] = []


def begin(stop: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    STOP.append(stop)


def carry_out_here(experiment: Experiment, folder: Path) -> Outcome | None:
    """Carries out an experiment in a process of the pool."""
    return carry_out(experiment, folder, STOP[0].is_set)


def shown(run: Iterator[Outcome | None], done: int, total: int, console: Console) -> None:
    """A bar in a terminal, a dozen lines in a pipe."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        row = progress.add_task("experiments", total=total, completed=done)
        for outcome in run:
            if outcome is None:
                continue
            done += 1
            progress.update(row, completed=done, description=told(outcome))
            if not console.is_terminal and done * LINES // total > (done - 1) * LINES // total:
                console.print(f"{done}/{total}  {told(outcome)}")


def told(outcome: Outcome) -> str:
    """What became of an experiment, in a few words."""
    one = outcome.experiment
    came = f"solved at step {outcome.solved_at}" if outcome.solved_at else f"not solved in {outcome.steps} steps"
    return f"{one.kind} of {one.length}, {one.start}, seed {one.seed}: {came}"
