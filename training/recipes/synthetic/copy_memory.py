"""Copy: ten symbols, then a long silence, then a signal, at which the ten are to be said in their order.

Paper: Hochreiter & Schmidhuber 1997 pose it; the form is that of Arjovsky, Shah & Bengio, "Unitary Evolution Recurrent
Neural Networks", 2016: ten symbols of eight, T - 1 blanks, a signal, ten blanks.

| who | network | silence | result |
|---|---|---|---|
| Arjovsky, Shah & Bengio 2016 | a network without memory | T | cross entropy 10 ln 8 / (T + 20) over all steps |
| Bai, Kolter & Koltun 2018 | LSTM / GRU / RNN, 16,000 weights | 1000 | loss 0.0204 / 0.0197 / 0.0202, no memory |
| Bai, Kolter & Koltun 2018 | LSTM / GRU, 10,000 weights | | recall under 20 % for T < 50 / T < 200 |

How ours differs: only the ten answers after the signal are scored, so that saying nothing earns nothing; the silence is
short, to be trained in minutes. It is hard for gated networks: ten symbols must be kept apart by their places, and with
so short a silence a plain RNN does better than an LSTM. A network without memory recalls 1 in 8.

Legend: B sequences, T time, S symbols of the input, K symbols to recall.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import one_hot

from training.config import Config
from training.examples.examples import TEST, VALIDATION, Examples, generator
from training.examples.task import ExamplesTask, Goal
from training.lookup import OneHot
from training.task import Feature, Signature

LETTERS = tuple("abcdefgh")
BLANK, SIGNAL = len(LETTERS), len(LETTERS) + 1
SIGNATURE = Signature(
    description="Says the letters that came at the start, in their order, after the signal; one score for each letter.",
    inputs=tuple(Feature(name) for name in (*LETTERS, "blank", "signal")),
    outputs=tuple(Feature(letter) for letter in LETTERS),
    classes=LETTERS,
)
HELD_OUT = 500


@dataclass(frozen=True, kw_only=True)
class CopyMemory(Config):
    """Settings of the copy task."""

    recipe: ClassVar[str] = "copy"

    silence: int = 10
    """Steps from the last letter to the signal. [steps]"""
    letters: int = 10
    """Letters to be kept. [letters]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("silence", "letters"):
            self.require(name, getattr(self, name) >= 1, "must be at least 1")

    def task(self) -> ExamplesTask:
        return ExamplesTask(
            signature=SIGNATURE,
            kind="classes",
            draw=lambda step: draw(self, step, self.batch),
            validation=draw(self, VALIDATION, HELD_OUT),
            test=draw(self, TEST, HELD_OUT),
            goal=Goal("accuracy", 0.9, higher=True),
            scaling=OneHot(len(SIGNATURE.inputs)),
            baselines={"without memory": {"accuracy": 1 / len(LETTERS)}},
        )


def draw(config: CopyMemory, step: int, sequences: int) -> Examples:
    """Letters, silence, signal, and as many blanks as there are letters, at which they are to be said."""
    random, kept = generator(config.seed, step), config.letters
    letter_BK = torch.randint(len(LETTERS), (sequences, kept), generator=random)
    length = kept + config.silence + kept
    symbol_BT = torch.full((sequences, length), BLANK)
    symbol_BT[:, :kept] = letter_BK
    symbol_BT[:, length - kept - 1] = SIGNAL
    y_BT = torch.zeros_like(symbol_BT)
    y_BT[:, length - kept :] = letter_BK
    scored_BT = (torch.arange(length) >= length - kept).expand(sequences, -1)
    return Examples(one_hot(symbol_BT, SIGNAL + 1).float(), y_BT, scored_BT)
