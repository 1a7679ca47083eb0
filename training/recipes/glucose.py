"""Glucose: a sensor under the skin is read every five minutes; how much will it be in half an hour and in an hour?

Paper: Martinsson et al., "Blood Glucose Prediction with Variance Estimation Using Recurrent Neural Networks", 2020: an
LSTM from the glucose history alone, up to an hour ahead, judged by the root mean square error, as we do.

| who | people | 30 minutes, mg/dL | 60 minutes, mg/dL |
|---|---|---|---|
| Martinsson et al. 2020 | six of OhioT1DM, which may not be copied | as good as the best of its time | |

How ours differs: one person's record of seven months, public domain, with gaps: after one of more than seven minutes a
new sequence begins, a missing sensor current is the one last measured with a flag set, and of two readings within two
minutes the second is left out. Three slices of the record, one after the other, are training, validation and test;
the splits of tables are not used: they are of whole streams, and these are of pieces of one length. Beside them stand
two forecasts: nothing changes, and the present trend goes on.

Legend: N readings, B pieces, T readings of a piece, F features, O horizons.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from training.config import Config
from training.errors import DataError
from training.examples.examples import Examples, answer
from training.examples.task import ExamplesTask, Goal
from training.recipes import datafile
from training.scaling import Scaling, standardise
from training.task import Feature, Signature

if TYPE_CHECKING:
    from torch import Tensor, nn

FILE = datafile.FOLDER / "cgm.csv.gz"
# Readings ahead, of five minutes each; and how many readings the trend is taken from.
HORIZONS = {"30min": 6, "60min": 12}
LONGEST, TREND = max(HORIZONS.values()), 3
FEATURES = ("isig", "isig_missing", "glucose", "minute_of_day")
GLUCOSE, MINUTE_OF_DAY = FEATURES.index("glucose"), FEATURES.index("minute_of_day")
DAY = 24 * 60
UNITS = ("nA", "", "mg/dL", "min")
DOUBLE, GAP = 120, 420  # seconds
SIGNATURE = Signature(
    description="Forecasts glucose 30 and 60 minutes ahead from a sensor that is read every 5 minutes.",
    inputs=tuple(Feature(name, unit) for name, unit in zip(FEATURES, UNITS, strict=True)),
    outputs=tuple(Feature(f"glucose_{name}", "mg/dL") for name in HORIZONS),
)


@dataclass(frozen=True, kw_only=True)
class Glucose(Config):
    """Settings of the glucose task."""

    recipe: ClassVar[str] = "glucose"

    data: Path = FILE
    """The record, a gzipped CSV file with the columns isig, datetime and glucose."""
    window: int = 144
    """Readings of a piece to learn from. [readings of 5 minutes]"""
    burn_in: int = 12
    """Readings at the start of a piece that are not scored, while the state settles. [readings of 5 minutes]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("burn_in", self.burn_in >= TREND, f"must be at least {TREND}")
        self.require("window", self.window > self.burn_in, f"must be above --burn-in, {self.burn_in}")

    def task(self) -> ExamplesTask:
        read = datafile.read(self.data)
        record = load(read)
        cut = [int(len(record.x_NF) * share) for share in (0.8, 0.9)]
        spans = (slice(None, cut[0]), slice(cut[0], cut[1]), slice(cut[1], None))
        training, validation, test = (pieces(self, record, span) for span in spans)

        return ExamplesTask(
            signature=SIGNATURE,
            kind="numbers",
            draw=lambda step: training.drawn(self.seed, step, self.batch),
            validation=validation,
            test=test,
            goal=Goal("rmse_30min", 23.0, higher=False),
            baselines=baselines(test),
            data=read.data,
            notes=(
                f"{record.doubles} readings within {DOUBLE} s of another left out, {record.missing} currents missing",
                f"pieces of training / validation / test, by time: {len(training)} / {len(validation)} / {len(test)}",
            ),
            scaling=scale(training),
            more=lambda network: errors(network, test),
        )


@dataclass(frozen=True)
class Record:
    """Readings in their order; `segment_N` counts up by one after each gap."""

    x_NF: Tensor
    segment_N: Tensor
    doubles: int
    missing: int


