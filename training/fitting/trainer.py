"""The loop. Knows no files, no terminal and no particular task; watchers are called with what happened.

Step k's data and learning rate are functions of the config and k, so the step's number is all there is to the position
in the data.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from training.errors import CheckpointError, Diverged
from training.fitting import device, processes
from training.network import build

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from training.config import Config
    from training.task import Task


@dataclass(frozen=True)
class Evaluation:
    """One validation. `training_loss` is the mean since the one before."""

    step: int
    training_loss: float
    validation_loss: float
    learning_rate: float
    best: bool


class Watcher(Protocol):
    """What follows a fit: a progress bar, a metrics file."""

    def stepped(self, step: int, loss: float) -> None:
        """`step` optimiser steps are done; `loss` is the last one's."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """A validation is done."""


class Loss(nn.Module):
    """A task's loss as a module, whose parameters are the network's."""

    def __init__(self, network: nn.Module, task: Task) -> None:
        super().__init__()
        self.network, self._task = network, task

    def forward(self, step: int) -> Tensor:
        """The loss on this process's rows of the batch of a step."""
        return self._task.loss(self.network, step)


class Trainer:
    """A fit that can be left at any step and gone on with to the same bits."""

    def __init__(self, config: Config, task: Task, watchers: Sequence[Watcher] = ()) -> None:
        # process
        self._config, self._task, self._watchers = config, task, watchers
        # fit
        if config.batch % processes.count():
            raise config.error("batch", f"cannot be shared by {processes.count()} processes; give a multiple of that")
        self._device = device.found(config.device)
        self.network = build(config, task).to(self._device)
        self._loss = processes.shared(Loss(self.network, task))
        self._parameters = list(self.network.parameters())
        self._optimiser = torch.optim.Adam(self._parameters, fused=True)
        self.step = 0
        self.best_step, self.best_loss = 0, math.inf
        self._best = copy.deepcopy(self.network.state_dict())
        self._stale = 0
        self._loss_sum = 0.0
        self._loss_count = 0

    @property
    def finished(self) -> bool:
        return self.step >= self._config.steps or self.stopped_early

    @property
    def has_best(self) -> bool:
        """A validation found weights that are worth keeping."""
        return math.isfinite(self.best_loss)

    @property
    def stopped_early(self) -> bool:
        """The validation loss has not improved for as long as patience allows."""
        return self._stale >= self._config.patience

    def fit(self, until: int, stop: Callable[[], bool] = lambda: False) -> None:
        """Go on to step `until`, or until finished or `stop` says so."""
        self.network.train()
        if self.step == 0 and self.network.fitted and not self.has_best:
            self._validate()
        while not self.finished and self.step < until and not processes.agreed(stop()):
            self._train()
            if self.step % self._config.evaluate_every == 0 or self.step == self._config.steps:
                self._evaluate()

    def _train(self) -> None:
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(self._config, self.step)
        self._optimiser.zero_grad()
        loss: Tensor = self._loss(self.step)
        value = processes.average(loss).item()
        if not math.isfinite(value):
            raise Diverged(f"the loss at step {self.step} is {value}: try a lower --learning-rate or --clip")
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(self._parameters, self._config.clip)
        self._optimiser.step()
        self.step += 1
        self._loss_sum += value
        self._loss_count += 1
        for watcher in self._watchers:
            watcher.stepped(self.step, value)

    def _validate(self) -> tuple[float, bool]:
        """The validation loss, and whether it is the lowest so far: then the weights are kept."""
        self.network.eval()
        with torch.no_grad():
            loss = processes.told(self._task.validation_loss(self.network) if processes.first() else math.nan)
        self.network.train()
        best = loss < self.best_loss
        if best:
            self.best_step, self.best_loss = self.step, loss
            self._best = copy.deepcopy(self.network.state_dict())
        return loss, best

    def _evaluate(self) -> None:
        loss, best = self._validate()
        self._stale = 0 if best else self._stale + 1
        rate = learning_rate(self._config, self.step - 1)
        evaluation = Evaluation(self.step, self._loss_sum / self._loss_count, loss, rate, best)
        self._loss_sum, self._loss_count = 0.0, 0
        for watcher in self._watchers:
            watcher.evaluated(evaluation)

    def restore_best(self) -> None:
        """Give the network the weights with the lowest validation loss, in the processor's memory: the fit is over."""
        self.network.load_state_dict(self._best)
        self.network.to("cpu").eval()

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the fit depends on, as tensors and plain numbers; of all processes together."""
        self.network.gather()
        return {
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            **device.random_state(self._device),
            "step": self.step,
            "best": self._best,
            "best_step": self.best_step,
            "best_loss": self.best_loss,
            "stale": self._stale,
            "loss_sum": self._loss_sum,
            "loss_count": self._loss_count,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Take up the fit where `state()` was asked for.

        Raises:
            CheckpointError: the state is of another network or of another release.
        """
        try:
            self.network.load_state_dict(state["network"])
            self._optimiser.load_state_dict(state["optimiser"])
            device.set_random_state(self._device, state)
            self.step = state["step"]
            self._best, self.best_step, self.best_loss = state["best"], state["best_step"], state["best_loss"]
            self._stale, self._loss_sum, self._loss_count = state["stale"], state["loss_sum"], state["loss_count"]
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"the checkpoint does not fit this network ({error}); --fresh starts anew") from error


def learning_rate(config: Config, step: int) -> float:
    """Constant, then falling linearly to 0 over the last `decay` share of the steps."""
    left = (config.steps - step) / config.steps
    return config.learning_rate * (min(1.0, left / config.decay) if config.decay else 1.0)
