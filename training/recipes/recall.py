"""Recall: remember the value that came with a write flag, answer it where the read flag is set, and 0 elsewhere.

Paper: Graves, "Supervised Sequence Labelling with Recurrent Neural Networks", 2012, which draws what the gates of an
LSTM unit do to keep a value: the input gate opens once, the forget gate stays open, the output gate opens when asked.

| who | network | result |
|---|---|---|
| Graves 2012 | one LSTM unit | a drawing, without figures |

How ours differs: the unit is trained to do it, and its gates are computed. Flags are drawn up to 0.3 from 0 and 1, so
that gates learn to be fully open or closed. Solved is a squared error below 0.0003; always to answer 0 has 0.035.

Legend: B batch, T time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from training.config import Config
from training.examples.examples import TEST, VALIDATION, Answers, Examples, generator
from training.examples.task import ExamplesTask, Goal
from training.recipes import figure
from training.task import Feature, Signature

if TYPE_CHECKING:
    from torch import Tensor

SIGNATURE = Signature(
    description="Remembers the value of the last step whose write flag was set; gives it where the read flag is set.",
    inputs=(Feature("value"), Feature("write"), Feature("read")),
    outputs=(Feature("recalled"),),
)
# Always to answer 0 has 0.035.
GOAL = Goal("mean_squared_error", 0.0003, higher=False)
HELD_OUT = 512


@dataclass(frozen=True, kw_only=True)
class Recall(Config):
    """Settings of the recall task."""

    recipe: ClassVar[str] = "recall"

    length: int = 20
    """Length of a training sequence. [steps]"""
    write_rate: float = 0.15
    """Share of the steps that write."""
    read_rate: float = 0.15
    """Share of the steps that read."""
    flag_noise: float = 0.3
    """Flags are drawn up to this far from 0 and 1: only a gate that is fully open or closed is blind to it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("length", self.length >= 2, "must be at least 2")
        for name in ("write_rate", "read_rate"):
            self.require(name, 0 < getattr(self, name) < 1, "must lie between 0 and 1")
        self.require("flag_noise", 0 <= self.flag_noise < 0.5, "must lie from 0 to below 0.5")

    def task(self) -> ExamplesTask:
        test = draw(self, TEST, HELD_OUT)
        return ExamplesTask(
            signature=SIGNATURE,
            kind="numbers",
            draw=lambda step: draw(self, step, self.batch),
            validation=draw(self, VALIDATION, HELD_OUT),
            test=test,
            goal=GOAL,
            baselines={"always 0": Answers(torch.zeros_like(test.y), test.y).figures("numbers")},
            shown=figure.draw,
        )


def draw(config: Recall, step: int, sequences: int) -> Examples:
    """The sequences of one step: a function of the seed and the step's number."""
    random = generator(config.seed, step)
    shape = (sequences, config.length)
    value_BT = torch.rand(shape, generator=random) * 2 - 1
    write_BT = torch.rand(shape, generator=random) < config.write_rate
    read_BT = torch.rand(shape, generator=random) < config.read_rate
    noise_2BT = torch.rand((2, *shape), generator=random) * config.flag_noise
    x_BT3 = torch.stack([value_BT, blur(write_BT, noise_2BT[0]), blur(read_BT, noise_2BT[1])], dim=-1)
    y_BT1 = targets(value_BT, write_BT, read_BT)[..., None]
    return Examples(x_BT3, y_BT1, torch.ones(shape, dtype=torch.bool))


def blur(flag_BT: Tensor, noise_BT: Tensor) -> Tensor:
    """A set flag somewhat below 1, an unset one somewhat above 0."""
    return torch.where(flag_BT, 1 - noise_BT, noise_BT)


def targets(value_BT: Tensor, write_BT: Tensor, read_BT: Tensor) -> Tensor:
    """The last written value where read is set, 0 elsewhere and before the first write, [B, T].

    A step that writes and reads gives the value that it writes.
    """
    now_T = torch.arange(value_BT.shape[1])
    last_BT = torch.where(write_BT, now_T, -1).cummax(dim=1).values
    written_BT = value_BT.gather(1, last_BT.clamp(min=0)) * (last_BT >= 0)
    return written_BT * read_BT
