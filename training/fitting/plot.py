"""The picture of a fit: training and validation loss over the steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from training.fitting.trainer import Evaluation

TRAINING, VALIDATION, INK = "#9db4c8", "#0b4f6c", "#334155"


def figure(inches: tuple[float, float], dpi: int) -> Figure:
    """Make an empty figure, without pyplot, which would keep it in a global list and look for a screen."""
    from matplotlib import figure as figures  # noqa: PLC0415 - a tenth of the start of a training
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    made = figures.Figure(figsize=inches, dpi=dpi, layout="constrained")
    FigureCanvasAgg(made)
    return made


def draw(evaluations: Sequence[Evaluation], title: str, path: Path) -> None:
    picture = figure((7.2, 4.0), 160)
    axes = picture.add_subplot()
    steps = [entry.step for entry in evaluations]
    axes.plot(steps, [entry.training_loss for entry in evaluations], color=TRAINING, label="training", lw=1.6)
    axes.plot(steps, [entry.validation_loss for entry in evaluations], color=VALIDATION, label="validation", lw=1.8)
    mark_best(axes, evaluations)
    axes.set_yscale(scale(evaluations))
    axes.set_xlabel("optimiser step", color=INK)
    axes.set_ylabel("loss", color=INK)
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
    tidy(axes, above=False)
    picture.savefig(path, metadata={"Software": None})


def scale(evaluations: Sequence[Evaluation]) -> str:
    """Logarithmic if the loss fell by a factor of ten or more: below that its labels are hard to read."""
    losses = [loss for entry in evaluations for loss in (entry.training_loss, entry.validation_loss)]
    return "log" if min(losses) > 0 and max(losses) >= 10 * min(losses) else "linear"


def mark_best(axes: Axes, evaluations: Sequence[Evaluation]) -> None:
    """A dot and a number where the exported weights are from."""
    best = min(evaluations, key=lambda entry: entry.validation_loss)
    axes.plot(best.step, best.validation_loss, "o", color=VALIDATION, ms=6, label=f"best: {best.validation_loss:.3g}")


def tidy(axes: Axes, *, above: bool = True) -> None:
    """Fewer lines, lighter ones. `above`: the legend is above the picture, else where a falling curve is not."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#cbd5e1")
    axes.tick_params(colors=INK, which="both", length=3)
    axes.grid(visible=True, which="major", color="#e8edf2", lw=0.8)
    axes.set_axisbelow(True)
    # to look for the place where a legend hides nothing takes longer than all else, on a busy machine
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 2} if above else {"loc": "upper right"}
    axes.legend(frameon=False, labelcolor=INK, borderaxespad=0, **place)
