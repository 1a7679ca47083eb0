"""The networks of the demonstration, trained by the pipeline's own command, two at a time."""

import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from demo.page import Page
from demo.process import PACE, Process, uninterrupted

_AT_ONCE = 2
_STEP = re.compile(r"^step (\d+)/(\d+)", re.MULTILINE)
_END = re.compile(r"^(\d+) steps", re.MULTILINE)


@dataclass(frozen=True)
class Training:
    """One command of the pipeline: RECIPE and its options; `name` is the model's."""

    name: str
    what: str
    recipe: tuple[str, ...]

    def arguments(self, folder: Path) -> list[str]:
        """What follows `python -m`."""
        places = ["--models", str(folder / "models"), "--runs", str(folder / "runs")]
        return ["training", *self.recipe, "--name", self.name, *places]


@dataclass(frozen=True)
class Progressed:
    """How far a training is: `step` of `steps`."""

    step: int
    steps: int

    @classmethod
    def read(cls, said: str) -> "Progressed":
        """From what the command said so far."""
        if end := _END.search(said):
            return cls(int(end[1]), int(end[1]))
        told = _STEP.findall(said)
        return cls(int(told[-1][0]), int(told[-1][1])) if told else cls(0, 1)


LSTM = Training("recall", "one LSTM unit", ("recall",))
# The seed decides how a single plain unit fails. With this one its memory fades slowly enough to be seen.
RNN = Training(
    "recall-rnn", "one plain RNN unit", ("recall", "--cell", "rnn", "--seed", "1", "--learning-rate", "0.01")
)
WEATHER = Training("weather", "a weather forecast", ("weather", "--steps", "150"))
ALL = (LSTM, RNN, WEATHER)

Tell = Callable[[Training, Progressed], None]


def train(trainings: Sequence[Training], folder: Path, page: Page) -> None:
    """Train them all into folder/models. Raises DemoError."""
    waiting, running = deque(trainings), dict[Training, Process]()
    with ExitStack() as processes, _watched(trainings, page) as tell:
        try:
            while waiting or running:
                while waiting and len(running) < _AT_ONCE:
                    one = waiting.popleft()
                    with uninterrupted():
                        process = Process(f"training {one.name}", one.arguments(folder), folder / f"{one.name}.log")
                        running[one] = processes.enter_context(process)
                    tell(one, Progressed(0, 1))
                time.sleep(PACE)
                _look(running, tell)
        finally:
            for process in running.values():
                process.ask_to_stop()  # all of them before the first one is waited for


def _look(running: dict[Training, Process], tell: Tell) -> None:
    """Tells how far each is, and forgets those that have ended."""
    for one, process in list(running.items()):
        if process.ended:
            del running[one]
        tell(one, Progressed.read(process.said))


def report(training: Training, folder: Path) -> dict[str, Any]:
    """What the pipeline found out about a network that it trained: the `report` of its result file."""
    (result,) = (folder / "runs" / training.name).glob("*/result.json")
    values: dict[str, Any] = json.loads(result.read_text())["report"]
    return values


@contextmanager
def _watched(trainings: Sequence[Training], page: Page) -> Iterator[Tell]:
    """Bars in a terminal; in a pipe, a line for each network that is finished."""
    if not page.console.is_terminal:
        yield _Lines(page).tell
        return
    columns = (TextColumn("  {task.description}"), BarColumn(24), TextColumn("{task.fields[steps]}"))
    with Progress(*columns, TimeElapsedColumn(), console=page.console) as progress:
        rows = {one: progress.add_task(_label(one), start=False, total=1, steps="") for one in trainings}

        def tell(one: Training, now: Progressed) -> None:
            progress.start_task(rows[one])
            steps = f"{now.step:>4} steps" if now.step else "starts"
            progress.update(rows[one], completed=now.step, total=now.steps, steps=f"{steps:<10}")

        yield tell


class _Lines:
    """For a pipe."""

    def __init__(self, page: Page) -> None:
        self._page, self._told, self._begun = page, set[Training](), dict[Training, float]()

    def tell(self, one: Training, now: Progressed) -> None:
        """A line once it is finished."""
        begun = self._begun.setdefault(one, time.monotonic())
        if now.step == now.steps and one not in self._told:
            self._told.add(one)
            self._page.draw([f"  {_label(one)}  {now.step:>4} steps in {time.monotonic() - begun:.0f} s"])


def _label(one: Training) -> str:
    return f"{one.name:<10}  {one.what:<18}"
