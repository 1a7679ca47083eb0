"""A model file that was rewritten and proved, and the engine that runs it."""

import json
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

    def legend(self, side: str, port: str) -> tuple[list[str], list[str]]:
        """Feature names and units of an input or output (`side` "inputs" or "outputs"); empty lists if not given.

        Source: the metadata property tidegate.inputs or tidegate.outputs, JSON {port: {"features": [], "units": []}}.
        """
        try:
            entry = json.loads(self.metadata.get(f"tidegate.{side}", "{}"))[port]
            return [str(f) for f in entry.get("features", [])], [str(u) for u in entry.get("units", [])]
        except (ValueError, KeyError, TypeError, AttributeError):
            return [], []
