"""A fit's curves for TensorBoard, whose package is asked for only here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from training.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from training.fitting.trainer import Evaluation


class TensorBoard:
    """A watcher that writes losses and the learning rate into a folder, which `tensorboard --logdir` shows."""

    def __init__(self, folder: Path, resumed_at: int) -> None:
        try:
            writer = import_module("torch.utils.tensorboard").SummaryWriter
        except ImportError:
            raise ConfigError("--tensorboard: its package is not installed; pip install tensorboard") from None
        self._writer = writer(str(folder), purge_step=resumed_at + 1)

    def stepped(self, step: int, loss: float) -> None:
        self._writer.add_scalar("loss/batch", loss, step)

    def evaluated(self, evaluation: Evaluation) -> None:
        for name, value in (
            ("loss/training", evaluation.training_loss),
            ("loss/validation", evaluation.validation_loss),
            ("learning_rate", evaluation.learning_rate),
        ):
            self._writer.add_scalar(name, value, evaluation.step)
        self._writer.flush()
