"""The recipes: named functions that return a config. The command line is an override of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.recipes.digits import Digits
from training.recipes.glucose import Glucose
from training.recipes.recall import Recall
from training.recipes.synthetic.adding import Adding
from training.recipes.synthetic.copy_memory import CopyMemory
from training.recipes.synthetic.temporal_order import TemporalOrder
from training.recipes.text import Text
from training.recipes.vowels import Vowels
from training.recipes.weather import weather
from training.tabular.command import table

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.config import Config
    from training.tabular.settings import Table


def recall() -> Recall:
    """The lesson's figure: one LSTM unit keeps a value until it is asked for; squared error below 0.0003 (seconds)."""
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


def adding() -> Adding:
    """Two marked numbers of a hundred are added at the end: squared error below 0.005, without memory 0.167."""
    return Adding(
        name="adding",
        cell="lstm",
        hidden=64,
        chrono=100,
        steps=1200,
        batch=50,
        learning_rate=0.003,
        evaluate_every=100,
        patience=100,
    )


def temporal_order() -> TemporalOrder:
    """Which of X and Y came first and which second in a hundred symbols: 99.9 % right, chance is 25 %."""
    return TemporalOrder(
        name="temporal-order",
        cell="lstm",
        hidden=32,
        chrono=100,
        steps=800,
        batch=50,
        learning_rate=0.003,
        evaluate_every=50,
        patience=100,
    )


def copy_memory() -> CopyMemory:
    """Ten letters are said again after ten blanks: 90 % right, without memory 12.5 %."""
    return CopyMemory(
        name="copy",
        cell="lstm",
        hidden=128,
        chrono=30,
        steps=5000,
        batch=50,
        learning_rate=0.003,
        evaluate_every=250,
        patience=100,
    )


def digits() -> Digits:
    """Handwritten digits of 8 x 8 pixels, read pixel by pixel: 92 % of 454 right, chance is 10 %."""
    return Digits(
        name="digits",
        cell="lstm",
        hidden=64,
        forget_bias=1.0,
        steps=1500,
        batch=64,
        learning_rate=0.005,
        evaluate_every=50,
        patience=20,
    )


def vowels() -> Vowels:
    """Which of nine men says a vowel, step by step: 93 % of 370 right."""
    return Vowels(
        name="vowels",
        cell="lstm",
        hidden=64,
        forget_bias=1.0,
        steps=600,
        batch=30,
        learning_rate=0.003,
        evaluate_every=25,
        patience=12,
    )


def text() -> Text:
    """The next character of Shakespeare: 2.45 bits a character on text that was held out, by frequencies alone 4.8."""
    return Text(
        name="text",
        cell="lstm",
        hidden=128,
        forget_bias=1.0,
        steps=2200,
        batch=32,
        learning_rate=0.005,
        decay=0.5,
        evaluate_every=100,
        patience=20,
        checkpoint_every=100,
    )


def glucose() -> Glucose:
    """Glucose 30 and 60 minutes ahead: off by 23 mg/dL or less (rms) at 30 minutes, where nothing changed by 26."""
    return Glucose(
        name="glucose",
        cell="lstm",
        hidden=32,
        forget_bias=1.0,
        steps=800,
        batch=32,
        learning_rate=0.005,
        decay=0.5,
        evaluate_every=25,
        patience=10,
        checkpoint_every=100,
    )


RECIPES: dict[str, Callable[[], Config]] = {
    "recall": recall,
    "adding": adding,
    "temporal-order": temporal_order,
    "copy": copy_memory,
    "digits": digits,
    "vowels": vowels,
    "text": text,
    "glucose": glucose,
}
TABLES: dict[str, Callable[[], Table]] = {"weather": weather, "table": table}
