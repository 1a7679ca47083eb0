"""The order in which rows are learnt: windows of consecutive rows, many lanes side by side, the state carried along.

Truncated backpropagation through time: the gradient ends at a window's first row, the state does not. A lane goes on
with the next window of the same series until it is through with it, and begins the next series with a state of zeros.
Legend: B lanes, W rows of a window, S windows of a lane in one epoch, M windows one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NOTHING = -1


@dataclass(frozen=True)
class Epoch:
    """Rows of each window, rows_SBW, NOTHING behind the end of a series; fresh_SB where a series begins."""

    rows_SBW: Tensor
    fresh_SB: Tensor


@dataclass(frozen=True)
class Lanes:
    """Pieces of consecutive rows, [first, end), and how they are cut. Every epoch has as many windows."""

    pieces: tuple[tuple[int, int], ...]
    window: int
    lanes: int
    seed: int

    @property
    def windows(self) -> int:
        total = sum(-(-(end - first) // self.window) for first, end in self.pieces)
        return max(1, -(-total // self.lanes))

    def epoch(self, number: int) -> Epoch:
        """The windows of an epoch: a function of the seed and its number. The cuts lie elsewhere in each."""
        random = np.random.default_rng((self.seed, number))
        starts, ends, fresh = [], [], []
        for piece in random.permutation(len(self.pieces)):
            first, end = self.pieces[piece]
            offset = int(random.integers(min(self.window, max(end - first - self.window, 1)))) if number else 0
            starts.append(np.arange(first + offset, end, self.window))
            ends.append(np.full(len(starts[-1]), end))
            fresh.append(np.arange(len(starts[-1])) == 0)
        rows_MW = np.concatenate(starts)[:, None] + np.arange(self.window)
        rows_MW = np.where(rows_MW < np.concatenate(ends)[:, None], rows_MW, NOTHING)
        lacking = self.windows * self.lanes - len(rows_MW)
        rows_MW = np.concatenate([rows_MW, np.full((lacking, self.window), NOTHING)])
        rows_BSW = torch.from_numpy(rows_MW).reshape(self.lanes, self.windows, self.window)
        fresh_BS = torch.from_numpy(np.concatenate([*fresh, np.ones(lacking, dtype=np.bool_)]))
        fresh_BS = fresh_BS.reshape(self.lanes, self.windows)
        fresh_BS[:, 0] = True
        return Epoch(rows_BSW.transpose(0, 1).contiguous(), fresh_BS.T.contiguous())
