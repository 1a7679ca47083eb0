"""What is trained for the report: quick in minutes, full in an hour or so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from training.memory.starts import BY_NAME, GRU, LSTM_BIAS, LSTM_CHRONO, RNN, STARTS, Start
from training.recipes.named import adding, recall, temporal_order, text
from training.recipes.synthetic.latch import Latch

if TYPE_CHECKING:
    from training.config import Config

# Adam's rate where the recipe's own would take more steps than the report has.
FASTER = 0.01

Kind = Literal["adding", "temporal-order", "latch", "text", "lesson"]


@dataclass(frozen=True)
class Experiment:
    """One network, trained until it solves its task or for `limit` steps; a figure is taken each `every` steps."""

    kind: Kind
    start: str
    length: int
    hidden: int
    seed: int
    limit: int
    every: int

    @property
    def name(self) -> str:
        """A file's name of its own."""
        start = self.start.lower().replace(", ", "-").replace(" ", "-")
        return f"{self.kind}-{self.length}-{start}-h{self.hidden}-l{self.limit}-s{self.seed}"

    def config(self) -> Config:
        """The recipe with these settings. The rate of learning stays as it is, and nothing stops early."""
        common = {"seed": self.seed, "steps": self.limit, "hidden": self.hidden, "decay": 0.0, "patience": self.limit}
        changes: dict[str, Any] = common | {"evaluate_every": self.limit} | BY_NAME[self.start].changes(self.length)
        if self.kind == "lesson":
            return replace(recall(), **changes)
        if self.kind == "text":
            return replace(text(), window=self.length, batch=16, **changes)
        if self.kind == "latch":
            return Latch(name="latch", length=self.length, batch=50, learning_rate=0.003, **changes)
        if self.kind == "adding":
            return replace(adding(), length=self.length, learning_rate=FASTER, **changes)
        return replace(temporal_order(), length=self.length, **changes)


@dataclass(frozen=True)
class Plan:
    """The experiments of a report."""

    name: str
    seeds: int
    experiments: tuple[Experiment, ...]


def several(
    kind: Kind, starts: tuple[Start, ...], length: int, hidden: int, limit: int, every: int
) -> list[Experiment]:
    """One experiment for each start, with seed 0."""
    return [Experiment(kind, start.name, length, hidden, 0, limit, every) for start in starts]


def planned(name: str, seeds: int, groups: list[list[Experiment]]) -> Plan:
    """Every experiment with every seed; the first seed of all of them first."""
    found = [replace(one, seed=seed) for seed in range(seeds) for group in groups for one in group]
    return Plan(name, seeds, tuple(found))


NO_EDGE = (RNN, GRU, LSTM_BIAS, LSTM_CHRONO)
PLAIN_TEXT = (RNN, GRU, LSTM_BIAS)


def quick(seeds: int = 3) -> Plan:
    """Short sequences and few steps."""
    orders = [several("temporal-order", STARTS, length, 32, 500, 50) for length in (20, 60)]
    sums = [several("adding", STARTS, length, 32, 600, 50) for length in (10, 30)]
    lesson = [several("lesson", (LSTM_CHRONO,), 20, 1, 3000, 250)]
    latch = [several("latch", NO_EDGE, 60, 16, 1200, 50)]
    letters = [several("text", PLAIN_TEXT, 40, 64, 100, 50)]
    return planned("quick", seeds, [*lesson, *orders, *sums, *latch, *letters])


def full(seeds: int = 3) -> Plan:
    """The lengths at which the networks part."""
    orders = [several("temporal-order", STARTS, length, 32, 4000, 50) for length in (20, 60, 100)]
    sums = [several("adding", STARTS, length, 64, 3000, 50) for length in (20, 50, 100)]
    lesson = [several("lesson", (LSTM_CHRONO,), 20, 1, 3000, 250)]
    latch = [several("latch", NO_EDGE, 100, 16, 4000, 50)]
    letters = [several("text", PLAIN_TEXT, 80, 128, 1500, 250)]
    return planned("full", seeds, [*lesson, *orders, *sums, *latch, *letters])
