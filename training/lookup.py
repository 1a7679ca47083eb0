"""Inputs that stand for symbols: as the number of one, for which the graph looks up a row, or as a 1 in its place.

Legend: B batch, T time, E width of a row, S symbols.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import one_hot


@dataclass(frozen=True)
class Lookup:
    """One input that holds the number of a symbol, 0 for one that was never seen, up to `count` - 1."""

    count: int
    width: int

    def encoder(self) -> nn.Module:
        """A table with a row for each symbol; the row of what was never seen is 0 and stays so."""
        return Table(self.count, self.width)

    def decoder(self) -> None:
        """Nothing is done to the answers."""

    def raw(self, noise_BT1: Tensor) -> Tensor:
        """Numbers of symbols out of random ones."""
        return (noise_BT1.abs() * self.count).floor() % self.count


@dataclass(frozen=True)
class OneHot:
    """An input for each symbol, of which one is 1 and the others 0. Nothing is done to them."""

    width: int

    def encoder(self) -> None:
        """The recurrence takes them as they are."""

    def decoder(self) -> None:
        """Nothing is done to the answers."""

    def raw(self, noise_BTS: Tensor) -> Tensor:
        """A symbol out of random numbers: the one with the largest."""
        return one_hot(noise_BTS.argmax(dim=-1), self.width).float()


class Table(nn.Module):
    """[B, T, 1] numbers of symbols to [B, T, E]."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.rows = nn.Embedding(count, width, padding_idx=0)

    def forward(self, x_BT1: Tensor) -> Tensor:
        found_BTE: Tensor = self.rows(x_BT1[..., 0].long())
        return found_BTE
