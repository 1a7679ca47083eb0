"""What a person sees of a fit: a bar in a terminal, a dozen plain lines in a pipe."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from training.config import Config
    from training.fitting.trainer import Evaluation, Watcher

LINES = 10


class Bar:
    """A watcher for a terminal."""

    def __init__(self, progress: Progress, row: TaskID) -> None:
        self._progress, self._row = progress, row

    def stepped(self, step: int, loss: float) -> None:  # noqa: ARG002 - the validation loss says more
        self._progress.update(self._row, completed=step)

    def evaluated(self, evaluation: Evaluation) -> None:
        mark = " (best)" if evaluation.best else ""
        self._progress.update(self._row, loss=f"validation {evaluation.validation_loss:.3g}{mark}")


class Lines:
    """A watcher for a pipe: one line each tenth of the way."""

    def __init__(self, console: Console, steps: int, start: int) -> None:
        self._console, self._steps, self._told = console, steps, start * LINES // steps

    def stepped(self, step: int, loss: float) -> None:
        """Nothing: a pipe gets validations only."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """A line, if it is time for one."""
        tenth = evaluation.step * LINES // self._steps
        if tenth > self._told:
            self._told = tenth
            self._console.print(
                f"step {evaluation.step}/{self._steps}  training {evaluation.training_loss:.3g}"
                f"  validation {evaluation.validation_loss:.3g}"
            )


@contextmanager
def watch(console: Console, config: Config, start: int) -> Iterator[Watcher]:
    """A watcher that fits where the output goes."""
    if not console.is_terminal:
        yield Lines(console, config.steps, start)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[loss]}"), console=console) as progress:
        row = progress.add_task(config.name, total=config.steps, completed=start, loss="")
        yield Bar(progress, row)
