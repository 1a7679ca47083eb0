"""A model file that was rewritten and proved, and the engine that runs it."""

from collections.abc import Mapping
from dataclasses import dataclass

from stepgraph.proving.proof import Proof
from stepgraph.rewriting.ports import Facts
from stepgraph.rewriting.stepgraph import StepGraph
from stepgraph.running.engine import Engine


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A file that was rewritten and proved. Made by `loading`, away from the event loop."""

    graph: StepGraph
    facts: Facts
    engine: Engine
    proof: Proof
    sha256: str
    metadata: Mapping[str, str]

    @property
    def state_bytes(self) -> int:
        return self.graph.initial.nbytes
