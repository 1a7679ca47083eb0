"""A model that is ready: what it says of itself, and what runs it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from server.batcher import Batcher
from server.engine import Engine
from server.inputs import InputCheck
from server.ports import Facts
from server.progress import Progress
from server.proof import Proof
from server.settings import Settings
from server.states import SlotTable
from server.stepgraph import StepGraph
from server.tally import Tally


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A file that was rewritten and proved. Made by `loader`, away from the event loop."""

    graph: StepGraph
    facts: Facts
    engine: Engine
    proof: Proof
    sha256: str
    metadata: Mapping[str, str]

    @property
    def state_bytes(self) -> int:
        """What one sequence keeps from step to step."""
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


class ServedModel:
    """A version of a model that takes steps. `start` and `stop` belong to the event loop."""

    def __init__(
        self, name: str, version: int, loaded: LoadedModel, settings: Settings, tally: Tally | None = None
    ) -> None:
        self.name = name
        self.version = version
        self.loaded = loaded
        self.graph = loaded.graph
        self.check = InputCheck(loaded.graph.inputs)
        self.slots = SlotTable(loaded.graph.initial, settings.max_sequences)
        self.progress = Progress(settings.max_sequences)
        self.sleepers = 0  # open sequences without a slot
        self.tally = Tally() if tally is None else tally  # one for all files that this version has ever been
        self.batcher = Batcher(
            loaded.engine,
            self.slots,
            settings.max_sequences,
            settings.patience_ms / 1e3,
            settings.spot_us / 1e6,
            self.tally,
        )

    @property
    def in_use(self) -> bool:
        """Whether any sequence is open."""
        return bool(self.slots.in_use or self.sleepers)

    def start(self) -> None:
        """Starts computing."""
        self.batcher.start()

    def stop(self) -> None:
        """Stops computing; what waits is not run."""
        self.batcher.stop()
