"""Text: after each character of Shakespeare, how likely is each character to be the next?

Paper: Karpathy, "The Unreasonable Effectiveness of Recurrent Neural Networks", 2015, for the idea; Bai, Kolter & Koltun
2018 for figures, of other texts: bits per character depend on the text.

| who | network | text | bits a character |
|---|---|---|---|
| Bai, Kolter & Koltun 2018 | LSTM / GRU / RNN, 3 million weights | Penn Treebank | 1.36 / 1.37 / 1.48 |
| Bai, Kolter & Koltun 2018 | LSTM / GRU / RNN, 5 million weights | text8 | 1.50 / 1.53 / 1.69 |

How ours differs: the plays and poems in one file of 5 million characters, the last twentieth held out; a small network
and minutes of training. At that budget gates have little edge over a plain RNN; they pay with longer training.

`examples/write_text.py` writes text with the served model.

Legend: N characters, B windows, T characters of a window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from training.config import Config
from training.errors import DataError
from training.examples.examples import Examples, answer, generator
from training.examples.task import ExamplesTask, Goal
from training.lookup import Lookup
from training.recipes import datafile
from training.task import Feature, Signature

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

FILE = datafile.FOLDER / "shakespeare.txt.gz"
VALIDATION_SHARE, TEST_SHARE = 0.01, 0.05
# Held-out text is scored in rows of this many characters, and no more rows than these: a second of work.
ROW, ROWS = 500, 60


@dataclass(frozen=True, kw_only=True)
class Text(Config):
    """Settings of the text model."""

    recipe: ClassVar[str] = "text"

    data: Path = FILE
    """The text, a gzipped ASCII file."""
    window: int = 80
    """Characters of a training window. [characters]"""
    burn_in: int = 10
    """Characters at the start of a window that are not scored, while the state settles. [characters]"""
    width: int = 32
    """Numbers that a character is turned into before the recurrence."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("width", self.width >= 1, "must be at least 1")
        self.require("burn_in", self.burn_in >= 0, "must be at least 0")
        self.require("window", self.window > self.burn_in, f"must be above --burn-in, {self.burn_in}")

    def task(self) -> ExamplesTask:
        read = datafile.read(self.data)
        symbols = sorted(set(read.text))
        code_N = codes(read.text, symbols)
        training_N, validation_N, test_N = cut(code_N)
        if len(test_N) < 2 * ROW or len(validation_N) < 2 * ROW:
            raise DataError(f"{self.data} is too short: {len(code_N)} characters")
        test = rows_of(test_N)
        return ExamplesTask(
            signature=signature(symbols),
            kind="classes",
            draw=windows(self, training_N),
            validation=rows_of(validation_N),
            test=test,
            goal=Goal("bits_per_character", 2.45, higher=False),
            baselines={"letter frequencies": {"bits_per_character": frequencies(training_N, test)}},
            data=read.data,
            notes=(f"{len(code_N)} characters, {len(symbols)} symbols; the last {TEST_SHARE:.0%} are the test",),
            scaling=Lookup(len(symbols) + 1, self.width),
            more=lambda network: {"bits_per_character": bits(network, test)},
        )


def signature(symbols: list[str]) -> Signature:
    """The number of a character in, a score for each character out. 0 stands for one that was never seen."""
    return Signature(
        description="Scores each character as the next one. An input is a character's place among the outputs, from 1.",
        inputs=(Feature("character", categories=("", *symbols)),),
        outputs=tuple(Feature(symbol) for symbol in symbols),
        classes=tuple(symbols),
    )


def codes(text: str, symbols: list[str]) -> Tensor:
    """The number of each character among the symbols, from 0, [N]."""
    table = np.zeros(128, dtype=np.int64)
    table[[ord(symbol) for symbol in symbols]] = np.arange(len(symbols))
    return torch.from_numpy(table[np.frombuffer(text.encode("ascii"), dtype=np.uint8)])


def cut(code_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Training, validation and test, one after the other in the text."""
    test, validation = (int(len(code_N) * share) for share in (TEST_SHARE, VALIDATION_SHARE))
    start, end = len(code_N) - test - validation, len(code_N) - test
    return code_N[:start], code_N[start:end], code_N[end:]


def follow(code_BT: Tensor, burn_in: int) -> Examples:
    """Windows with one more character than steps: each step is to score the character that follows."""
    scored_BT = (torch.arange(code_BT.shape[1] - 1) >= burn_in).expand(len(code_BT), -1)
    return Examples(code_BT[:, :-1, None].float() + 1, code_BT[:, 1:], scored_BT)


def windows(config: Text, code_N: Tensor) -> Callable[[int], Examples]:
    """Draws windows from anywhere in the text."""

    def draw(step: int) -> Examples:
        random = generator(config.seed, step)
        start_B1 = torch.randint(len(code_N) - config.window, (config.batch, 1), generator=random)
        return follow(code_N[start_B1 + torch.arange(config.window + 1)], config.burn_in)

    return draw


def rows_of(code_N: Tensor) -> Examples:
    """Held-out text in rows, taken evenly from all of it."""
    start_B = torch.linspace(0, len(code_N) - ROW - 1, min(ROWS, len(code_N) // ROW)).long()
    return follow(code_N[start_B[:, None] + torch.arange(ROW + 1)], 0)


def bits(network: nn.Module, examples: Examples) -> float:
    return answer(network, examples).loss("classes").item() / math.log(2)


def frequencies(training_N: Tensor, test: Examples) -> float:
    """Bits a character where only the frequency of each character is known."""
    count_S = training_N.bincount(minlength=int(test.y.max()) + 1).double() + 1
    return -(count_S / count_S.sum()).log2()[test.y[test.scored_BT]].mean().item()
