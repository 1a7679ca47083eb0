"""The recipes: named functions that return a config. The command line is an override of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.recipes.recall import Recall
from training.recipes.weather import Weather

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.config import Config


def recall() -> Recall:
    """The lesson's figure: one LSTM unit learns to keep a value until it is asked for (a few seconds)."""
    return Recall(
        name="recall",
        cell="lstm",
        hidden=1,
        chrono=20,
        steps=3000,
        batch=64,
        learning_rate=0.03,
        evaluate_every=100,
        patience=10,
    )


def weather() -> Weather:
    """Temperature 1, 6 and 24 hours ahead from hourly weather in Beijing, beside two plain forecasts."""
    return Weather(
        name="weather",
        cell="lstm",
        hidden=32,
        forget_bias=1.0,
        steps=600,
        batch=32,
        learning_rate=0.01,
        decay=0.5,
        evaluate_every=25,
        patience=8,
        checkpoint_every=100,
    )


RECIPES: dict[str, Callable[[], Config]] = {"recall": recall, "weather": weather}
