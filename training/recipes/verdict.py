"""A forecast beside two that need no network: nothing changes, and the same hour of yesterday.

Legend: N hours of all observations, M hours of the test that have a future, O horizons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from training.task import Report

if TYPE_CHECKING:
    from numpy.typing import NDArray

DAY = 24


def judge(
    found_MO: NDArray[np.float32], temperature_N: NDArray[np.float32], start: int, horizons: tuple[int, ...]
) -> Report:
    """Mean absolute errors in degC over the test, whose first hour is number `start` of the observations."""
    now_M = np.arange(start, start + len(found_MO))
    values: dict[str, object] = {}
    table = Table("mean absolute error, degC", "this model", "persistence", "same hour yesterday")
    for index, ahead in enumerate(horizons):
        came_M = temperature_N[now_M + ahead]
        forecasts = {
            "model": found_MO[:, index],
            "persistence": temperature_N[now_M],
            "yesterday": temperature_N[now_M + ahead - DAY],
        }
        errors = {name: float(np.abs(value_M - came_M).mean()) for name, value_M in forecasts.items()}
        table.add_row(f"{ahead} h ahead", *marked(errors))
        values[f"{ahead}h"] = errors
    return Report(table, values)


def marked(errors: dict[str, float]) -> list[str]:
    """The errors as texts, the smallest one in bold."""
    best = min(errors.values())
    return [f"[bold]{error:.2f}[/bold]" if error == best else f"{error:.2f}" for error in errors.values()]
