"""Tells the store in good time which sequences are awake here and which sleep, and hears which are ours no more.

Knows no stream: whoever has a sequence that is gone hears of it from the residents.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

from server.durability.registry import Residents
from server.durability.store_thread import Clerk
from server.durability.tenant import Tenant
from server.errors import StoreFailed
from server.stores import store

_EVERY = store.LEASE / 10  # seconds: an outage of the store may take up the rest of a lease
_BATCH = 1_000  # sequences that the store is told of at once


class Leases:
    """Lives in the event loop.

    Args:
        clerk: tells the store.
        residents: who is here.
        clock: seconds since 1970, for the store.
        monotonic: seconds, for what is due.
    """

    def __init__(
        self, clerk: Clerk, residents: Residents, clock: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self._clerk = clerk
        self._residents = residents
        self._clock = clock
        self._monotonic = monotonic

    async def renew(self) -> None:
        """Of all that the store has not heard of for a while. What fails is due again the next time."""
        due = self._monotonic() - _EVERY
        tenants = [tenant for tenant in self._residents if tenant.born and tenant.held <= due]
        with suppress(StoreFailed):
            for first in range(0, len(tenants), _BATCH):
                await self._renew(tenants[first : first + _BATCH])

    async def _renew(self, tenants: Sequence[Tenant]) -> None:
        now, held = self._clock(), self._monotonic()
        holds = [store.Hold(tenant.id, tenant.fence, awake=tenant.slot >= 0) for tenant in tenants]
        refused = {r.id: r for r in await self._clerk.ask(lambda s: s.hold(holds, now))}
        for tenant, hold in zip(tenants, holds, strict=True):
            if tenant.id in refused:
                self._refused(tenant, refused[tenant.id])
            if (tenant.slot >= 0) == hold.awake:  # else it fell asleep meanwhile, or woke up
                tenant.held = held

    def _refused(self, tenant: Tenant, refusal: store.Refused) -> None:
        """A store that does not know it may have lost its data, and is filled again by the next write."""
        is_old = refusal.reason is store.Reason.FENCED and refusal.fence <= tenant.fence
        if refusal.reason is not store.Reason.UNKNOWN and not is_old:
            self._residents.let_go(tenant, refusal.reason)
