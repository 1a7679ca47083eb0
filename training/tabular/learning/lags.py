"""The values of a number some steps before, and the level that it is measured by.

`lags_graph.py` writes the same as ONNX nodes. Legend: B batch, T time, n numbers, L lags.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from training.tabular.learning.front import Encoding

# No level is below this share of the mean size of a number: what is 0 for long would be divided by nearly nothing.
LEAST = 1e-4


@dataclass(frozen=True)
class Lags:
    """The columns of which so many earlier values are inputs too; `relative`: in units of their own level."""

    names: tuple[str, ...] = ()
    count: int = 0
    relative: bool = False


NO_LAGS = Lags()


def lagged(z_BTn: Tensor, elapsed_BT1: Tensor, encoding: Encoding) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The numbers; of each that has lags the L values before, [B, T, L]; and the levels, [B, T, 1], if there are any.

    A level is the mean size of a number and its lags, and these are shares of it then, above or below 1.
    """
    numbers, lags, levels = list(torch.split(z_BTn, 1, dim=-1)), [], []
    steps_BT = torch.floor(elapsed_BT1[..., 0] + 0.5).long().cumsum(dim=1)
    for index, place in enumerate(encoding.lagged):
        now_BT1 = numbers[place]
        lags_BTL = earlier(now_BT1[..., 0], steps_BT, encoding.lags)
        if encoding.least:
            all_BTL = torch.cat([now_BT1, lags_BTL], dim=-1)
            level_BT1 = all_BTL.abs().mean(dim=-1, keepdim=True).clamp(min=encoding.least[index])
            numbers[place], lags_BTL = now_BT1 / level_BT1 - 1, lags_BTL / level_BT1 - 1
            levels.append(level_BT1)
        lags.append(lags_BTL)
    return torch.cat(numbers, dim=-1), lags, levels


def earlier(now_BT: Tensor, steps_BT: Tensor, lags: int) -> Tensor:
    """The value 1 to L steps before each row, [B, T, L]: that of the row then or the last before; the first's, if none.

    `steps_BT` is the number of each row's step.
    """
    then_BTL = steps_BT[..., None] - torch.arange(1, lags + 1)
    row_BTL = torch.searchsorted(steps_BT, then_BTL.flatten(1), right=True).sub(1).clamp(min=0)
    return now_BT.gather(1, row_BTL).reshape(then_BTL.shape)
