"""The task of telling classes apart: a label for each step, or one for each series.

Legend: N rows, B windows, W steps, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from training.errors import DataError
from training.fitting import processes
from training.tabular.learning import splits
from training.task import Feature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.tabular.learning.front import Encoding
    from training.tabular.learning.splits import Parts
    from training.tabular.learning.surprise import Surprise
    from training.tabular.looking.look import Look

UNKNOWN = -1
LEAST = 1e-7


class Probabilities(nn.Module):
    """A softmax. While it learns, rare classes weigh more; what is served is freed of that again."""

    shift_C: Tensor

    def __init__(self, weight_C: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift_C", weight_C.log())

    def forward(self, z_BTC: Tensor, e_BTE: Tensor) -> Tensor:  # noqa: ARG002 - as every tail is called
        """[B, T, C] of the head to probabilities."""
        return torch.softmax(z_BTC if self.training else z_BTC - self.shift_C, dim=-1)


class Classify:
    """Labels, their weights and their loss."""

    def __init__(self, look: Look, parts: Parts) -> None:
        self.target = look.roles.targets[0]
        texts_N = look.rows.columns[self.target].texts_N[look.grid.row_N]
        learnt_N = parts.part_N == splits.TRAINING
        self.classes = tuple(sorted({text for text in texts_N[learnt_N].tolist() if text is not None}))
        if len(self.classes) < 2:
            has = f"one class only, {self.classes[0]!r}" if self.classes else "no label"
            raise DataError(f"column {self.target!r}: the training part has {has}; give more rows, or --split series")
        self.strange = tuple(sorted({text for text in texts_N.tolist() if text is not None} - set(self.classes)))
        index = {text: place for place, text in enumerate(self.classes)}
        self.y_N = np.array([index.get(text, UNKNOWN) for text in texts_N.tolist()], dtype=np.int64)
        self._require_labels(parts)
        self.whole = bool(look.roles.series) and all(len(set(texts_N[a:b].tolist())) == 1 for a, b in look.grid.bounds)
        self.weight_N = self._weights(look)
        counts_C = np.bincount(self.y_N[learnt_N & (self.y_N >= 0)], minlength=len(self.classes))
        self.prior_C = counts_C / counts_C.sum()
        rare_C = np.sqrt(1 / (self.prior_C * len(self.classes)))
        self.weight_C = torch.tensor(rare_C, dtype=torch.float32)

    def _require_labels(self, parts: Parts) -> None:
        """Each part has something to be judged by."""
        for name, part in splits.PARTS.items():
            if not (self.y_N[parts.part_N == part] != UNKNOWN).any():
                raise DataError(
                    f"column {self.target!r}: the {name} part has no label that the training part has; "
                    "give more rows, shuffle them if their order means nothing, or --split series"
                )

    def _weights(self, look: Look) -> NDArray[np.float32]:
        """What a row counts for: where a series has one label, the later rows more, since they know more of it."""
        weight_N: NDArray[np.float32] = (self.y_N != UNKNOWN).astype(np.float32)
        if self.whole:
            for start, end in look.grid.bounds:
                weight_N[start:end] *= (np.arange(1, end - start + 1, dtype=np.float32) / (end - start)) ** 2
        return weight_N

    @property
    def width(self) -> int:
        return len(self.classes)

    @property
    def outputs(self) -> tuple[Feature, ...]:
        return tuple(Feature(name) for name in self.classes)

    def tail(self, encoding: Encoding, e_NE: Tensor, period: int | None) -> nn.Module:  # noqa: ARG002 - as every task is asked
        return Probabilities(self.weight_C)

    def surprise(self) -> Surprise | None:
        return None

    def loss(self, y_BWC: Tensor, rows_BW: Tensor, *, learning: bool) -> Tensor:
        """Cross entropy over the rows that have a label."""
        place_BW = rows_BW.clamp(min=0)
        label_BW = torch.from_numpy(self.y_N)[place_BW]
        weight_BW = torch.from_numpy(self.weight_N)[place_BW] * (rows_BW >= 0)
        known_BW = label_BW.clamp(min=0)
        if learning:
            weight_BW = weight_BW * self.weight_C[known_BW]
        right_BW = y_BWC.gather(-1, known_BW[..., None])[..., 0].clamp(min=LEAST)
        loss_BW = torch.where(weight_BW > 0, -right_BW.log(), 0.0)
        weight = processes.average(weight_BW.sum()) if learning else weight_BW.sum()
        return (loss_BW * weight_BW).sum() / weight.clamp(min=LEAST)
