"""Open sequences that are parked because no step came for long: gives up their slots, and brings them back.

And those that were resumed, and have not taken a step since, where the store knows of later ones: makes them ready too.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from math import inf

import numpy as np

from server.durability import checkpoint
from server.durability.checkpoint import Checkpoint
from server.durability.errands import Errands
from server.durability.registry import Residents
from server.durability.sequence import Move
from server.durability.snapshot import taken, writes
from server.durability.store_thread import Clerk
from server.durability.tenant import Tenant
from server.errors import StoreFailed, StoreSilent, TidegateError
from server.runtime.served_model import ServedModel
from server.runtime.watermarks import NONE
from server.stores import store
from tidegate.v1 import error_pb2

_MOST = 4_096  # sequences of one model that are parked at once

_Found = Mapping[Tenant, store.Claimed | store.Gone]


class Sleepers:
    """Lives in the event loop.

    Args:
        clerk: asks the store.
        residents: who may sleep, and does.
        errands: carry out what waits for the store.
        patience: how long a sequence goes without a step before it is idle, in seconds.
        clock: seconds since 1970, for the store.
        monotonic: seconds, for what is idle.
    """

    def __init__(
        self,
        clerk: Clerk,
        residents: Residents,
        errands: Errands,
        patience: float,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._clerk = clerk
        self._residents = residents
        self._errands = errands
        self._patience = patience
        self._clock = clock
        self._monotonic = monotonic
        self._called: list[Tenant] = []  # in this turn of the loop
        self._reading: Awaitable[_Found]

    # Falling asleep ---------------------------------------------------------------------------------------------------

    def sleep(self, tenant: Tenant) -> None:
        """An open sequence gives up its slot; what it holds is written."""
        tenant.move(Move.PARK)
        tenant.steps = int(tenant.model.slots.done[tenant.slot])
        tenant.standing = tenant.model.progress.standing(tenant.slot)
        self._residents.vacate(tenant)
        self._residents.note([tenant])
        tenant.slot, tenant.held = -1, -inf  # the store hears of it when the house is kept
        tenant.model.tally.parked += 1

    def park_idle(self) -> None:
        """Has those that are idle fall asleep."""
        for model in self._residents.models():
            self._put_to_sleep(model, _MOST)

    def make_room(self, model: ServedModel, wanted: int) -> None:
        """Has those that are idle fall asleep, the longest idle first, if the slots would not do."""
        missing = wanted - model.slots.free
        if missing > 0:
            self._put_to_sleep(model, missing)

    def _put_to_sleep(self, model: ServedModel, most: int) -> None:
        idle = model.progress.idle(model.slots.done, self._monotonic() - self._patience)
        tenants = self._residents.at(model)
        for slot in idle.tolist():
            if most <= 0:
                return
            tenant = tenants.get(slot)
            if tenant is not None and tenant.holder is not None and tenant.holder.put_to_sleep(tenant):
                most -= 1

    # Waking up --------------------------------------------------------------------------------------------------------

    def wake(self, tenants: Sequence[Tenant], then: Callable[[TidegateError | None], None]) -> None:
        """Makes sequences ready for a step; `then` hears when they are, or why not. See `Keeper.wake`."""
        self._errands.run(self._make_ready(tenants), then)

    async def _make_ready(self, tenants: Sequence[Tenant]) -> None:
        asleep = [tenant for tenant in tenants if tenant.slot < 0]
        if asleep:
            await self._bring_back(asleep)
        branched = [tenant for tenant in tenants if tenant.branched and tenant.slot >= 0]
        if branched:
            await self._cut_off(branched)

    async def _bring_back(self, tenants: Sequence[Tenant]) -> None:
        kept = await self._read(tenants)
        for tenant in tenants:
            found = kept[tenant]
            if tenant.slot >= 0 or tenant not in self._residents:
                continue  # it woke up, or left, meanwhile
            if isinstance(found, store.Claimed) and found.fence == tenant.fence:
                self._return(tenant, checkpoint.newest(found.checkpoints, tenant.steps).checkpoint)
            else:
                reason = store.Reason.FENCED if isinstance(found, store.Claimed) else found.reason
                self._residents.let_go(tenant, reason)

    def _read(self, tenants: Sequence[Tenant]) -> Awaitable[_Found]:
        """What the store has of them; it is asked once for all that are called in one turn of the event loop."""
        if not self._called:
            self._reading = asyncio.ensure_future(self._read_all())
        self._called.extend(tenants)
        return self._reading

    async def _read_all(self) -> _Found:
        called, self._called = self._called, []
        claims = [store.Claim(tenant.id, tenant.digest) for tenant in called]
        holds = [store.Hold(tenant.id, tenant.fence, awake=True) for tenant in called]
        now = self._clock()
        kept = await self._clerk.ask_soon(lambda s: _woken(s, holds, claims, now))
        for model, count in Counter(tenant.model for tenant in called).items():
            self.make_room(model, count)  # for all at once: who looks for the idle looks at every slot
        return dict(zip(called, kept, strict=True))

    def _return(self, tenant: Tenant, kept: Checkpoint | None) -> None:
        if kept is None or kept.step != tenant.steps:  # the newest is damaged: its client can go back further
            self._residents.lose([tenant], error_pb2.REASON_DRAINING, "sequence '{}' has to be resumed")
            return
        model = tenant.model
        self.make_room(model, 1)
        slots = model.slots.take(1)
        tenant.move(Move.RESUME)
        row = model.graph.initial if kept.state is None else kept.state
        model.slots.restore(slots, row[np.newaxis], np.array([kept.step]))
        self._residents.wake(tenant, slots.item(), kept.step)

    # Going another way ------------------------------------------------------------------------------------------------

    async def _cut_off(self, tenants: Sequence[Tenant]) -> None:
        """Has the store forget what is later than where these stand: they go on from here, perhaps with other inputs.

        Not when they are claimed, because a claim may be carried out late; who sends a step has heard where it stands.
        """
        models = dict.fromkeys(tenant.model for tenant in tenants)
        snapshots = [taken([tenant for tenant in tenants if tenant.model is model]) for model in models]
        now, unfit = self._clock(), set[Tenant]()
        try:
            refused = await self._clerk.ask_soon(lambda s: s.write(list(writes(snapshots, unfit)), now))
        except StoreSilent:
            for tenant in tenants:
                self._residents.disown(tenant)
            raise
        why = {refusal.id: refusal.reason for refusal in refused}
        for tenant in tenants:
            if tenant in unfit:
                self._residents.disown(tenant)
            else:
                self._note_cut_off(tenant, why.get(tenant.id))

    def _note_cut_off(self, tenant: Tenant, refused: store.Reason | None) -> None:
        if refused is None:
            tenant.is_born()
        elif refused is store.Reason.UNKNOWN:  # the store has lost its data, and with it what was to go
            tenant.born = tenant.branched = False
            if tenant.slot >= 0:
                tenant.model.progress.written[tenant.slot] = NONE
        else:
            self._residents.let_go(tenant, refused)


def _woken(
    kept: store.Store, holds: Sequence[store.Hold], claims: Sequence[store.Claim], now: float
) -> list[store.Claimed | store.Gone]:
    """What is kept of sequences that give way to nobody from now on, unless the store takes no writes."""
    with suppress(StoreFailed):
        kept.hold(holds, now)
    return kept.read(claims, now)
