"""Open sequences that are parked because no step came for long: gives up their slots, and brings them back."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf

import numpy as np

from server import checkpoint, store
from server.checkpoint import Checkpoint
from server.clerk import Clerk
from server.errands import Errands
from server.errors import StoreFailed, TidegateError
from server.model import ServedModel
from server.residents import Residents
from server.sequence import Move
from server.tenant import Tenant
from tidegate.v1 import error_pb2

_MOST = 4_096  # sequences of one model that are parked at once


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

    # Falling asleep ---------------------------------------------------------------------------------------------------

    def sleep(self, tenant: Tenant) -> None:
        """An open sequence gives up its slot; what it holds is written."""
        tenant.move(Move.PARK)
        tenant.steps = int(tenant.model.slots.done[tenant.slot])
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
        """Puts sleeping sequences back into slots; `then` hears when they are there, or why not."""
        self._errands.run(self._bring_back(tenants), then)

    async def _bring_back(self, tenants: Sequence[Tenant]) -> None:
        claims = [store.Claim(tenant.id, tenant.digest) for tenant in tenants]
        now = self._clock()
        holds = [store.Hold(tenant.id, tenant.fence, awake=True) for tenant in tenants]
        kept = await self._clerk.ask_soon(lambda s: _woken(s, holds, claims, now))
        for tenant, found in zip(tenants, kept, strict=True):
            if tenant.slot >= 0 or tenant not in self._residents:
                continue  # it woke up, or left, meanwhile
            if isinstance(found, store.Claimed) and found.fence == tenant.fence:
                self._return(tenant, checkpoint.newest(found.checkpoints).checkpoint)
            else:
                reason = store.Reason.FENCED if isinstance(found, store.Claimed) else found.reason
                self._residents.let_go(tenant, reason)

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


def _woken(
    kept: store.Store, holds: Sequence[store.Hold], claims: Sequence[store.Claim], now: float
) -> list[store.Claimed | store.Gone]:
    """What is kept of sequences that give way to nobody from now on, unless the store takes no writes."""
    with suppress(StoreFailed):
        kept.hold(holds, now)
    return kept.read(claims, now)
