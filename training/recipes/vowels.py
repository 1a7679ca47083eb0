"""Vowels: nine men say two vowels; twelve numbers for each hundredth of a second; who spoke?

Paper: Kudo, Toyama & Shimbo, "Multidimensional curve classification using passing-through regions", Pattern Recognition
Letters 20, 1999.

| who | method | right, of 370 |
|---|---|---|
| Kudo, Toyama & Shimbo 1999 | passing-through regions; a hidden Markov model | not read by us |

How ours differs: the same 270 sequences to learn from and 370 to be tested on; one in nine of the 270 decides when to
stop. Sequences are 7 to 29 steps long, and the answer to the last one counts. So short a lag needs no gates: the plain
RNN is nearly as good.

Legend: B sequences, T time, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from training.config import Config
from training.errors import DataError
from training.examples.examples import Examples, at_each_step, padded, steps_of
from training.examples.task import ExamplesTask, Goal
from training.recipes import datafile
from training.scaling import standardise
from training.task import Feature, Signature

if TYPE_CHECKING:
    from torch import Tensor

TRAINING_FILE = datafile.FOLDER / "japanese_vowels_train.ts.gz"
TEST_FILE = datafile.FOLDER / "japanese_vowels_test.ts.gz"
CHANNELS, SPEAKERS = 12, 9
SIGNATURE = Signature(
    description="Tells which of nine men speaks; the scores get better with every step of a vowel.",
    inputs=tuple(Feature(f"cepstrum_{number}") for number in range(1, CHANNELS + 1)),
    outputs=tuple(Feature(f"speaker_{number}") for number in range(1, SPEAKERS + 1)),
    classes=tuple(f"speaker_{number}" for number in range(1, SPEAKERS + 1)),
)
VALIDATION_EVERY = 9


@dataclass(frozen=True, kw_only=True)
class Vowels(Config):
    """Settings of the vowels."""

    recipe: ClassVar[str] = "vowels"

    data: Path = TRAINING_FILE
    """The sequences to learn from, a gzipped .ts file; those of the test lie beside it."""

    def task(self) -> ExamplesTask:
        read, read_test = datafile.read(self.data), datafile.read(self.data.with_name(TEST_FILE.name))
        known, test = load(read), load(read_test)
        aside_B = torch.arange(len(known)) % VALIDATION_EVERY == 0
        training = known[~aside_B]

        return ExamplesTask(
            signature=SIGNATURE,
            kind="classes",
            draw=lambda step: training.drawn(self.seed, step, self.batch),
            validation=known[aside_B],
            test=test,
            goal=Goal("accuracy", 0.93, higher=True),
            baselines={"most frequent": {"accuracy": (test.y[:, 0].bincount().max() / len(test)).item()}},
            data={"source": f"{read.name}, {read_test.name}", "sha256": read.sha256 + read_test.sha256},
            notes=(f"sequences of training / validation / test: {len(training)} / {aside_B.sum()} / {len(test)}",),
            scaling=standardise(rows_of(training), SPEAKERS),
        )


def rows_of(examples: Examples) -> Tensor:
    """Every step that a sequence has, [N, F]; what came after the scored one was filled up."""
    had_BT = examples.scored_BT.flip(1).cumsum(dim=1).flip(1) > 0
    return examples.x_BTF[had_BT]


def load(read: datafile.DataFile) -> Examples:
    """The sequences of a .ts file: channels parted by colons, numbers by commas, the class behind the last colon.

    Raises:
        DataError: a line is no sequence of twelve channels with a speaker.
    """
    rows, speakers = [], []
    for number, line in enumerate(read.text.splitlines(), 1):
        if not line or line[0] in "#@":
            continue
        *channels, speaker = line.split(":")
        try:
            rows.append(torch.tensor([[float(value) for value in channel.split(",")] for channel in channels]).T)
            speakers.append(int(speaker) - 1)
        except ValueError as error:
            raise DataError(f"{read.name}, line {number}: {error}") from error
        if len(channels) != CHANNELS or not 0 <= speakers[-1] < SPEAKERS:
            raise DataError(f"{read.name}, line {number}: expected {CHANNELS} channels and a speaker up to {SPEAKERS}")
    x_BTF, lengths_B = padded(rows)
    has_BT = steps_of(lengths_B)
    last_BT = has_BT & ~torch.cat([has_BT[:, 1:], torch.zeros_like(has_BT[:, :1])], dim=1)
    return Examples(x_BTF, at_each_step(torch.tensor(speakers), x_BTF.shape[1]), last_BT)
