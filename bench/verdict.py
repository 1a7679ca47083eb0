"""The limits that Tidegate's speed is held to, each a ratio of two contestants of one comparison. Pure values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.outcome import Measure, Outcome, find, latency, messages, steps
from bench.plan import FLEET, Comparison, Contestant, Local, Wire
from bench.scenario import HIDDEN_SIZES, Scenario


@dataclass(frozen=True)
class Limit:
    """What `over` / `under` must be."""

    sentence: str
    over: Contestant
    under: Contestant
    measure: Measure
    kind: Literal["at least", "at most"]
    bound: float


@dataclass(frozen=True)
class Verdict:
    """A limit and what was measured; None if it was not."""

    limit: Limit
    ratio: float | None

    @property
    def met(self) -> bool:
        """Whether the limit was measured and holds."""
        if self.ratio is None:
            return False
        return self.ratio >= self.limit.bound if self.limit.kind == "at least" else self.ratio <= self.limit.bound

    @property
    def margin(self) -> float | None:
        """How far on the good side of the limit, as a share of it; negative if on the other."""
        if self.ratio is None:
            return None
        apart = self.ratio / self.limit.bound - 1
        return apart if self.limit.kind == "at least" else -apart


def alone(hidden: int) -> Limit:
    """Whoever is alone must not pay for the batcher."""
    one = Scenario(hidden, 1)
    sentence = f"1 sequence, hidden {hidden}: median latency, Tidegate / afternoon"
    return Limit(sentence, Wire("tidegate", one), Wire("afternoon", one), latency, "at most", 1.0)


def batched() -> Limit:
    """Many sequences must gain by sharing a run, and their messages a frame; the rival gets its better layout."""
    bundled, apart = Scenario(256, 64, "bundled"), Scenario(256, 64)
    sentence = "64 sequences of one client, hidden 256: steps/s, Tidegate / afternoon"
    return Limit(sentence, Wire("tidegate", bundled), Wire("afternoon", apart), steps, "at least", 3.0)


def bundled() -> Limit:
    """The sequences of one client must not be bound by the cost of a message."""
    bundled, apart = Scenario(128, 64, "bundled"), Scenario(128, 64)
    sentence = "64 sequences of one client, hidden 128: steps/s, Tidegate / echo"
    return Limit(sentence, Wire("tidegate", bundled), Wire("echo", apart), steps, "at least", 0.65)


def carried() -> Limit:
    """Tidegate must leave most of the time to the wire."""
    many = Scenario(128, 64)
    sentence = "64 sequences, a stream each, hidden 128: messages/s, Tidegate / echo"
    return Limit(sentence, Wire("tidegate", many), Wire("echo", many), messages, "at least", 0.65)


def kept() -> Limit:
    """That a sequence outlives its server must cost next to nothing."""
    many = Scenario(128, 64, "bundled")
    sentence = "64 sequences of one client, hidden 128: steps/s, a checkpoint every 64 steps in SQLite / none"
    return Limit(sentence, Wire("diligent", many), Wire("forgetful", many), steps, "at least", 0.9)


def fleet() -> Limit:
    """A fleet must come near to what the machine can compute."""
    fleet, bare = Wire("tidegate", Scenario(128, FLEET, "fleet")), Local("loop", 128, 64)
    sentence = f"a fleet of {FLEET:,}, hidden 128: steps/s, Tidegate / onnxruntime alone at batch 64"
    return Limit(sentence, fleet, bare, steps, "at least", 0.5)


def traces() -> Limit:
    """To see the gates must cost next to nothing."""
    seen, unseen = Local("engine", 128, 64, traces=True), Local("engine", 128, 64)
    sentence = "the engine alone, hidden 128, batch 64: steps/s, with traces / without"
    return Limit(sentence, seen, unseen, steps, "at least", 0.9)


LIMITS = (batched(), bundled(), carried(), *(alone(hidden) for hidden in HIDDEN_SIZES), fleet(), kept(), traces())


def decide(outcomes: Sequence[Outcome]) -> list[Verdict]:
    """Hold what was measured to every limit."""
    return [Verdict(limit, measured(limit, outcomes)) for limit in LIMITS]


def measured(limit: Limit, outcomes: Sequence[Outcome]) -> float | None:
    """Find the ratio that a limit is about."""
    outcome = find(outcomes, limit.over, limit.under)
    return outcome.ratio(limit.over, limit.under, limit.measure) if outcome else None


def needed(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Reduce a plan to what the limits need."""
    wanted = [{limit.over, limit.under} for limit in LIMITS]
    reduced = []
    for comparison in comparisons:
        used = set().union(*(pair for pair in wanted if pair <= set(comparison.contestants)))
        if used:
            kept = tuple(contestant for contestant in comparison.contestants if contestant in used)
            reduced.append(Comparison(comparison.section, comparison.title, kept))
    return reduced
