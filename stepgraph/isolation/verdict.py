"""The outcome for a file, as the process that proved it or the cache hands it to the server."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from stepgraph.file.content import Prints
from stepgraph.model import LoadedModel
from stepgraph.proving.proof import Proof
from stepgraph.rewriting.ports import Facts
from stepgraph.rewriting.stepgraph import StepGraph
from stepgraph.running.engine import Engine


@dataclass(frozen=True, eq=False)
class Proved:
    """A loaded model without what only lives in a process.

    `alone` and `seconds` (a step of 1, 2, ... sequences) are what its engine measured there.
    """

    graph: StepGraph
    facts: Facts
    proof: Proof
    sha256: str
    metadata: Mapping[str, str]
    seconds: tuple[float, ...]
    alone: str | None


@dataclass(frozen=True)
class Refused:
    """As `ModelRefused` has it."""

    message: str
    node: str | None


@dataclass(frozen=True)
class Verdict:
    """The outcome for the content `prints`, which is None if not all of it could be read."""

    prints: Prints | None
    outcome: Proved | Refused


def taken_apart(loaded: LoadedModel) -> Proved:
    layers = tuple(cell.described() for cell in loaded.graph.layers)
    engine = loaded.engine
    return Proved(
        replace(loaded.graph, layers=layers),
        loaded.facts,
        loaded.proof,
        loaded.sha256,
        loaded.metadata,
        tuple(engine.seconds(batch) for batch in range(1, engine.largest + 1)),
        engine.alone,
    )


def put_together(proved: Proved, patience: float, fresh: bool) -> LoadedModel:
    """The model that was handed over, in this process, warmed up with a patience in seconds.

    If it is `fresh`, the costs of a step are those just measured; else they are measured again.
    """
    engine = Engine(proved.graph, proved.alone)
    engine.warm_up(len(proved.seconds), patience, proved.seconds if fresh else ())
    return LoadedModel(proved.graph, proved.facts, engine, proved.proof, proved.sha256, proved.metadata)
