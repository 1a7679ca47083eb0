"""Adding: two numbers of a long row are marked; their sum is to be said at the end.

Paper: Hochreiter & Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997, experiment 4; in the form that
Arjovsky, Shah & Bengio (2016) and Tallec & Ollivier (2018) use.

| who | network | length | result |
|---|---|---|---|
| Hochreiter & Schmidhuber 1997 | LSTM without forget gate, 93 weights | 100 | 1 of 2,560 wrong after 74,000 sequences |
| Bai, Kolter & Koltun 2018 | LSTM / GRU / RNN, 70,000 weights | 600 | loss 0.164 / 5.3e-5 / 0.177 |
| Tallec & Ollivier 2018 | LSTM of 128, chrono initialisation | 750 | solved, 7 times faster than without |

How ours differs: values in [0, 1] and a plain sum, as in the later papers (1997 drew from [-1, 1] and halved the sum);
fixed length, 100; Adam with batches of 50 and chrono initialisation. Solved is a mean squared error below 0.005 (a
network without memory has 1/6). By the criterion of 1997 one would count sequences.

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
    description="Adds the two values whose mark is set; the sum stands in the answer to the last step.",
    inputs=(Feature("value"), Feature("mark")),
    outputs=(Feature("sum"),),
)
GOAL = Goal("mean_squared_error", 0.005, higher=False)
# The variance of a sum of two numbers drawn from [0, 1]: always to answer 1 is this far off.
WITHOUT_MEMORY = 1 / 6
HELD_OUT = 1000


@dataclass(frozen=True, kw_only=True)
class Adding(Config):
    """Settings of the adding task."""

    recipe: ClassVar[str] = "adding"

    length: int = 100
    """Length of a sequence. [steps]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("length", self.length >= 2, "must be at least 2")

    def task(self) -> ExamplesTask:
        return ExamplesTask(
            signature=SIGNATURE,
            kind="numbers",
            draw=lambda step: draw(self, step, self.batch),
            validation=draw(self, VALIDATION, HELD_OUT),
            test=draw(self, TEST, HELD_OUT),
            goal=GOAL,
            baselines={"without memory": {"mean_squared_error": WITHOUT_MEMORY, "mean_absolute_error": 1 / 3}},
        )


def draw(config: Adding, step: int, sequences: int) -> Examples:
    """One mark in the first half, one in the second."""
    random, length = generator(config.seed, step), config.length
    value_BT = torch.rand((sequences, length), generator=random)
    first_B = torch.randint(length // 2, (sequences,), generator=random)
    second_B = torch.randint(length // 2, length, (sequences,), generator=random)
    mark_BT = torch.zeros_like(value_BT)
    row_B = torch.arange(sequences)
    mark_BT[row_B, first_B] = mark_BT[row_B, second_B] = 1
    sum_B = (value_BT * mark_BT).sum(dim=1)
    x_BT2 = torch.stack([value_BT, mark_BT], dim=-1)
    return Examples(x_BT2, at_each_step(sum_B[:, None], length), last_step(sequences, length))
