"""Makes one checkpoint the last of an open sequence: an earlier one, or one of another version of its model.

Whoever asked puts the state in place. Does not wait for the next write of all, and does not run beside it. If it does
not become known whether the store has done it, the sequence is let go of: who resumes it finds out.
"""

from collections.abc import Callable, Sequence

import numpy as np

from server.durability import checkpoint
from server.durability.checkpoint import Checkpoint
from server.durability.checkpointer import Scribe
from server.durability.errands import Errands
from server.durability.losses import gone, kept_at
from server.durability.registry import Residents
from server.durability.snapshot import born
from server.durability.store_thread import Clerk
from server.durability.tenant import Tenant
from server.errors import StoreSilent, TidegateError
from server.runtime.served_model import ServedModel
from server.runtime.watermarks import NONE
from server.stores import store


class Anchors:
    """Lives in the event loop.

    Args:
        clerk: asks the store.
        residents: whose checkpoints these are.
        scribe: whose turn it may be.
        errands: carry out what waits for the store.
        clock: seconds since 1970, for the store.
    """

    def __init__(
        self, clerk: Clerk, residents: Residents, scribe: Scribe, errands: Errands, clock: Callable[[], float]
    ) -> None:
        self._clerk = clerk
        self._residents = residents
        self._scribe = scribe
        self._errands = errands
        self._clock = clock

    def go_back(self, tenant: Tenant, step: int, then: Callable[[Checkpoint | TidegateError], None]) -> None:
        """Makes the newest checkpoint at or before a step the last one; `then` puts it in place."""
        self._errands.run(self._clerk.in_time(self._gone_back(tenant, step)), then)

    def go_over(
        self,
        tenant: Tenant,
        model: ServedModel,
        step: int,
        row: np.ndarray,
        then: Callable[[TidegateError | None], None],
    ) -> None:
        """Makes the last one say that it goes on with another version of its model from this step and state [W] on."""
        data = checkpoint.encode(Checkpoint(model.name, model.version, model.loaded.sha256, step, row))
        self._errands.run(self._clerk.in_time(self._gone_over(tenant, step, data)), then)

    async def _gone_back(self, tenant: Tenant, step: int) -> Checkpoint:
        if not tenant.born:
            await self._scribe.write_soon()
        async with self._scribe.turn_soon():
            kept = kept_at(tenant, await self._seen(tenant), step)
            await self._write(tenant, kept.step, checkpoint.encode(kept))
            return kept

    async def _gone_over(self, tenant: Tenant, step: int, data: bytes) -> None:
        async with self._scribe.turn_soon():
            await self._seen(tenant)  # a store that does not answer is not asked to change anything
            await self._write(tenant, step, data)

    async def _seen(self, tenant: Tenant) -> store.Claimed | store.Gone:
        claims = [store.Claim(tenant.id, tenant.digest)]
        found = (await self._clerk.ask_soon(lambda s: s.read(claims, self._clock())))[0]
        if isinstance(found, store.Gone) and found.reason is not store.Reason.UNKNOWN:
            self._residents.let_go(tenant, found.reason)
        return found

    async def _write(self, tenant: Tenant, step: int, data: bytes) -> None:
        progress, slots = tenant.model.progress, np.array([tenant.slot])
        kept = progress.kept(slots)[0].tolist()
        progress.written[slots] = NONE  # until who asked has taken it up: it may be written although it fails
        refused = await self._write_alone(tenant, step, data, kept)
        if refused is store.Reason.UNKNOWN:  # the store has lost its data
            tenant.born = False
            refused = await self._write_alone(tenant, step, data, kept)
        if refused is not None:
            self._residents.let_go(tenant, refused)
            raise gone(tenant.id, refused)
        tenant.is_born()

    async def _write_alone(self, tenant: Tenant, step: int, data: bytes, kept: Sequence[int]) -> store.Reason | None:
        writes = list(born(tenant, store.Write(tenant.id, tenant.fence, step, data, spare=tuple(kept))))
        try:
            refused = await self._clerk.ask_soon(lambda s: s.write(writes, self._clock()))
        except StoreSilent:  # it may have been carried out, or will be: nobody here knows where the sequence stands
            self._residents.disown(tenant)
            raise
        return refused[0].reason if refused else None
