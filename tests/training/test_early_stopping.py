from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from training.errors import Diverged
from training.examples.task import ExamplesTask
from training.fitting.trainer import Evaluation, Trainer, learning_rate

if TYPE_CHECKING:
    from training.recipes.recall import Recall


class _Scripted:
    """The recall task, with validation losses that are given beforehand."""

    def __init__(self, config: Recall, losses: list[float]) -> None:
        self._task, self.losses = config.task(), iter(losses)
        self.weights: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the task has
        return getattr(self._task, name)

    def validation_loss(self, network: nn.Module) -> float:
        self.weights.append(network.get_parameter("head.weight").detach().clone())
        return next(self.losses)


def scripted(config: Recall, losses: list[float]) -> Any:  # noqa: ANN401 - a task by all that is asked of it
    return _Scripted(config, losses)


class Notes:
    """A watcher that keeps everything."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.evaluations: list[Evaluation] = []

    def stepped(self, step: int, loss: float) -> None:
        assert step == len(self.losses) + 1
        self.losses.append(loss)

    def evaluated(self, evaluation: Evaluation) -> None:
        self.evaluations.append(evaluation)


def test_a_fit_stops_when_patience_is_out_and_keeps_the_best_weights(brief: Recall) -> None:
    task = scripted(brief, [3.0, 2.0, 2.5, 2.0, 2.1, 1.0])
    trainer = Trainer(replace(brief, patience=3), task)
    trainer.fit(until=1000)
    assert trainer.stopped_early
    assert (trainer.step, trainer.best_step, trainer.best_loss) == (50, 20, 2.0)
    trainer.restore_best()
    assert torch.equal(trainer.network.get_parameter("head.weight"), task.weights[1])
    assert not torch.equal(task.weights[1], task.weights[4])


def test_weights_that_were_fitted_before_are_validated_first_and_kept_where_no_step_makes_them_better(
    brief: Recall,
) -> None:
    task = scripted(brief, [1.5, 3.0, 2.0, 2.5])
    trainer = Trainer(replace(brief, patience=3), task)
    trainer.network.fitted = True
    trainer.fit(until=1000)
    assert (trainer.step, trainer.best_step, trainer.best_loss) == (30, 0, 1.5)
    trainer.restore_best()
    assert torch.equal(trainer.network.get_parameter("head.weight"), task.weights[0])
    assert not torch.equal(task.weights[0], task.weights[1])


def test_a_better_loss_renews_patience(brief: Recall) -> None:
    trainer = Trainer(replace(brief, patience=3), scripted(brief, [3.0, 3.1, 3.2, 2.9, 3.3, 3.4]))
    trainer.fit(until=1000)
    assert not trainer.stopped_early
    assert (trainer.step, trainer.best_step) == (60, 40)


def test_watchers_hear_of_every_step_and_of_the_mean_loss_between_validations(brief: Recall) -> None:
    notes = Notes()
    Trainer(brief, scripted(brief, [3.0, 2.0, 2.5, 2.0, 2.1, 1.0]), [notes]).fit(until=1000)
    assert len(notes.losses) == 60
    for index, evaluation in enumerate(notes.evaluations):
        stretch = notes.losses[10 * index : 10 * index + 10]
        assert evaluation.training_loss == pytest.approx(sum(stretch) / 10)
    assert [evaluation.best for evaluation in notes.evaluations] == [True, True, False, False, False, True]


def test_a_loss_that_is_no_number_ends_the_fit_with_a_reason(brief: Recall, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(brief, brief.task())
    monkeypatch.setattr(ExamplesTask, "loss", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(Diverged, match="lower --learning-rate"):
        trainer.fit(until=1)


def test_the_learning_rate_is_constant_and_then_falls_to_nothing(brief: Recall) -> None:
    config = replace(brief, steps=100, learning_rate=0.5, decay=0.2)
    assert [learning_rate(config, step) for step in (0, 50, 80)] == [0.5, 0.5, 0.5]
    assert learning_rate(config, 90) == pytest.approx(0.25)
    assert learning_rate(config, 99) == pytest.approx(0.025)
    assert learning_rate(replace(config, decay=0), 99) == 0.5
