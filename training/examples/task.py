"""A task made of examples: the part that recipes share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from rich.console import Group

from training.examples.examples import answer
from training.examples.picture import picture
from training.fitting import processes
from training.scaling import Scaling
from training.task import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from training.examples.examples import Examples, Kind
    from training.lookup import Lookup, OneHot
    from training.task import Signature

NOTHING_READ = {"source": "drawn at random from the config's seed", "sha256": ""}


@dataclass(frozen=True)
class Goal:
    """A figure that a trained network must reach to have learned the task."""

    figure: str
    value: float
    higher: bool

    def reached(self, figures: Mapping[str, float]) -> bool:
        """Whether these figures are as good or better."""
        found = figures[self.figure]
        return found >= self.value if self.higher else found <= self.value

    def __str__(self) -> str:
        return f"{self.figure} {'>=' if self.higher else '<='} {self.value:g}"


@dataclass(frozen=True, kw_only=True)
class ExamplesTask:
    """Training draws a batch for the number of a step; validation decides when to stop; the test is reported.

    `baselines` gives the figures of what needs no network: the most frequent class, always 0.
    """

    signature: Signature
    kind: Kind
    draw: Callable[[int], Examples]
    validation: Examples
    test: Examples
    goal: Goal
    baselines: Mapping[str, Mapping[str, float]]
    data: dict[str, str] = field(default_factory=NOTHING_READ.copy)
    notes: tuple[str, ...] = ()
    scaling: Scaling | Lookup | OneHot | None = None
    more: Callable[[nn.Module], Mapping[str, float]] | None = None
    """Figures that only this recipe has."""
    shown: Callable[[nn.Module], Report] | None = None
    """A picture that only this recipe has, above the others."""

    def loss(self, network: nn.Module, step: int) -> Tensor:
        """The loss on this process's part of the batch of a step, weighted by how many steps count in it."""
        batch = self.draw(step)
        part = batch[processes.mine(len(batch))]
        scored = part.scored_BT.sum()
        return self._loss(network, part) * (scored / processes.average(scored))

    def validation_loss(self, network: nn.Module) -> float:
        """The loss on sequences that training never sees."""
        return self._loss(network, self.validation).item()

    def _loss(self, network: nn.Module, examples: Examples) -> Tensor:
        """Numbers count in the unit that the network answers in, so that one size of step suits them all."""
        answers = answer(network, examples)
        if self.kind == "numbers" and isinstance(self.scaling, Scaling):
            answers = answers.in_units(self.scaling.spread_O)
        return answers.loss(self.kind)

    def figures(self, network: nn.Module, count: int | None = None) -> dict[str, float]:
        """The figures of the test, or of its first sequences, with those that only this recipe has."""
        with torch.no_grad():
            found = answer(network, self.test[slice(count)]).figures(self.kind)
            return found | dict(self.more(network) if self.more else {})

    def report(self, network: nn.Module) -> Report:
        """Figures beside the baselines, and a picture of right and wrong answers."""
        found = self.figures(network)
        with torch.no_grad():
            answers = answer(network, self.test)
        names = [output.name for output in self.signature.outputs]
        values: dict[str, object] = {"model": found, "goal": str(self.goal), "reached": self.goal.reached(found)}
        report = Report(
            picture(answers, self.kind, names, {"this model": found, **self.baselines}), values | dict(self.baselines)
        )
        if self.shown is None:
            return report
        own = self.shown(network)
        return Report(Group(own.picture, report.picture), report.values | own.values)
