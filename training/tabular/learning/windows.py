"""The order in which rows are learnt: windows of consecutive rows, many lanes side by side, the state carried along.

Truncated backpropagation through time: the gradient ends at a window's first row, the state does not. A lane goes on
with the next window of the same series until it is through with it, and begins the next series with a state of zeros.
Legend: B lanes, W rows of a window, S windows of a lane in one epoch.
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
        """S."""
        total = sum(-(-(end - first) // self.window) for first, end in self.pieces)
        return max(1, -(-total // self.lanes))

    def epoch(self, number: int) -> Epoch:
        """The windows of an epoch: a function of the seed and its number. The cuts lie elsewhere in each."""
        random = np.random.default_rng((self.seed, number))
        chain: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
        fresh: list[bool] = []
        for piece in random.permutation(len(self.pieces)):
            first, end = self.pieces[piece]
            offset = int(random.integers(min(self.window, max(end - first - self.window, 1)))) if number else 0
            starts = range(first + offset, end, self.window)
            chain += [padded(start, min(start + self.window, end), self.window) for start in starts]
            fresh += [True, *[False] * (len(starts) - 1)]
        size = self.windows * self.lanes
        chain += [np.full(self.window, NOTHING)] * (size - len(chain))
        fresh += [True] * (size - len(fresh))
        rows_BSW = torch.from_numpy(np.stack(chain)).reshape(self.lanes, self.windows, self.window)
        fresh_BS = torch.tensor(fresh).reshape(self.lanes, self.windows)
        fresh_BS[:, 0] = True
        return Epoch(rows_BSW.transpose(0, 1).contiguous(), fresh_BS.T.contiguous())


def padded(start: int, end: int, window: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The rows of a window, and NOTHING up to its length."""
    rows = np.full(window, NOTHING)
    rows[: end - start] = np.arange(start, end)
    return rows
