"""Temporal order: two symbols, X or Y each, lie far apart in a row of others; which came, and in which order?

Paper: Hochreiter & Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997, experiment 6a; and Pascanu,
Mikolov & Bengio, "On the difficulty of training recurrent neural networks", 2013.

| who | network | length | result |
|---|---|---|---|
| Hochreiter & Schmidhuber 1997 | LSTM, 156 weights | 100 to 110 | 1 of 2,560 wrong after 31,390 sequences |
| Pascanu, Mikolov & Bengio 2013 | tanh RNN of 50, up to 5 million updates | 50 to 200 | no errors, to length 5,000 |

How ours differs: fixed length, 100; the marks at T/10..T/5 and T/2..3T/5; a class is right if its score is the highest
(1997 wanted every error below 0.3); Adam with batches of 50 and chrono initialisation. Solved is 99.9 % of 1,000.

Legend: B sequences, T time, S symbols.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import one_hot

from training.config import Config
from training.examples.examples import TEST, VALIDATION, Examples, at_each_step, generator, last_step
from training.examples.task import ExamplesTask, Goal
from training.lookup import OneHot
from training.task import Feature, Signature

SYMBOLS = ("E", "B", "a", "b", "c", "d", "X", "Y")
START, END, FIRST_OTHER, OTHERS, FIRST_MARK = 0, 1, 2, 4, 6
ORDERS = ("XX", "XY", "YX", "YY")
SIGNATURE = Signature(
    description="Says in which order two symbols X or Y came; the scores stand in the answer to the last step.",
    inputs=tuple(Feature(symbol) for symbol in SYMBOLS),
    outputs=tuple(Feature(order) for order in ORDERS),
    classes=ORDERS,
)
GOAL = Goal("accuracy", 0.999, higher=True)
HELD_OUT = 1000


@dataclass(frozen=True, kw_only=True)
class TemporalOrder(Config):
    """Settings of the temporal-order task."""

    recipe: ClassVar[str] = "temporal-order"

    length: int = 100
    """Length of a sequence. [steps]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("length", self.length >= 10, "must be at least 10")

    def task(self) -> ExamplesTask:
        return ExamplesTask(
            signature=SIGNATURE,
            kind="classes",
            draw=lambda step: draw(self, step, self.batch),
            validation=draw(self, VALIDATION, HELD_OUT),
            test=draw(self, TEST, HELD_OUT),
            goal=GOAL,
            scaling=OneHot(len(SYMBOLS)),
            baselines={"without memory": {"accuracy": 0.25}},
        )


def draw(config: TemporalOrder, step: int, sequences: int) -> Examples:
    """E first, B last, an X or Y early, another one after the middle, and others between them."""
    random, length = generator(config.seed, step), config.length
    symbol_BT = torch.randint(FIRST_OTHER, FIRST_OTHER + OTHERS, (sequences, length), generator=random)
    symbol_BT[:, 0], symbol_BT[:, -1] = START, END
    early_B = torch.randint(max(1, length // 10), length // 5 + 1, (sequences,), generator=random)
    late_B = torch.randint(length // 2, length * 3 // 5 + 1, (sequences,), generator=random)
    mark_B2 = torch.randint(2, (sequences, 2), generator=random)
    row_B = torch.arange(sequences)
    symbol_BT[row_B, early_B] = FIRST_MARK + mark_B2[:, 0]
    symbol_BT[row_B, late_B] = FIRST_MARK + mark_B2[:, 1]
    order_B = 2 * mark_B2[:, 0] + mark_B2[:, 1]
    x_BTS = one_hot(symbol_BT, len(SYMBOLS)).float()
    return Examples(x_BTS, at_each_step(order_B, length), last_step(sequences, length))
