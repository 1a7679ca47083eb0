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

from training.tabular.judging.baselines import median, persistence, seasonal
from training.tabular.learning import splits
from training.tabular.learning.forecast import Forecast
from training.task import Report

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.tabular.learning.forecast import Wanted
    from training.tabular.task import TableTask

STRETCHES = 4
FEW = 50


@dataclass(frozen=True)
class Compared:
    """Forecasts of one target at one horizon, by their names, and the rows of the test that are scored."""

    wanted: Wanted
    came_N: NDArray[np.float32]
    forecasts: dict[str, NDArray[np.float32]]
    scored_N: NDArray[np.bool_]

    def error(self, name: str, rows: NDArray[np.bool_] | NDArray[np.int64] | None = None) -> float:
        """A forecast's mean absolute error."""
        rows = self.scored_N if rows is None else rows
        return float(np.abs(self.forecasts[name] - self.came_N)[rows].mean())

    @property
    def naive(self) -> str:
        """The best forecast that needs no network."""
        return min((name for name in self.forecasts if name != "model"), key=self.error)

    @property
    def ratio(self) -> float:
        """The model's error as a share of that one's."""
        return self.error("model") / max(self.error(self.naive), 1e-12)


def compare(task: TableTask, y_NO: NDArray[np.float32]) -> list[Compared]:
    """The model's forecasts beside those that need no network, of each target at each horizon."""
    assert isinstance(task.aim, Forecast)
    grid, inputs, middle_NG = task.look.grid, task.inputs, task.aim.middle(y_NO)
    found = []
    for index, wanted in enumerate(task.aim.wanted):
        now_N = inputs.x_NF[:, inputs.place(wanted.target)]
        forecasts = {"model": middle_NG[:, index], "persistence": persistence(grid, now_N)}
        if task.period:
            forecasts[f"season of {task.period}"] = seasonal(grid, now_N, wanted.steps, task.period)
        forecasts["median"] = median(grid, now_N, task.learnt_N)
        came_N = task.aim.y_NG[:, index]
        scored_N = ~np.isnan(came_N) & np.all([~np.isnan(value_N) for value_N in forecasts.values()], axis=0)
        found.append(Compared(wanted, came_N, forecasts, scored_N))
    return found


def judge(task: TableTask, y_NO: NDArray[np.float32]) -> Report:
    """The errors on the test, over all of it, by series, and in stretches of time."""
    every = compare(task, y_NO)
    page = Page("mean absolute error on the test", *every[0].forecasts, "rows")
    for each in every:
        errors = [each.error(name) for name in each.forecasts]
        cells = [f"[bold]{error:.4g}[/bold]" if error == min(errors) else f"{error:.4g}" for error in errors]
        page.add_row(each.wanted.title, *cells, f"{each.scored_N.sum():,}")
    text, alarms = sentence(every), anomalies(task, y_NO)
    values: dict[str, object] = {
        "verdict": text,
        "score": ratio_of(every),
        "lines": [line(each) for each in every],
        "series": by_series(task, every),
        "stretches": stretches(task, every),
        "anomaly": alarms,
    }
    return Report(Group(Text(text), page, Text(alarms)), values)


def line(each: Compared) -> dict[str, object]:
    """One target at one horizon as plain values."""
    squared = (each.forecasts["model"] - each.came_N)[each.scored_N] ** 2
    return {
        "title": each.wanted.title,
        "target": each.wanted.target,
        "steps": each.wanted.steps,
        "rows": int(each.scored_N.sum()),
        "errors": {name: each.error(name) for name in each.forecasts},
        "rmse": float(np.sqrt(squared.mean())),
    }


def by_series(task: TableTask, every: list[Compared]) -> list[tuple[str, float, float]]:
    """The mean errors of each series, the model's and the best naive one's, over all targets and horizons."""
    found = []
    for start, end in task.look.grid.bounds:
        within = np.zeros(task.look.grid.count, dtype=np.bool_)
        within[start:end] = True
        there = [(each, each.scored_N & within) for each in every if (each.scored_N & within).any()]
        if there:
            mine, other = (
                np.mean([each.error(name or each.naive, rows) for each, rows in there]) for name in ("model", "")
            )
            found.append((task.look.grid.names[int(task.look.grid.series_N[start])], float(mine), float(other)))
    return found


def stretches(task: TableTask, every: list[Compared]) -> list[tuple[float, float]]:
    """The same for consecutive stretches of time: whether the model grows old."""
    ticks = np.sort(task.look.grid.tick_N[np.any([each.scored_N for each in every], axis=0)])
    found = []
    for part in np.array_split(ticks, STRETCHES):
        within = (task.look.grid.tick_N >= part[0]) & (task.look.grid.tick_N <= part[-1])
        there = [(each, each.scored_N & within) for each in every if (each.scored_N & within).any()]
        mine, other = (
            np.mean([each.error(name or each.naive, rows) for each, rows in there]) for name in ("model", "")
        )
        found.append((float(mine), float(other)))
    return found


def ratio_of(every: list[Compared]) -> float:
    """The geometric mean of the errors as shares of the best naive ones."""
    return float(np.exp(np.mean([np.log(max(each.ratio, 1e-12)) for each in every])))


def sentence(every: list[Compared]) -> str:
    """The first line of everything: whether the model is worth anything. One that loses says so first."""
    ratio = ratio_of(every)
    lost = [each.wanted.title for each in every if each.ratio >= 1]
    naive = " and ".join(sorted({each.naive for each in every}))
    if ratio >= 1:
        worse = f"its mean absolute error is {ratio - 1:.1%} higher"
        return f"It LOSES to the best naive forecast ({naive}): {worse}. Do not use it."
    rows = min(int(each.scored_N.sum()) for each in every)
    few = f" The test has {rows} rows only, which is too few to be sure." if rows < FEW else ""
    but = f", but loses for {'; '.join(lost)}" if lost else ""
    return f"It beats the best naive forecast ({naive}): its mean absolute error is {1 - ratio:.1%} lower{but}.{few}"


def anomalies(task: TableTask, y_NO: NDArray[np.float32]) -> str:
    """How often the test is beyond the threshold; "" if the task is another."""
    if task.look.roles.goal != "anomaly":
        return ""
    test_N = task.parts.part_N == splits.TEST
    share = float(y_NO[test_N, -1].mean())
    return f"{share:.2%} of the test is beyond the threshold, which {task.config.alarms:.2%} of the validation part is."
