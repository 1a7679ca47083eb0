"""Pictures of a test: where it went wrong, how its error goes on over time, and whether its quantiles hold.

Legend: N rows, G targets x horizons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.fitting import plot
from training.fitting.plot import INK, TRAINING, VALIDATION, tidy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

BLOCKS, AROUND, WORST = 40, 36, 3
NAIVE = "#c2703d"


def figure(panels: int) -> tuple[Figure, list[Axes]]:
    """A figure of some panels, one below the other."""
    made = plot.figure((7.2, 2.6 * panels), 140)
    return made, list(np.atleast_1d(made.subplots(panels, 1)))


def save(made: Figure, axes: Sequence[Axes], path: Path) -> None:
    """Write a PNG without the machine's name in it."""
    for each in axes:
        tidy(each)
    made.savefig(path, metadata={"Software": None})


def over_time(error_N: NDArray[np.float64], naive_N: NDArray[np.float64], title: str, path: Path) -> None:
    """Mean errors of consecutive blocks of the test, the model's beside the naive forecast's."""
    made, (axes,) = figure(1)
    blocks = np.array_split(np.arange(len(error_N)), min(BLOCKS, max(len(error_N) // 4, 1)))
    for values, colour, name in ((naive_N, NAIVE, "naive"), (error_N, VALIDATION, "model")):
        axes.plot([values[block].mean() for block in blocks], color=colour, label=name, lw=1.8)
    axes.set_title(title, loc="left", color=INK, fontsize=10)
    axes.set_xlabel(f"{len(blocks)} stretches of the test, the oldest first", color=INK)
    axes.set_ylabel("mean absolute error", color=INK)
    axes.set_ylim(bottom=0)
    save(made, [axes], path)


def worst(
    came_N: NDArray[np.float64], said_N: NDArray[np.float64], names: Sequence[str], title: str, path: Path
) -> list[int]:
    """The places where the forecast was furthest off, drawn with what was around; gives back their rows."""
    error_N = np.abs(came_N - said_N)
    rows: list[int] = []
    while len(rows) < WORST and np.isfinite(error_N).any():
        row = int(np.nanargmax(error_N))
        rows.append(row)
        error_N[max(row - AROUND, 0) : row + AROUND] = np.nan
    made, panels = figure(len(rows))
    for axes, row in zip(panels, rows, strict=True):
        near = np.arange(max(row - AROUND, 0), min(row + AROUND, len(came_N)))
        axes.plot(near - row, came_N[near], color=TRAINING, label="what came", lw=1.8)
        axes.plot(near - row, said_N[near], color=VALIDATION, label="forecast", lw=1.8)
        axes.axvline(0, color="#cbd5e1", lw=1, zorder=0)
        axes.set_title(f"{title}, said at {names[row]}", loc="left", color=INK, fontsize=10)
    for axes in panels[-1:]:
        axes.set_xlabel("rows before and after that time; at each, what was forecast then and what came", color=INK)
    save(made, panels, path)
    return rows


def calibration(expected: Sequence[float], found: Sequence[float], names: tuple[str, str], path: Path) -> None:
    """How often what came lay below each quantile (or how often a probability was right), beside what it should be.

    `names`: of both axes.
    """
    made, (axes,) = figure(1)
    axes.plot([0, 1], [0, 1], color="#cbd5e1", lw=1, label="as it should be")
    axes.plot(expected, found, "o-", color=VALIDATION, label="on the test", lw=1.8)
    axes.set_xlabel(names[0], color=INK)
    axes.set_ylabel(names[1], color=INK)
    save(made, [axes], path)
