"""From a row in raw units to what the recurrence gets: missing values filled, numbers standardised, cycles as waves.

A missing number is the one last measured; that it is missing, and for how long, are numbers of their own (GRU-D, Che et
al. 2018). `graph.py` writes the same as ONNX nodes that keep the last value as a state.
Legend: B batch, T time, F inputs, n numbers, m numbers that may be missing, C categories, A waves, E what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from training.tabular.learning.lags import LEAST, NO_LAGS, Lags, lagged

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.tabular.learning.inputs import Inputs

DAY = 86400.0
# After so many steps a time is half way from "now" to "long ago".
LONG = 8.0
SLIM = 0.225
# Numbers that differ by less than this part of their size are the same number in single precision.
ALIKE, LOWEST = 1e-7, 1e-30


@dataclass(frozen=True)
class Encoding:
    """The constants of the first nodes. Places are those of the inputs; `gappy` counts among `numbers`."""

    numbers: tuple[int, ...]
    mean_n: tuple[float, ...]
    deviation_n: tuple[float, ...]
    gappy: tuple[int, ...]
    categories: tuple[int, ...]
    sizes: tuple[int, ...]
    waves: tuple[tuple[int, float, float], ...]
    """Each: the input, turns for one of its units, and the phase in turns."""
    clock: tuple[int, ...]
    """Where days and seconds of the day are; empty where rows are one step apart."""
    step_seconds: float
    lags: int = 0
    """How many values before the last one are inputs too, of each number in `lagged`, which counts among `numbers`."""
    lagged: tuple[int, ...] = ()
    least: tuple[float, ...] = ()
    """The lowest level of each of them, where they are divided by their level; else empty."""

    @property
    def first_lag(self) -> int:
        return len(self.numbers) + 2 * len(self.gappy) + (1 if self.clock else 0) + len(self.waves)

    @property
    def inputs(self) -> int:
        """How many numbers the recurrence gets, without the embedded categories."""
        return self.first_lag + self.lags * len(self.lagged)

    @property
    def width(self) -> int:
        """E: the same with the levels, which only the last nodes read."""
        return self.inputs + len(self.least)


@dataclass(frozen=True)
class Encoded:
    """e_BTE, the categories k_BTC, and the time since the row before in steps, elapsed_BT1."""

    e_BTE: Tensor
    k_BTC: Tensor
    elapsed_BT1: Tensor


def encoding_of(inputs: Inputs, learnt_N: NDArray[np.bool_], step_seconds: float, lags: Lags = NO_LAGS) -> Encoding:
    """The constants, from the rows that are learnt from and no other."""
    numbers = [place for place, column in enumerate(inputs.columns) if column.kind == "number" and not column.cycle]
    x_Nn = inputs.x_NF[learnt_N][:, numbers].astype(np.float64)
    x_Nn = np.where(np.isnan(x_Nn).all(axis=0), 0.0, x_Nn)
    mean_n, deviation_n = np.nanmean(x_Nn, axis=0), np.nanstd(x_Nn, axis=0)
    alike_n = deviation_n <= ALIKE * np.abs(mean_n) + LOWEST  # later it may vary, and must not come out as a million
    deviation_n = np.where(alike_n, np.maximum(np.abs(mean_n), 1.0), deviation_n)
    lagged = [numbers.index(inputs.place(name)) for name in lags.names]
    least = []
    if lags.relative:  # these stay in raw units: what they are divided by depends on the series
        least = [max(LEAST * float(np.nanmean(np.abs(x_Nn[:, place]))), 1e-6) for place in lagged]
        mean_n[lagged], deviation_n[lagged] = 0.0, 1.0
    categories = inputs.places("category")
    waves = [
        (place, turn / column.cycle, phase)
        for place, column in enumerate(inputs.columns)
        if column.cycle
        for turn in range(1, column.harmonics + 1)
        for phase in (0.0, 0.25)
    ]
    return Encoding(
        tuple(numbers),
        tuple(mean_n.tolist()),
        tuple(deviation_n.tolist()),
        tuple(index for index, place in enumerate(numbers) if inputs.columns[place].missing),
        tuple(categories),
        tuple(len(inputs.columns[place].categories) for place in categories),
        tuple(waves),
        tuple(inputs.places("clock")),
        step_seconds or 1.0,
        lags.count,
        tuple(lagged),
        tuple(least),
    )


class Front(nn.Module):
    """[B, T, F] in raw units, of sequences from their first row on, to an `Encoded`."""

    mean_n: Tensor
    deviation_n: Tensor
    turn_A: Tensor
    phase_A: Tensor

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        self.encoding = encoding
        for name, values in (
            ("mean_n", encoding.mean_n),
            ("deviation_n", encoding.deviation_n),
            ("turn_A", [turn for _, turn, _ in encoding.waves]),
            ("phase_A", [phase for _, _, phase in encoding.waves]),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32))

    def forward(self, x_BTF: Tensor) -> Encoded:
        """The same as the graph's nodes, over all of the time at once."""
        encoding = self.encoding
        z_BTn = (x_BTF[..., list(encoding.numbers)] - self.mean_n) / self.deviation_n
        elapsed_BT1 = self.elapsed(x_BTF)
        parts = [z_BTn]
        if encoding.gappy:
            gappy = list(encoding.gappy)
            filled_BTm, unseen_BTm, since_BTm = fill(z_BTn[..., gappy], elapsed_BT1)
            z_BTn = z_BTn.index_copy(-1, torch.tensor(gappy), filled_BTm)
            parts = [z_BTn, unseen_BTm, squashed(since_BTm)]
        if encoding.clock:
            parts.append(squashed(elapsed_BT1))
        if encoding.waves:
            places = [place for place, _, _ in encoding.waves]
            parts.append(wave(x_BTF[..., places] * self.turn_A + self.phase_A))
        if encoding.lags:
            parts[0], lags, levels = lagged(z_BTn, elapsed_BT1, encoding)
            parts += [*lags, *levels]
        return Encoded(torch.cat(parts, dim=-1), self.categories(x_BTF), elapsed_BT1)

    def elapsed(self, x_BTF: Tensor) -> Tensor:
        """Steps since the row before: 1 where rows are one step apart, and at the first row."""
        elapsed_BT1 = torch.ones_like(x_BTF[..., :1])
        if not self.encoding.clock:
            return elapsed_BT1
        days_BT, seconds_BT = (x_BTF[..., place] for place in self.encoding.clock)
        later_BT = (days_BT[:, 1:] - days_BT[:, :-1]) * DAY + (seconds_BT[:, 1:] - seconds_BT[:, :-1])
        elapsed_BT1[:, 1:, 0] = (later_BT / self.encoding.step_seconds).clamp(min=0)
        return elapsed_BT1

    def categories(self, x_BTF: Tensor) -> Tensor:
        """Whole numbers within each table; 0 for what is missing or outside."""
        x_BTC = x_BTF[..., list(self.encoding.categories)]
        sizes_C = torch.tensor(self.encoding.sizes, dtype=torch.float32)
        known_BTC = (x_BTC >= 0) & (x_BTC < sizes_C)  # a NaN is neither
        return torch.where(known_BTC, x_BTC, 0.0).long()


