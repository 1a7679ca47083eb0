"""Limits on what is open and kept: refuses what goes beyond, expires what was parked for too long, evicts the rest."""

from __future__ import annotations

import logging
from asyncio import Semaphore
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING

from server.caller import Caller, account_of
from server.durability.pieces import PerAccount, pieces
from server.durability.registry import Registry
from server.durability.sequence import ServedSequence
from server.errors import OverLimit, Reason
from server.meter import LimitsOf
from server.settings import Settings
from server.stores import store
from server.stores.eviction import within

if TYPE_CHECKING:
    from server.durability.store_thread import StoreThread

log = logging.getLogger(__name__)

PORTION = 1_000  # ids in one call of the store; if one of them is unknown, the rest is not looked for
_CALLS = 16  # calls of one account that wait for the store: others wait behind no more of them
_MOST = 256  # owners in one call of the store
_SLICES = 32  # calls in which the store gives back space, in each round: other calls wait for one of them at most
_BATCH = 500  # sequences that are evicted in one call: other calls wait for one of them at most


@dataclass(eq=False)
class Limits:
    """Limits of owners, addresses and the store."""

    _store: StoreThread
    _registry: Registry
    _settings: Settings
    _limits_of: LimitsOf
    _active: set[str] = field(init=False, default_factory=set)  # owners not looked at since they were active
    full: bool = field(init=False, default=False)  # whether the store takes no new sequences
    usage: store.Usage = field(init=False, default=store.Usage(0, 0))  # when the limits were enforced last

    def check(self, caller: Caller, count: int) -> None:
        """Whether a caller may open so many more sequences.

        Raises:
            OverLimit: the owner has too many, or the store is full.
        """
        self._registry.quota.check(caller.owner, count, self._settings)
        if self.full:
            raise OverLimit(
                f"the store takes more than {self._settings.max_store_mib} MiB, and none may give way",
                Reason.STORE_FULL,
            )

    def expect(self, coming: Sequence[ServedSequence]) -> None:
        """Sequences are about to be resumed here, and count from now on; those that are open here count already.

        Raises:
            OverLimit: an owner would have too many; then none is expected.
        """
        new = Counter(sequence.owner for sequence in self._registry.unknown(coming))
        for owner, count in new.items():
            self._registry.quota.check(owner, count, self._settings)
        self._registry.expect(coming)

    async def enforce(self) -> None:
        """Expires what was parked for too long, evicts where a limit is passed, and has the store give back free space.

        Raises:
            StoreFailed.
        """
        await self._sweep()
        self._active |= self._registry.take_active()
        await self._enforce_by_account()
        await self._enforce_by_owner()
        await self._enforce_for_all()
        await self._shrink()

    async def _shrink(self) -> None:
        for _ in range(_SLICES):
            if not await self._store.ask(lambda s: s.shrink()):
                break

    async def _sweep(self) -> None:
        more = True
        while more:
            swept = await self._store.ask(lambda s: s.expire(self._registry.clock()))
            self._active |= swept.owners
            await self._lose(swept.expired, store.Reason.EXPIRED)
            more = swept.more

    # By owner ---------------------------------------------------------------------------------------------------------

    async def _enforce_by_owner(self) -> None:
        """Evicts sequences of each owner that has too many parked. Only owners that were active can have new ones."""
        if not self._settings.max_parked_per_owner:
            self._active.clear()
        while self._active:
            for owner, usage in (await self._usages(list(islice(self._active, _MOST)))).items():
                await self._make_way(owner, usage)
                self._active.discard(owner)

    async def _enforce_by_account(self) -> None:
        """Likewise of each token that has too many, however many owners it names."""
        for account in {account_of(owner) for owner in self._active}:
            if most := self._limits_of(account).parked:
                ranked = await self._store.ask(lambda s, account=account: s.parked_by(account))  # type: ignore[misc]
                for owner, count in within(ranked, sum(parked for _, parked in ranked) - most).items():
                    await self._evict(count, owner)

    async def _usages(self, owners: Sequence[str]) -> dict[str, store.Usage]:
        return await self._store.ask(lambda s: {owner: s.usage(owner) for owner in owners})

    async def _make_way(self, owner: str, usage: store.Usage) -> None:
        surplus = usage.parked - self._settings.max_parked_per_owner
        if surplus > 0:
            evicted = await self._evict(surplus, owner)
            log.warning("%d parked sequences of %.40r gave way: no owner may have more", len(evicted), owner)

    # Of all -----------------------------------------------------------------------------------------------------------

    async def _enforce_for_all(self) -> None:
        usage = await self._forget(await self._usage())
        surplus = self._surplus(usage)
        if surplus > 0:
            evicted = await self._evict(surplus)
            log.warning("%d parked sequences gave way: a limit of the store is reached", len(evicted))
            usage = await self._usage()
        self.usage = usage
        self.full = usage.taken > self._most_bytes

    async def _usage(self) -> store.Usage:
        return await self._store.ask(lambda s: s.usage())

    async def _forget(self, usage: store.Usage) -> store.Usage:
        """Where the store is too large, deletes tombstones before any sequence is evicted."""
        while usage.taken > self._most_bytes and usage.tombstones:
            await self._store.ask(lambda s: s.forget(_BATCH, self._registry.clock()))
            usage = await self._usage()
        return usage

    @property
    def _most_bytes(self) -> float:
        return self._settings.max_store_mib * 2**20

    def _surplus(self, usage: store.Usage) -> int:
        """How many parked sequences have to be evicted."""
        surplus = usage.parked - self._settings.max_parked
        excess = usage.taken - self._most_bytes
        if excess > 0 and usage.sequences:
            surplus = max(surplus, ceil(excess / (usage.taken / usage.sequences)))
        return surplus

    # Both -------------------------------------------------------------------------------------------------------------

    async def _evict(self, count: int, owner: str | None = None) -> list[store.Evicted]:
        """Ends those that were parked longest ago, a batch at a time; fewer, if no more are parked."""
        gone: list[store.Evicted] = []
        while len(gone) < count:
            batch = min(_BATCH, count - len(gone))
            now = self._registry.clock()  # of each call: an old one would put back what the store has seen to pass
            evicted = await self._store.ask(lambda s, most=batch, now=now: s.evict(most, now, owner=owner))  # type: ignore[misc]
            gone += evicted
            for reason in (store.Reason.EVICTED, store.Reason.EXPIRED):
                await self._lose([one.id for one in evicted if one.reason is reason], reason)
            if len(evicted) < batch:
                break
        return gone

    async def _lose(self, ids: Sequence[str], reason: store.Reason) -> None:
        """Counts sequences that this server has ended in the store; those that are open here leave their streams."""
        if ids:
            self._registry.lost[f"SEQUENCE_{reason.name}"] += len(ids)
        async for part in pieces(len(ids)):
            here = self._registry.those_here(ids[part])
            known = {sequence.id for sequence in here}
            self._registry.lives.gone([id_ for id_ in ids[part] if id_ not in known], f"sequence_{reason}")
            self._registry.let_go(here, reason)


class Lookups:
    """How many sequences each account has the store look for: as many at a time as it may have open, in a few calls.

    A client that asks for ids that it made up delays no other client. `most`: ids of an account, 0 for any number.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._asked: Counter[str] = Counter()  # ids, by account
        self._turns = PerAccount(_CALLS)

    def begin(self, caller: Caller, count: int) -> None:
        """A client asks for so many more, until `end`. Raises OverLimit: then nothing has begun."""
        asked = self._asked[caller.account]
        if self._most and asked + count > self._most:
            raise OverLimit(
                f"{asked} sequences are being resumed {caller.whence}, and {count} more were asked for; "
                f"{self._most} is the limit",
                Reason.TOO_MANY_OF_OWNER,
            )
        self._asked[caller.account] += count

    def end(self, caller: Caller, count: int) -> None:
        self._asked[caller.account] -= count
        if not self._asked[caller.account]:
            del self._asked[caller.account]

    def turn(self, caller: Caller) -> Semaphore:
        """To be entered for the time of a call: waits until the account has fewer under way than it may have."""
        return self._turns.turn(caller.account)
