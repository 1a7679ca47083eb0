"""Renews the leases of this server's sequences in the store; lets go of those that belong to another server now."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.durability.pieces import pieces
from server.durability.registry import Registry
from server.durability.sequence import ServedSequence
from server.errors import StoreFailed
from server.stores import store
from server.stores.terms import LEASE

if TYPE_CHECKING:
    from server.durability.store_thread import StoreThread

_EVERY = LEASE / 10  # seconds: an outage of the store may take up the rest of a lease
_BATCH = 500  # sequences in one call of the store


@dataclass(eq=False)
class Leases:
    """Reports to the store which sequences are open here, and which of them have a slot."""

    _store: StoreThread
    _registry: Registry

    async def renew(self) -> None:
        """Renews every lease of which a tenth has passed. What fails is due again with the next call."""
        due = self._registry.monotonic() - _EVERY
        sequences = list(self._registry)
        with suppress(StoreFailed):
            for first in range(0, len(sequences), _BATCH):
                await asyncio.sleep(0)
                here = (sequence for sequence in sequences[first : first + _BATCH] if sequence in self._registry)
                late = [sequence for sequence in here if sequence.stored and sequence.held <= due]
                if late:
                    await self._renew(late)

    async def _renew(self, sequences: Sequence[ServedSequence]) -> None:
        now, held = self._registry.clock(), self._registry.monotonic()
        holds = [store.Hold(sequence.id, sequence.fence, awake=sequence.slot >= 0) for sequence in sequences]
        refused = {r.id: r for r in await self._store.ask(lambda s: s.hold(holds, now))}
        async for part in pieces(len(sequences)):
            self._registry.refused((one, refused[one.id]) for one in sequences[part] if one.id in refused)
            for sequence, hold in zip(sequences[part], holds[part], strict=True):
                if (sequence.slot >= 0) == hold.awake:  # else it fell asleep meanwhile, or woke up
                    sequence.held = held
