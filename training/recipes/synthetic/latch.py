"""Latch: the first value says +1 or -1, noise follows; the sign is to be said at the end.

Paper: Bengio, Simard & Frasconi 1994; experiment 3a of Hochreiter & Schmidhuber 1997 is a form of it, of which they say
themselves that guessing weights at random solves it faster than any method published. It shows no advantage of gates.

How ours differs: the noise has a deviation of 0.2, and lies on the first step too (1997: variance 0.2, the
first steps clean).

Legend: B sequences, T time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from training.config import Config
from training.examples.examples import TEST, VALIDATION, Examples, at_each_step, generator, last_step
from training.examples.task import ExamplesTask, Goal
from training.task import Feature, Signature

SIGNATURE = Signature(
    description="Says the sign of the first value; the scores stand in the answer to the last step.",
    inputs=(Feature("value"),),
    outputs=(Feature("minus"), Feature("plus")),
    classes=("minus", "plus"),
)
NOISE = 0.2
HELD_OUT = 1000


@dataclass(frozen=True, kw_only=True)
class Latch(Config):
    """Settings of the latch task."""

    recipe: ClassVar[str] = "latch"

    length: int = 100
    """Length of a sequence. [steps]"""

    def task(self) -> ExamplesTask:
        return ExamplesTask(
            signature=SIGNATURE,
            kind="classes",
            draw=lambda step: draw(self, step, self.batch),
            validation=draw(self, VALIDATION, HELD_OUT),
            test=draw(self, TEST, HELD_OUT),
            goal=Goal("accuracy", 0.999, higher=True),
            baselines={"without memory": {"accuracy": 0.5}},
        )


def draw(config: Latch, step: int, sequences: int) -> Examples:
    """One bit, and noise on every step."""
    random = generator(config.seed, step)
    bit_B = torch.randint(2, (sequences,), generator=random)
    value_BT = NOISE * torch.randn((sequences, config.length), generator=random)
    value_BT[:, 0] += 2 * bit_B - 1
    return Examples(value_BT[..., None], at_each_step(bit_B, config.length), last_step(sequences, config.length))
