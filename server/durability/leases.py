"""Renews the leases of this server's sequences in the store; lets go of those that belong to another server now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.durability.pieces import pieces
from server.durability.registry import Registry
from server.durability.sequence import ServedSequence
from server.errors import StoreFailed
from server.stores import store

if TYPE_CHECKING:
    from server.durability.store_thread import StoreThread

_EVERY = store.LEASE / 10  # seconds: an outage of the store may take up the rest of a lease
_BATCH = 500  # sequences that the store is told of at once


@dataclass(eq=False)
class Leases:
    """What the store is told of who is awake."""

    _store: StoreThread
    _registry: Registry

    async def renew(self) -> None:
        """Of all that the store has not heard of for a while. What fails is due again the next time."""
        due = self._registry.monotonic() - _EVERY
        sequences = list(self._registry)
        with suppress(StoreFailed):
            for first in range(0, len(sequences), _BATCH):
                await asyncio.sleep(0)
                here = (sequence for sequence in sequences[first : first + _BATCH] if sequence in self._registry)
                late = [sequence for sequence in here if sequence.born and sequence.held <= due]
                if late:
                    await self._renew(late)

    async def _renew(self, sequences: Sequence[ServedSequence]) -> None:
        now, held = self._registry.clock(), self._registry.monotonic()
        holds = [store.Hold(sequence.id, sequence.fence, awake=sequence.slot >= 0) for sequence in sequences]
        refused = {r.id: r for r in await self._store.ask(lambda s: s.hold(holds, now))}
        async for part in pieces(len(sequences)):
            self._note(sequences[part], holds[part], refused, held)

    def _note(
        self,
        sequences: Sequence[ServedSequence],
        holds: Sequence[store.Hold],
        refused: Mapping[str, store.Refused],
        held: float,
    ) -> None:
        foreign: dict[store.Reason, list[ServedSequence]] = {}
        for sequence, hold in zip(sequences, holds, strict=True):
            refusal = refused.get(sequence.id)
            if refusal is not None and not _may_be_ours(refusal, sequence):
                foreign.setdefault(refusal.reason, []).append(sequence)
            if (sequence.slot >= 0) == hold.awake:  # else it fell asleep meanwhile, or woke up
                sequence.held = held

        for reason, those in foreign.items():
            self._registry.let_go(those, reason)


def _may_be_ours(refusal: store.Refused, sequence: ServedSequence) -> bool:
    """A store that does not know a sequence may have lost its data, and is filled again by the next write."""
    is_old = refusal.reason is store.Reason.FENCED and refusal.fence <= sequence.fence
    return is_old or refusal.reason is store.Reason.UNKNOWN
