"""What a forecast is worth: its errors on the test beside those of forecasts that need no network.

Legend: N rows, G targets x horizons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Group
from rich.table import Table as Page
from rich.text import Text

from training.tabular.judging.baselines import persistence, seasonal
from training.task import Report

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.tabular.learning.task import TableTask


@dataclass(frozen=True)
class Line:
    """The mean absolute errors of one target at one horizon, over `count` rows of the test."""

    target: str
    steps: int
    count: int
    errors: dict[str, float]

    @property
    def naive(self) -> str:
        """The best forecast that needs no network."""
        return min((name for name in self.errors if name != "model"), key=lambda name: self.errors[name])

    @property
    def ratio(self) -> float:
        """The model's error as a share of that one's."""
        return self.errors["model"] / max(self.errors[self.naive], 1e-12)


def judge(task: TableTask, y_NO: NDArray[np.float32]) -> Report:
    """The errors on the rows of which the truth is known and all forecasts exist."""
    lines = lines_of(task, y_NO)
    names = list(lines[0].errors)
    page = Page("mean absolute error on the test", *names, "rows")
    for line in lines:
        best = min(line.errors.values())
        cells = [f"[bold]{error:.4g}[/bold]" if error == best else f"{error:.4g}" for error in line.errors.values()]
        page.add_row(f"{line.target}, {line.steps} ahead", *cells, f"{line.count:,}")
    values: dict[str, object] = {
        "verdict": sentence(lines),
        "lines": [
            {"target": line.target, "steps": line.steps, "rows": line.count, "errors": line.errors} for line in lines
        ],
    }
    return Report(Group(Text(sentence(lines)), page), values)


def lines_of(task: TableTask, y_NO: NDArray[np.float32]) -> list[Line]:
    """A line for each target and horizon."""
    grid, inputs, aim = task.look.grid, task.inputs, task.aim
    middle_NG = aim.middle(y_NO)
    found = []
    for index, wanted in enumerate(aim.wanted):
        now_N = inputs.x_NF[:, inputs.place(wanted.target)]
        forecasts = {"model": middle_NG[:, index], "persistence": persistence(grid, now_N)}
        if task.period:
            forecasts[f"season of {task.period}"] = seasonal(grid, now_N, wanted.steps, task.period)
        came_N = aim.y_NG[:, index]
        scored_N = ~np.isnan(came_N) & np.all([~np.isnan(value_N) for value_N in forecasts.values()], axis=0)
        errors = {name: float(np.abs(value_N - came_N)[scored_N].mean()) for name, value_N in forecasts.items()}
        found.append(Line(wanted.target, wanted.steps, int(scored_N.sum()), errors))
    return found


def sentence(lines: list[Line]) -> str:
    """The first line of everything: whether the model is worth anything. One that loses says so first."""
    ratio = float(np.exp(np.mean([np.log(max(line.ratio, 1e-12)) for line in lines])))
    lost = [f"{line.target} {line.steps} ahead" for line in lines if line.ratio >= 1]
    naive = " and ".join(sorted({line.naive for line in lines}))
    if ratio >= 1:
        worse = f"its mean absolute error is {ratio - 1:.1%} higher"
        return f"It LOSES to the best naive forecast ({naive}): {worse}. Do not use it."
    but = f", but loses for {', '.join(lost)}" if lost else ""
    return f"It beats the best naive forecast ({naive}): its mean absolute error is {1 - ratio:.1%} lower{but}."
