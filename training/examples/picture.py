"""A report in the terminal: figures beside the baselines, and which answers were right.

Legend: N answers, C classes, O outputs.
"""

from __future__ import annotations

import os.path
from typing import TYPE_CHECKING

import torch
from rich.console import Group
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType
    from torch import Tensor

    from training.examples.examples import Answers, Kind

SHADES = " ░▒▓█"
# Size of the scatter plot in characters, and more classes than this are no table that can be read.
ROWS, COLUMNS = 12, 48
READABLE_CLASSES = 12


def picture(
    answers: Answers, kind: Kind, names: Sequence[str], figures: Mapping[str, Mapping[str, float]]
) -> RenderableType:
    """The figures as a table, above a confusion matrix (classes) or a plot of found against right (numbers)."""
    table = compared(figures)
    if kind == "numbers":
        return Group(table, scatter(answers.found_NO[:, 0], answers.right_N[:, 0]))
    if len(names) > READABLE_CLASSES:
        return table
    return Group(table, confusion(answers, names))


def compared(figures: Mapping[str, Mapping[str, float]]) -> Table:
    """One row for each figure, one column for each model or baseline that has it."""
    table = Table("", *figures)
    for figure in next(iter(figures.values())):
        cells = [f"{by[figure]:.4g}" if figure in by else "" for by in figures.values()]
        table.add_row(figure.replace("_", " "), *cells)
    return table


def confusion(answers: Answers, names: Sequence[str]) -> Table:
    """One row for each right class: how often each class was answered, darker where often."""
    counts_CC = torch.zeros(len(names), len(names))
    counts_CC.index_put_((answers.right_N, answers.found_NO.argmax(dim=1)), torch.tensor(1.0), accumulate=True)
    names = short(names)
    table = Table("right", *names, title="answered")
    for name, counts_C in zip(names, counts_CC, strict=True):
        share_C = counts_C / counts_C.sum().clamp(min=1)
        table.add_row(name, *(f"{shade(s)} {int(n)}" for s, n in zip(share_C.tolist(), counts_C.tolist(), strict=True)))
    return table


def short(names: Sequence[str]) -> list[str]:
    """The names without the beginning that all of them share: `speaker_1` is 1."""
    shared = len(os.path.commonprefix(list(names)))  # noqa: RUF071 - characters are meant, not folders
    return [name[shared:] or name for name in names]


def shade(share: float) -> str:
    """A block that is the darker, the larger a share from 0 to 1 is."""
    return SHADES[min(int(share * len(SHADES)), len(SHADES) - 1)]


def scatter(found_N: Tensor, right_N: Tensor) -> str:
    """Right answers to the right, found ones upwards: a good network's lie on the diagonal."""
    low, high = min(found_N.min(), right_N.min()).item(), max(found_N.max(), right_N.max()).item()
    span = max(high - low, 1e-9)
    column_N = ((right_N - low) / span * (COLUMNS - 1)).round().long()
    row_N = ((found_N - low) / span * (ROWS - 1)).round().long()
    counts = torch.zeros(ROWS, COLUMNS)
    counts.index_put_((row_N, column_N), torch.tensor(1.0), accumulate=True)
    most = counts.max().clamp(min=1)
    shares = torch.where(counts > 0, (counts / most).sqrt().clamp(min=1 / len(SHADES)), 0)  # one answer is seen, too
    lines = ["".join(map(shade, row)) for row in shares.tolist()]
    frame = [f"{line}|" for line in reversed(lines)]
    return "\n".join(["found (up) against right (across)", *frame, f"{low:<.3g}{high:>{COLUMNS - 4}.3g}"])
