"""Tells the store in good time which sequences are awake here and which sleep, and hears which are ours no more.

Knows no stream: whoever has a sequence that is gone hears of it from the residents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from server.durability.registry import Registry
from server.durability.sequence import ServedSequence
from server.errors import StoreFailed
from server.stores import store

if TYPE_CHECKING:
    from server.durability.store_thread import StoreThread

_EVERY = store.LEASE / 10  # seconds: an outage of the store may take up the rest of a lease
_BATCH = 1_000  # sequences that the store is told of at once


class Leases:
    """Lives in the event loop.

    Args:
        store_thread: tells the store.
        residents: who is here.
        clock: seconds since 1970, for the store.
        monotonic: seconds, for what is due.
    """

    def __init__(
        self, store_thread: StoreThread, registry: Registry, clock: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self._store_thread = store_thread
        self._registry = registry
        self._clock = clock
        self._monotonic = monotonic

    async def renew(self) -> None:
        """Of all that the store has not heard of for a while. What fails is due again the next time."""
        due = self._monotonic() - _EVERY
        sequences = [sequence for sequence in self._registry if sequence.born and sequence.held <= due]
        with suppress(StoreFailed):
            for first in range(0, len(sequences), _BATCH):
                await self._renew(sequences[first : first + _BATCH])

    async def _renew(self, sequences: Sequence[ServedSequence]) -> None:
        now, held = self._clock(), self._monotonic()
        holds = [store.Hold(sequence.id, sequence.fence, awake=sequence.slot >= 0) for sequence in sequences]
        refused = {r.id: r for r in await self._store_thread.ask(lambda s: s.hold(holds, now))}
        for sequence, hold in zip(sequences, holds, strict=True):
            if sequence.id in refused:
                self._refused(sequence, refused[sequence.id])
            if (sequence.slot >= 0) == hold.awake:  # else it fell asleep meanwhile, or woke up
                sequence.held = held

    def _refused(self, sequence: ServedSequence, refusal: store.Refused) -> None:
        """A store that does not know it may have lost its data, and is filled again by the next write."""
        is_old = refusal.reason is store.Reason.FENCED and refusal.fence <= sequence.fence
        if refusal.reason is not store.Reason.UNKNOWN and not is_old:
            self._registry.let_go(sequence, refusal.reason)