def wave(turns: Tensor) -> Tensor:
    """A sine of whole turns, to 0.001: two parabolas. A true sine's last bit depends on the size of the batch."""
    part = turns - torch.floor(turns + 0.5)
    arc = 8 * part - 16 * part * part.abs()
    return SLIM * arc * arc.abs() + (1 - SLIM) * arc


def squashed(steps: Tensor) -> Tensor:
    """A time of any length as a number from 0 to below 1; no logarithm, whose last bit depends on the batch."""
    return steps / (steps + LONG)


def fill(z_BTm: Tensor, elapsed_BT1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Last value (0 before the first), 1 where it is missing, and the steps since it was measured, without a loop."""
    seen_BTm = ~z_BTm.isnan()
    now_T1 = torch.arange(z_BTm.shape[1])[:, None]
    last_BTm = torch.where(seen_BTm, now_T1, -1).cummax(dim=1).values
    filled_BTm = torch.where(last_BTm >= 0, z_BTm.nan_to_num(0.0).gather(1, last_BTm.clamp(min=0)), 0.0)
    clock_BT1 = elapsed_BT1.double().cumsum(dim=1)
    clock_BTm = clock_BT1.expand(z_BTm.shape)
    then_BTm = torch.where(last_BTm >= 0, clock_BTm.gather(1, last_BTm.clamp(min=0)), 0.0)
    return filled_BTm, (~seen_BTm).float(), (clock_BTm - then_BTm).float()
