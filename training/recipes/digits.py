"""Digits, pixel by pixel: an image of 8 x 8 comes as a row of 64 grey values; which digit was it?

Paper: Le, Jaitly & Hinton, "A Simple Way to Initialize Recurrent Networks of Rectified Linear Units", 2015, made images
read pixel by pixel a test of memory; Bai, Kolter & Koltun 2018 compare networks on it.

| who | network | images | right |
|---|---|---|---|
| Bai, Kolter & Koltun 2018 | LSTM, 70,000 weights | MNIST, 784 pixels | 87.2 % |
| Bai, Kolter & Koltun 2018 | GRU, 70,000 weights | MNIST, 784 pixels | 96.2 % |
| Bai, Kolter & Koltun 2018 | RNN, 70,000 weights | MNIST, 784 pixels | 21.5 % |

How ours differs: the small digits of the UCI repository (1,797 images of 8 x 8), so 64 steps instead of 784 and minutes
instead of hours; one image in four is the test, the same share of each digit. Chrono initialisation does not help here.

Legend: N images, T pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from training.config import Config
from training.errors import DataError
from training.examples.examples import Examples, at_each_step, last_step
from training.examples.task import ExamplesTask, Goal
from training.recipes import datafile
from training.task import Feature, Signature

FILE = datafile.FOLDER / "digits.csv.gz"
PIXELS, DIGITS, BRIGHTEST = 64, 10, 16
SIGNATURE = Signature(
    description="Tells a digit whose 64 pixels come row by row; the scores stand in the answer to the last one.",
    inputs=(Feature("brightness"),),
    outputs=tuple(Feature(str(digit)) for digit in range(DIGITS)),
    classes=tuple(str(digit) for digit in range(DIGITS)),
)
# One in four images is the test, one in twelve of all the validation.
PARTS = 12
TEST_PARTS, VALIDATION_PARTS = (0, 4, 8), (1,)


@dataclass(frozen=True, kw_only=True)
class Digits(Config):
    """Settings of the digits."""

    recipe: ClassVar[str] = "digits"

    data: Path = FILE
    """The images, a gzipped CSV file: 64 grey values from 0 to 16 and the digit in each line."""

    def task(self) -> ExamplesTask:
        read = datafile.read(self.data)
        images, part_N = load(read, self.data)
        training, validation, test = (images[torch.isin(part_N, torch.tensor(parts))] for parts in split())

        return ExamplesTask(
            signature=SIGNATURE,
            kind="classes",
            draw=lambda step: training.drawn(self.seed, step, self.batch),
            validation=validation,
            test=test,
            goal=Goal("accuracy", 0.92, higher=True),
            baselines={"most frequent": {"accuracy": (test.y[:, -1].bincount().max() / len(test)).item()}},
            data=read.data,
            notes=(f"images of training / validation / test: {len(training)} / {len(validation)} / {len(test)}",),
        )


def split() -> tuple[list[int], list[int], list[int]]:
    """The parts that are for training, validation and test."""
    rest = [part for part in range(PARTS) if part not in TEST_PARTS + VALIDATION_PARTS]
    return rest, list(VALIDATION_PARTS), list(TEST_PARTS)


def load(read: datafile.DataFile, path: Path) -> tuple[Examples, torch.Tensor]:
    """The images, and for each one of `PARTS` parts, [N]: the images of a digit are dealt to the parts in turn."""
    try:
        rows = np.array([line.split(",") for line in read.text.split()], dtype=np.float32)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    if rows.ndim != 2 or rows.shape[1] != PIXELS + 1:
        raise DataError(f"{path}: expected {PIXELS} grey values and a digit in each line")
    pixel_NT, digit_N = torch.from_numpy(rows[:, :PIXELS] / BRIGHTEST), torch.from_numpy(rows[:, PIXELS]).long()
    part_N = torch.empty_like(digit_N)
    for digit in range(DIGITS):
        of_digit = digit_N == digit
        part_N[of_digit] = torch.arange(int(of_digit.sum())) % PARTS
    return Examples(pixel_NT[..., None], at_each_step(digit_N, PIXELS), last_step(len(rows), PIXELS)), part_N
