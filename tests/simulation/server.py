"""A server of a simulation: real from its gRPC edge to its clerk; not the clerk's thread, the store and the models."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from server.caller import Caller
from server.durability.keeper import Keeper
from server.durability.store_thread import StoreThread
from server.edge.admission import Admission
from server.edge.backend import Backend
from server.edge.native.service import Servicer
from server.stores.fencing import Tombstone, as_of
from server.stores.memory import MemoryStore
from tests.server.world import Desk, Moody
from tests.shelf import Shelf
from tests.simulation.wire import Context
from tidegate.v1 import tidegate_pb2

if TYPE_CHECKING:
    from server.stores.terms import Terms
    from tests.simulation.world import World


class Store(Moody):
    """One in memory that can fail, and can be asked what became of a sequence."""

    def __init__(self, world: World, terms: Terms) -> None:
        self.memory = MemoryStore(terms)
        super().__init__(self.memory)
        self._world = world

    def why_gone(self, name: str) -> str:
        """The contract's word for why a sequence is not there any more."""
        entry = as_of(self.memory.tables.entries([name]).get(name), self._world.now, self.memory.terms)
        return f"SEQUENCE_{entry.reason.name}" if isinstance(entry, Tombstone) else ""


class Server:
    """Everything of a server but its port."""

    def __init__(self, world: World) -> None:
        self.settings = world.settings
        self.desk = Desk()
        self.prompt = True  # whether what it asks of the store is done at once
        self.shelf = Shelf(world.loaded, world.settings)
        self.shelf.start()
        self.store_thread = StoreThread(lambda: world.store, world.settings.store_seconds)  # type: ignore[arg-type, return-value]
        self.store_thread._thread.shutdown()
        self.store_thread._thread = self.desk  # type: ignore[assignment]
        self.admission = Admission(
            self.shelf, replace(world.settings, max_streams=100, max_share=100, store="valkey://")
        )  # type: ignore[arg-type]
        self.keeper = Keeper(
            self.store_thread, world.settings, self.admission, clock=lambda: world.now, monotonic=lambda: world.now
        )
        self.servicer = Servicer(Backend(world.settings, self.shelf, self.admission, self.keeper))  # type: ignore[arg-type]
        self.keeping = asyncio.create_task(self.keeper.run())
        self.stopping: asyncio.Task[None] | None = None

    async def unary(self, path: str, request: bytes) -> bytes:
        assert path.endswith("/DescribeModel")
        wanted = tidegate_pb2.DescribeModelRequest.FromString(request)
        return await self.servicer.describe_model(wanted, Caller(), Context(None))

    async def stop(self, world: World, at: int) -> None:
        """As `lifecycle.Server` does it after SIGTERM."""
        await self.admission.drain(self.settings.grace_seconds)
        self.keeping.cancel()
        world.hang_up(self)
        await self.keeper.flush()
        await self.store_thread.stop()
        world.bury(at)

    def assert_empty(self) -> None:
        """Nobody has a place here."""
        self.shelf.assert_empty()
        assert (len(self.keeper._registry), self.admission.streams) == (0, 0)
