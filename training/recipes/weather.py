"""Forecast the temperature 1, 6 and 24 hours ahead from the rows of a weather station as they come in.

Legend: N hours, B windows, T hours of a window, F features, A angles, O outputs (one for each horizon).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from training.config import Config
from training.examples.examples import generator
from training.fitting import processes
from training.fitting.device import through
from training.recipes import observations
from training.recipes.observations import FEATURES, TEMPERATURE, UNITS, Observations
from training.recipes.verdict import judge
from training.scaling import Scaling
from training.task import Feature, Signature

if TYPE_CHECKING:
    from torch import Tensor, nn

    from training.task import Report

HORIZONS = (1, 6, 24)
SIGNATURE = Signature(
    description="Forecasts the temperature in Beijing 1, 6 and 24 hours ahead from hourly weather and air quality.",
    inputs=tuple(Feature(name, unit) for name, unit in zip(FEATURES, UNITS, strict=True)),
    outputs=tuple(Feature(f"TEMP_{hours}h", "degC") for hours in HORIZONS),
)
# What goes round, and after how many of its units.
CYCLES = {"month": 12.0, "hour": 24.0}


@dataclass(frozen=True, kw_only=True)
class Weather(Config):
    """Settings of the weather task."""

    recipe: ClassVar[str] = "weather"

    data: Path = observations.FILE
    """The observations, a gzipped CSV file."""
    window: int = 168
    """Length of a training window. [hours]"""
    burn_in: int = 24
    """Hours at the start of a window that are not scored, while the state settles. [hours]"""
    training_share: float = 0.8
    """Share of the hours, the oldest, to learn from."""
    validation_share: float = 0.1
    """Share of the hours, the next ones, that decide when to stop; the rest is the test."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        super().__post_init__()
        self.require("burn_in", self.burn_in >= 0, "must be at least 0")
        self.require("window", self.window > self.burn_in, f"must be above --burn-in, {self.burn_in}")
        self.require("training_share", 0 < self.training_share < 1, "must lie between 0 and 1")
        free = 1 - self.training_share
        self.require("validation_share", 0 < self.validation_share < free, f"must lie between 0 and {free:g}")

    def task(self) -> WeatherTask:
        """The task with these settings."""
        return WeatherTask(self, observations.load(self.data))


@dataclass(frozen=True)
class Span:
    """A stretch of time: x_NF in raw units, and y_NO, the temperatures to come, all of which lie in the stretch."""

    x_NF: Tensor
    y_NO: Tensor


class WeatherTask:
    """Three spans of one long series: the past to learn from, then the validation, then the test."""

    signature = SIGNATURE

    def __init__(self, config: Weather, observed: Observations) -> None:
        self._config, self._observed = config, observed
        self.training, self.validation, self.test = split(config, observed)
        if len(self.training.y_NO) <= config.window:
            raise config.error("window", f"is longer than the {len(self.training.y_NO)} hours of training")
        self.scaling = scale(self.training)

    @property
    def data(self) -> dict[str, str]:
        """The file, by its name and content."""
        return {"source": self._config.data.name, "sha256": self._observed.sha256}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done about missing values, and how the time was split."""
        observed = self._observed
        filled = ", ".join(f"{count} of {name}" for name, count in observed.filled.items()) or "none"
        spans = (self.training, self.validation, self.test)
        hours = " / ".join(str(len(span.x_NF)) for span in spans)
        return (
            f"missing values: {filled}, each filled with the one last measured",
            f"dropped: the first {observed.dropped} hours, which have no past to fill a missing value from",
            f"split by time: {hours} hours of training / validation / test",
        )

    def loss(self, network: nn.Module, step: int) -> Tensor:
        """Mean absolute error on windows from anywhere in the training span; each begins with a state of 0."""
        config = self._config
        random = generator(config.seed, step)
        starts_B1 = torch.randint(len(self.training.y_NO) - config.window, (config.batch, 1), generator=random)
        hours_BT = starts_B1[processes.mine(config.batch)] + torch.arange(config.window)
        found_BTO = through(network, self.training.x_NF[hours_BT])
        return self._error(found_BTO, self.training.y_NO[hours_BT])[:, config.burn_in :].mean()

    def validation_loss(self, network: nn.Module) -> float:
        """Mean absolute error on the validation span as one stream, which is how the network will be used."""
        span = self.validation
        return self._error(stream(network, span), span.y_NO).mean().item()

    def report(self, network: nn.Module) -> Report:
        """The test span as one stream, beside two forecasts that need no network."""
        with torch.no_grad():
            found_NO = stream(network, self.test)
        before = len(self._observed.x_NF) - len(self.test.x_NF)
        return judge(found_NO.numpy(), self._observed.temperature_N, before, HORIZONS)

    def _error(self, found_O: Tensor, expected_O: Tensor) -> Tensor:
        """Absolute error, in units of how much the temperature usually changes over each horizon."""
        return (found_O - expected_O).abs() / self.scaling.spread_O


def stream(network: nn.Module, span: Span) -> Tensor:
    """The answers to a whole span as one sequence, [N, O], for the hours whose future lies in the span."""
    return through(network, span.x_NF[None])[0, : len(span.y_NO)]


def split(config: Weather, observed: Observations) -> tuple[Span, Span, Span]:
    """Training, validation and test, one after the other in time."""
    hours = len(observed.x_NF)
    first = int(hours * config.training_share)
    second = int(hours * (config.training_share + config.validation_share))
    if min(first, second - first, hours - second) <= max(HORIZONS):
        raise config.error("validation_share", f"leaves a span of {max(HORIZONS)} hours or less")
    spans = [span_of(observed.x_NF[cut]) for cut in (slice(first), slice(first, second), slice(second, None))]
    return spans[0], spans[1], spans[2]


def span_of(x_NF: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> Span:
    """Inputs and what they should give; the last day's future lies outside, so it has no targets."""
    hours = len(x_NF) - max(HORIZONS)
    y_NO = np.stack([x_NF[ahead : ahead + hours, TEMPERATURE] for ahead in HORIZONS], axis=1)
    return Span(torch.from_numpy(x_NF.copy()), torch.from_numpy(y_NO))


def scale(training: Span) -> Scaling:
    """Constants from the training span alone: standard features; answers as a change from the present temperature."""
    turn_FA, phase_A = angles()
    base_FO = torch.zeros(len(FEATURES), len(HORIZONS))
    base_FO[TEMPERATURE] = 1
    now_N1 = training.x_NF[: len(training.y_NO), TEMPERATURE, None]
    return Scaling(
        mean_F=training.x_NF.mean(dim=0),
        deviation_F=training.x_NF.std(dim=0).clamp(min=1e-6),
        turn_FA=turn_FA,
        phase_A=phase_A,
        base_FO=base_FO,
        spread_O=(training.y_NO - now_N1).abs().mean(dim=0),
    )


def angles() -> tuple[Tensor, Tensor]:
    """Sine and cosine of hour and month, as sin(x @ turn + phase): [F, A] and [A]."""
    turn_FA = torch.zeros(len(FEATURES), 2 * len(CYCLES))
    for index, (name, period) in enumerate(CYCLES.items()):
        turn_FA[FEATURES.index(name), 2 * index : 2 * index + 2] = 2 * torch.pi / period
    return turn_FA, torch.tensor([0, torch.pi / 2] * len(CYCLES))
