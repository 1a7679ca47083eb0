"""Sequences with what should be answered, and which answers count.

One mask serves every form of task: a class at the end counts the last step alone, a class for each step counts all of
them, and sequences of unequal lengths do not count what they were filled up with.

Legend: B sequences, T time, F features, O outputs, N steps that count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch.nn.functional import cross_entropy, mse_loss

from training.fitting.device import through

if TYPE_CHECKING:
    from torch import Tensor, nn

Kind = Literal["classes", "numbers"]
# Training counts its steps from 0 and stays below these two.
VALIDATION, TEST = 2**31, 2**31 + 1


@dataclass(frozen=True)
class Examples:
    """`y` holds a class at each step, [B, T], or numbers, [B, T, O]; it counts where `scored_BT` is set."""

    x_BTF: Tensor
    y: Tensor
    scored_BT: Tensor

    def __getitem__(self, rows: Tensor | slice) -> Examples:
        return Examples(self.x_BTF[rows], self.y[rows], self.scored_BT[rows])

    def __len__(self) -> int:
        return len(self.x_BTF)

    def drawn(self, seed: int, step: int, count: int) -> Examples:
        """Some of them at random, the same for each seed and step."""
        return self[torch.randint(len(self), (count,), generator=generator(seed, step))]


@dataclass(frozen=True)
class Answers:
    """The steps that count: what the network gave, [N, O], and what is right, [N] classes or [N, O] numbers."""

    found_NO: Tensor
    right_N: Tensor

    def loss(self, kind: Kind) -> Tensor:
        """Cross entropy in nats for classes, mean squared error for numbers."""
        return (cross_entropy if kind == "classes" else mse_loss)(self.found_NO, self.right_N)

    def in_units(self, unit_O: Tensor) -> Answers:
        """Numbers divided by a unit for each output."""
        return Answers(self.found_NO / unit_O, self.right_N / unit_O)

    def figures(self, kind: Kind) -> dict[str, float]:
        """The loss by its name and, of classes, the share that is right; of numbers, how far they are off."""
        loss = self.loss(kind).item()
        if kind == "classes":
            right = (self.found_NO.argmax(dim=1) == self.right_N).float().mean().item()
            return {"accuracy": right, "cross_entropy": loss}
        away = (self.found_NO - self.right_N).abs().mean().item()
        return {"mean_squared_error": loss, "mean_absolute_error": away}


def answer(network: nn.Module, examples: Examples) -> Answers:
    """Run the network from a state of 0 and keep the steps that count."""
    found_BTO = through(network, examples.x_BTF)
    return Answers(found_BTO[examples.scored_BT], examples.y[examples.scored_BT])


def generator(seed: int, step: int) -> torch.Generator:
    """Random numbers that depend on the seed and the step's number alone.

    torch's generator looks at the lowest 32 bits of what it is seeded with: both are mixed into as many.
    """
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1)[0]))


def last_step(batch: int, length: int) -> Tensor:
    """A mask that counts the last step alone, [B, T]."""
    scored_BT = torch.zeros(batch, length, dtype=torch.bool)
    scored_BT[:, -1] = True
    return scored_BT


def at_each_step(y_B: Tensor, length: int) -> Tensor:
    """A sequence's class or number, repeated for every step: [B] to [B, T], [B, O] to [B, T, O]."""
    return y_B[:, None].expand(-1, length, *y_B.shape[1:])


def padded(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Sequences [T, F] of unequal lengths as one [B, T, F], filled up with 0 at the end, and their lengths [B]."""
    lengths_B = torch.tensor([len(row_TF) for row_TF in rows])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths_B


def steps_of(lengths_B: Tensor) -> Tensor:
    """A mask of the steps that a sequence has, [B, T]."""
    return torch.arange(int(lengths_B.max())) < lengths_B[:, None]