def load(read: datafile.DataFile) -> Record:
    """The readings of the file.

    Raises:
        DataError: a column is missing, or a value is not what it should be.
    """
    rows: list[tuple[float, ...]] = []
    times: list[datetime] = []
    doubles = missing = 0
    isig = 0.0
    for number, row in enumerate(csv.DictReader(io.StringIO(read.text)), 2):
        try:
            time, absent, glucose = datetime.fromisoformat(row["datetime"]), row["isig"] == "nil", float(row["glucose"])
            isig = isig if absent else float(row["isig"])
        except (KeyError, ValueError) as error:
            raise DataError(f"{read.name}, line {number}: {type(error).__name__}: {error}") from error
        if times and (time - times[-1]).total_seconds() < DOUBLE:
            doubles += 1
            continue
        missing += absent
        times.append(time)
        rows.append((isig, float(absent), glucose, float(time.hour * 60 + time.minute)))
    breaks = [0, *((later - earlier).total_seconds() > GAP for earlier, later in pairwise(times))]
    return Record(torch.tensor(rows), torch.tensor(breaks).cumsum(0), doubles, missing)


def pieces(config: Glucose, record: Record, span: slice) -> Examples:
    """A span of the record in pieces of `window` readings without a gap; what lies after a piece's end is its future.

    A reading is scored if the piece has run for `burn_in` readings and its future lies in the span, with no gap before.
    """
    x_NF, segment_N = record.x_NF[span], record.segment_N[span]
    futures, length = len(x_NF) - LONGEST, config.window
    if futures < length:
        raise config.error("window", f"is longer than the {futures} readings of a part of the record")
    row_BT = torch.arange(futures // length)[:, None] * length + torch.arange(length)
    y_BTO = torch.stack([x_NF[row_BT + ahead, GLUCOSE] for ahead in HORIZONS.values()], dim=-1)
    whole_BT = segment_N[row_BT[:, :1]] == segment_N[row_BT + LONGEST]
    return Examples(x_NF[row_BT], y_BTO, whole_BT & (torch.arange(length) >= config.burn_in))


def scale(training: Examples) -> Scaling:
    """Standard features, the time of day as a sine and cosine, and answers as a change from the present value."""
    rows_NF, later_NO = training.x_BTF[training.scored_BT], training.y[training.scored_BT]
    turn_FA = torch.zeros(len(FEATURES), 2)
    turn_FA[MINUTE_OF_DAY] = 2 * torch.pi / DAY
    base_FO = torch.zeros(len(FEATURES), len(HORIZONS))
    base_FO[GLUCOSE] = 1
    return replace(
        standardise(rows_NF, len(HORIZONS)),
        turn_FA=turn_FA,
        phase_A=torch.tensor([0, torch.pi / 2]),
        base_FO=base_FO,
        spread_O=(later_NO - rows_NF[:, GLUCOSE, None]).abs().mean(dim=0),
    )


def errors(network: nn.Module, examples: Examples) -> dict[str, float]:
    """Root mean square error in mg/dL for each horizon."""
    answers = answer(network, examples)
    return rmse(answers.found_NO, answers.right_N)


def rmse(found_NO: Tensor, right_NO: Tensor) -> dict[str, float]:
    """Root mean square error for each horizon, by name."""
    value_O = (found_NO - right_NO).square().mean(dim=0).sqrt()
    return {f"rmse_{name}": value for name, value in zip(HORIZONS, value_O.tolist(), strict=True)}


def baselines(test: Examples) -> dict[str, dict[str, float]]:
    """Nothing changes; the change of the last quarter of an hour goes on."""
    now_BT = test.x_BTF[..., GLUCOSE]
    change_BT = (now_BT - now_BT.roll(TREND, dims=1)) / TREND
    ahead_O = torch.tensor(list(HORIZONS.values()))
    right_NO = test.y[test.scored_BT]
    unchanged_NO = now_BT[test.scored_BT][:, None].expand_as(right_NO)
    trend_NO = unchanged_NO + change_BT[test.scored_BT][:, None] * ahead_O
    return {"nothing changes": rmse(unchanged_NO, right_NO), "the trend goes on": rmse(trend_NO, right_NO)}
