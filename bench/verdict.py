"""The limits that Tidegate's speed is held to, each a ratio of two contestants of one comparison. Pure values."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.outcome import Measure, Outcome, find, latency, messages, processor, steps
from bench.plan import FLEET, Comparison, Contestant, Local, Server, Wire, connected
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


def alone(hidden: int, bound: float = 1.0) -> Limit:
    """Whoever is alone must not pay for the batcher."""
    one = Scenario(hidden, 1)
    sentence = f"1 sequence, hidden {hidden}: median latency, Tidegate / afternoon"
    return Limit(sentence, Wire("tidegate", one), Wire("afternoon", one), latency, "at most", bound)


def promises(scenario: Scenario, layout: str) -> Limit:
    """What Tidegate promises must cost little beside the least that can be done."""
    sentence = f"{layout}, hidden {scenario.hidden}: server's time a step, Tidegate / the least"
    return Limit(sentence, Wire("tidegate", scenario), Wire("least", scenario), processor, "at most", 1.3)


def costs(what: str, over: Wire, under: Server, bound: float) -> Limit:
    """What is taken in addition must cost little beside what a step costs without."""
    without = Wire(under, replace(over.scenario, traces=False))
    sentence = f"64 sequences, a connection each, hidden 128: server's time a step, {what}"
    return Limit(sentence, over, without, processor, "at most", bound)


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


MANY = connected(128, 64)
LIMITS = (
    batched(),
    bundled(),
    carried(),
    *(alone(hidden) for hidden in HIDDEN_SIZES),
    alone(128, 0.6),
    fleet(),
    kept(),
    traces(),
    promises(Scenario(128, 1), "1 sequence"),
    promises(connected(128, 16), "16 sequences, a connection each"),
    promises(MANY, "64 sequences, a connection each"),
    promises(Scenario(128, 64, "multiplexed"), "64 sequences on one stream"),
    promises(Scenario(128, 64, "bundled"), "64 sequences on one stream, bundled"),
    costs("with traces / without", Wire("tidegate", replace(MANY, traces=True)), "tidegate", 1.15),
    costs("checkpoints / none", Wire("tidegate", MANY), "forgetful", 1.05),
    costs("TLS / clear", Wire("secure", MANY), "tidegate", 1.5),
)


def decide(outcomes: Sequence[Outcome]) -> list[Verdict]:
    return [Verdict(limit, measured(limit, outcomes)) for limit in LIMITS]


def measured(limit: Limit, outcomes: Sequence[Outcome]) -> float | None:
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
