"""How much may be open and kept: refuses what goes beyond, ends what nobody came back to, makes room for the rest."""

import logging
from collections.abc import Callable
from math import ceil

from server import store
from server.clerk import Clerk
from server.errors import OverLimit
from server.residents import Residents
from server.settings import Settings
from tidegate.v1 import error_pb2

log = logging.getLogger(__name__)


class Limits:
    """Lives in the event loop.

    Args:
        clerk: asks the store.
        residents: who counts, and who may not give way.
        settings: how many, and how much.
        clock: seconds since 1970, for the store.
    """

    def __init__(self, clerk: Clerk, residents: Residents, settings: Settings, clock: Callable[[], float]) -> None:
        self._clerk = clerk
        self._residents = residents
        self._settings = settings
        self._clock = clock
        self.full = False  # whether the store takes no new sequences
        self.usage = store.Usage(0, 0)  # of the store, when the limits were enforced last

    def check(self, owner: str, count: int) -> None:
        """Whether an owner may open so many more sequences.

        Raises:
            OverLimit: the owner has too many, or the store is full.
        """
        limit, has = self._settings.max_per_owner, self._residents.of_owner(owner)
        if limit and has + count > limit:
            raise OverLimit(
                f"'{owner}' has {has} sequences open here; {limit} is the limit", error_pb2.REASON_TOO_MANY_OF_OWNER
            )
        if self.full:
            raise OverLimit(
                f"the checkpoints take more than {self._settings.max_store_mib} MiB, and none may give way",
                error_pb2.REASON_STORE_FULL,
            )

    async def enforce(self) -> None:
        """Ends what nobody came back to, and makes room where a limit is passed.

        Raises:
            StoreFailed.
        """
        now = self._clock()
        await self._sweep(now)
        usage = self.usage = await self._clerk.ask(lambda s: s.usage())
        awake = frozenset(tenant.id for tenant in self._residents if tenant.slot >= 0)
        evicted: list[store.Evicted] = []
        surplus = self._surplus(usage, len(awake))
        if surplus > 0:
            evicted = await self._clerk.ask(lambda s: s.evict(surplus, now, spare=awake))
            log.warning("%d parked sequences gave way: a limit of the store is reached", len(evicted))
        for one in evicted:
            self._lose(one)
        self.full = usage.bytes - sum(one.bytes for one in evicted) > self._most_bytes

    async def _sweep(self, now: float) -> None:
        more = True
        while more:
            swept = await self._clerk.ask(lambda s: s.expire(now))
            self._residents.lost["SEQUENCE_EXPIRED"] += swept.expired
            more = swept.more

    @property
    def _most_bytes(self) -> float:
        return self._settings.max_store_mib * 2**20

    def _surplus(self, usage: store.Usage, awake: int) -> int:
        """How many have to give way."""
        surplus = usage.sequences - awake - self._settings.max_parked
        excess = usage.bytes - self._most_bytes
        if excess > 0:
            surplus = max(surplus, ceil(excess / max(1, usage.bytes / usage.sequences)))
        return surplus

    def _lose(self, one: store.Evicted) -> None:
        tenant = self._residents.get(one.id)
        if tenant is not None:
            self._residents.let_go(tenant, one.reason)
        else:
            self._residents.lost["SEQUENCE_EVICTED"] += 1
