"""A model that is ready: its description, its slots, and its batcher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.runtime.batcher import Batcher
from server.runtime.counters import Counters
from server.runtime.input_check import InputCheck
from server.runtime.loop_turn import ENDLESS, LoopTurn
from server.runtime.observer import Observer
from server.runtime.slots import SlotTable
from server.settings import Settings
from server.watermarks import Watermarks

if TYPE_CHECKING:
    from stepgraph.model import LoadedModel


class ServedModel:
    """A version of a model that takes steps. `start` and `stop` are called in the event loop."""

    def __init__(
        self,
        name: str,
        version: int,
        loaded: LoadedModel,
        settings: Settings,
        counters: Counters | None = None,
        turn: LoopTurn = ENDLESS,
    ) -> None:
        self.name = name
        self.version = version
        self.loaded = loaded
        self.graph = loaded.graph
        self.check = InputCheck(loaded.graph.inputs)
        self.slots = SlotTable(loaded.graph.initial, settings.max_sequences, settings.max_per_address)
        self.watermarks = Watermarks(settings.max_sequences)  # for the rooms above
        self.observer: Observer | None = None  # is called with all results
        self.asleep = 0  # open sequences without a slot
        self.counters = counters or Counters()  # one for all files that this version has ever been
        self.batcher = Batcher(
            loaded.engine,
            self.slots,
            settings.max_sequences,
            settings.patience_ms / 1e3,
            settings.spot_us / 1e6,
            self.counters,
            turn,
        )
        self.start, self.stop = self.batcher.start, self.batcher.stop

    @property
    def in_use(self) -> bool:
        return bool(self.slots.in_use or self.asleep)
