"""What several rounds of a comparison come to. Pure values.

Every ratio is taken within a round, where both were measured within seconds of each other, and then the median of
rounds: a machine that is slower for a while is slower for both.
"""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.figure import Figure
from bench.plan import Comparison, Contestant

Measure = Callable[[Figure], float]


@dataclass(frozen=True)
class Outcome:
    """The rounds of one comparison: rounds[r][i] belongs to contestant i."""

    comparison: Comparison
    rounds: tuple[tuple[Figure, ...], ...]

    def of(self, contestant: Contestant) -> tuple[Figure, ...]:
        index = self.comparison.contestants.index(contestant)
        return tuple(figures[index] for figures in self.rounds)

    def median(self, contestant: Contestant, measure: Measure) -> float:
        return statistics.median(measure(figure) for figure in self.of(contestant))

    def ratio(self, over: Contestant, under: Contestant, measure: Measure) -> float:
        pairs = zip(self.of(over), self.of(under), strict=True)
        return statistics.median(measure(a) / measure(b) for a, b in pairs)

    def has(self, *contestants: Contestant) -> bool:
        """Whether all of them were measured here, side by side."""
        return all(contestant in self.comparison.contestants for contestant in contestants)


def steps(figure: Figure) -> float:
    return figure.steps_per_second


def messages(figure: Figure) -> float:
    return figure.messages_per_second


def latency(figure: Figure) -> float:
    """Median seconds from sending to the whole answer."""
    return figure.median


def processor(figure: Figure) -> float:
    """Seconds of the server's processor time a step."""
    return figure.server / figure.steps_per_second


def client(figure: Figure) -> float:
    """Seconds of the client's processor time a step."""
    return figure.client / figure.steps_per_second


def find(outcomes: Iterable[Outcome], *contestants: Contestant) -> Outcome | None:
    return next((outcome for outcome in outcomes if outcome.has(*contestants)), None)
