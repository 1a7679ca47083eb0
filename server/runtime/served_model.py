"""A model that is ready: what it says of itself, and what runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.runtime.batcher import Batcher
from server.runtime.counters import Counters
from server.runtime.input_check import InputCheck
from server.runtime.observer import Observer
from server.runtime.slots import SlotTable
from server.runtime.watermarks import Watermarks
from server.settings import Settings

if TYPE_CHECKING:
    from stepgraph.model import LoadedModel


class ServedModel:
    """A version of a model that takes steps. `start` and `stop` belong to the event loop."""

    def __init__(
        self, name: str, version: int, loaded: LoadedModel, settings: Settings, counters: Counters | None = None
    ) -> None:
        self.name = name
        self.version = version
        self.loaded = loaded
        self.graph = loaded.graph
        self.check = InputCheck(loaded.graph.inputs)
        self.slots = SlotTable(loaded.graph.initial, settings.max_sequences)
        self.watermarks = Watermarks(settings.max_sequences)
        self.observer: Observer | None = None  # sees all results
        self.asleep = 0  # open sequences without a slot
        self.counters = counters or Counters()  # one for all files that this version has ever been
        self.batcher = Batcher(
            loaded.engine,
            self.slots,
            settings.max_sequences,
            settings.patience_ms / 1e3,
            settings.spot_us / 1e6,
            self.counters,
        )

    @property
    def in_use(self) -> bool:
        return bool(self.slots.in_use or self.asleep)

    def start(self) -> None:
        self.batcher.start()

    def stop(self) -> None:
        """Stops computing; what waits is not run."""
        self.batcher.stop()
