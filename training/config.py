"""What can be set about a training run: one sentence and one unit, in brackets, for each field.

Those sentences are the `--help` of the command line. Knows no particular task.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from training.errors import ConfigError
from training.fitting.device import Device
from training.network import Network, Trained

if TYPE_CHECKING:
    from training.task import Task

Cell = Literal["rnn", "lstm", "gru"]

# Where things are. They have no influence on what comes out: data is told apart by its content.
PLACES = ("runs", "models", "data", "tensorboard")


@dataclass(frozen=True, kw_only=True)
class Config(ABC):
    """Settings that every recipe has; a recipe's own config adds those of its task."""

    # the model
    recipe: ClassVar[str]
    name: str
    """The model's name: the folder of the model repository that the export goes to."""
    cell: Cell
    """The recurrence: rnn (tanh), lstm or gru."""
    layers: int = 1
    """Recurrent layers, one on top of the other."""
    hidden: int
    """Hidden units of each layer. [units]"""
    forget_bias: float | None = None
    """First value of the forget gate's bias (GRU: of the update gate's), which makes a network remember from the
    start; an rnn has no gate and ignores it."""
    chrono: int | None = None
    """Longest lag to be remembered: chrono initialisation (Tallec & Ollivier 2018) spreads the gates' biases over
    time scales up to it; an rnn has no gate and ignores it. [steps]"""

    # the fit
    seed: int = 0
    """Fixes the first weights and the order of the data."""
    steps: int
    """Optimiser steps at most. [steps]"""
    batch: int
    """Sequences in one optimiser step. [sequences]"""
    learning_rate: float
    """Adam's learning rate before it decays."""
    decay: float = 0.25
    """Share of the steps, at the end, over which the learning rate falls linearly to 0."""
    clip: float = 1.0
    """Largest norm of the gradient; a longer one is shortened to it."""

    # the watch
    evaluate_every: int
    """Optimiser steps from one validation to the next. [steps]"""
    patience: int
    """Validations without a better loss after which the fit stops early. [validations]"""
    checkpoint_every: int = 500
    """Optimiser steps from one checkpoint to the next; Ctrl-C writes one at any step. [steps]"""

    # the machine
    threads: int = 1
    """Threads that torch computes with; for small networks one is the fastest."""
    device: Device = "cpu"
    """Where the network is fitted: cpu, or cuda for a graphics card, whose results may differ from run to run."""
    runs: Path = Path("runs")
    """Folder of the runs: checkpoint, metrics, plot, report."""
    models: Path = Path("models")
    """The model repository that the best weights are exported to."""
    tensorboard: bool = False
    """Write the curves for TensorBoard too, into the run's folder; its package must be installed."""

    @abstractmethod
    def task(self) -> Task:
        """The data and the loss that this config describes."""

    def network(self, task: Task) -> Trained:
        """A network for that task; its first weights are drawn here."""
        return Network(self, task)

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: with the field's name and the reason.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ConfigError(f"--name: {self.name!r} is not a plain folder name (letters, digits, '.', '_', '-')")
        for name in ("layers", "hidden", "steps", "batch", "evaluate_every", "patience", "checkpoint_every", "threads"):
            self.require(name, getattr(self, name) >= 1, "must be at least 1")
        for name in ("learning_rate", "clip"):
            self.require(name, getattr(self, name) > 0, "must be above 0")
        self.require("decay", 0 <= self.decay <= 1, "must lie from 0 to 1")
        self.require("seed", 0 <= self.seed < 2**31, "must lie from 0 to 2147483647")
        self.require("chrono", self.chrono is None or self.chrono >= 3, "must be at least 3, or none")
        if self.forget_bias is not None and self.chrono is not None:
            raise ConfigError("--forget-bias and --chrono set the same biases: give one, and none for the other")

    def require(self, name: str, holds: bool, rule: str) -> None:
        """Raise a ConfigError that names the field, its value and the rule, unless the rule holds."""
        if not holds:
            raise self.error(name, rule)

    def error(self, name: str, reason: str) -> ConfigError:
        """An error that names a field and its value."""
        value = getattr(self, name)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        return ConfigError(f"--{name.replace('_', '-')}: {shown} {reason}")

    def as_json(self) -> dict[str, Any]:
        """What decides the result, as plain values: without the places where things are put."""
        return {key: value for key, value in asdict(self).items() if key not in PLACES}

    def fingerprint(self, data_sha256: str) -> str:
        """Eight hexadecimal digits that differ whenever the result may differ."""
        text = json.dumps([type(self).__name__, self.as_json(), data_sha256], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]
