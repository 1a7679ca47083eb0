"""Writes the checkpoints of all sequences that have moved since, in one write, off the path of a step.

What is written together is a copy of states taken while no step is half done. Knows no stream and no limit.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from server.durability.outbox import Departures
from server.durability.registry import Residents
from server.durability.sequence import Life, Move
from server.durability.snapshot import Snapshot, writes
from server.durability.store_thread import Clerk
from server.durability.tenant import Tenant
from server.errors import StoreFailed
from server.runtime.served_model import ServedModel
from server.runtime.watermarks import NONE
from server.stores import store
from tidegate.v1 import error_pb2

log = logging.getLogger(__name__)

_MOST = 4_096  # checkpoints of one model in one write


class Scribe:
    """Lives in the event loop.

    Args:
        clerk: asks the store.
        residents: whose states are written.
        departures: what else is.
        most_steps: how far a sequence may be ahead of its checkpoint before it is hurried.
        clock: seconds since 1970, for the store.
        monotonic: seconds, for what is behind.
    """

    def __init__(
        self,
        clerk: Clerk,
        residents: Residents,
        departures: Departures,
        most_steps: int,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._clerk = clerk
        self._residents = residents
        self._departures = departures
        self._most_steps = most_steps
        self._clock = clock
        self._monotonic = monotonic
        self._hurried = asyncio.Event()
        self._complete = monotonic()  # when everything was written last
        self._cut = False  # whether there was more than one write takes
        self._turn = asyncio.Lock()  # one write at a time, whoever writes

    # When -------------------------------------------------------------------------------------------------------------

    def hurry(self) -> None:
        """There is something to write: `rest` ends."""
        self._hurried.set()

    async def rest(self, seconds: float) -> bool:
        """Waits until so long after everything was written, or until hurried; whether everything is to be written now.

        Does not wait if it was hurried while the last write went on.
        """
        due = self._complete + seconds
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurried.wait(), due - self._monotonic())
        self._hurried.clear()
        return self._monotonic() >= due

    def _watch(self, model: ServedModel) -> None:
        """Hurries once a sequence is as far ahead of its checkpoint as it may be."""
        left = self._most_steps - model.progress.lag(model.slots.done)
        if left > 0:  # no sequence can be so far before that many rounds
            model.batcher.remind(left, lambda: self._watch(model))
        else:
            self.hurry()

    # Writing ----------------------------------------------------------------------------------------------------------

    async def checkpoint(self, everything: bool = True) -> None:
        """Writes the states of all sequences that have moved since, in one write.

        Or else only of those that are new or far ahead of their checkpoint: whoever is fast does not have the slow
        written at its own pace.

        Raises:
            StoreFailed: nothing is lost: they are written the next time.
        """
        async with self._turn:
            farewells = self._departures.take()
            self._cut = False
            try:
                least = 1 if everything else max(1, self._most_steps // 2)
                snapshots = [s for model in self._residents.models() if (s := await self._snapshot(model, least))]
                await self._write([*farewells, *snapshots])
            except BaseException:
                self._departures.put_back(farewells)
                raise
            for farewell in farewells:
                self._residents.note(farewell.tenants)
            await self._write_ends()
            for model in self._residents.models():
                self._tell(model)
                self._watch(model)
            if everything and not self._cut:
                self._complete = self._monotonic()

    async def write_soon(self) -> None:
        """For somebody who waits. If it fails, what is asked next fails too, and says so.

        Raises:
            StoreSilent: it took too long.
        """
        with suppress(StoreFailed):
            await self._clerk.soon(self.checkpoint)

    @asynccontextmanager
    async def turn_soon(self) -> AsyncIterator[None]:
        """Nobody writes meanwhile.

        Raises:
            StoreSilent: whoever does took too long.
        """
        await self._clerk.soon(self._turn.acquire)
        try:
            yield
        finally:
            self._turn.release()

    async def _snapshot(self, model: ServedModel, least: int) -> Snapshot | None:
        taken: asyncio.Future[Snapshot | None] = asyncio.get_running_loop().create_future()

        def copy() -> None:
            if taken.done():
                return
            try:
                taken.set_result(self._copy(model, least))
            except Exception as error:  # noqa: BLE001 - it is heard where the snapshot is waited for
                taken.set_exception(error)

        model.batcher.pause(copy)
        return await taken

    def _copy(self, model: ServedModel, least: int) -> Snapshot | None:
        tenants, progress = self._residents.at(model), model.progress
        slots = progress.behind(model.slots.done, _MOST, least)
        now = self._monotonic()
        progress.look(model.slots.done, now)
        progress.seen[slots] = now
        if len(slots) == _MOST:
            self._cut = True
            self.hurry()
        if not len(slots):
            return None
        who = tuple(tenants[slot] for slot in slots.tolist())
        steps, rows = model.slots.done[slots], model.slots.gather(slots)
        return Snapshot(model, who, steps, rows, progress.kept(slots), now)

    async def _write(self, snapshots: Sequence[Snapshot]) -> None:
        if not snapshots:
            return
        now, held = self._clock(), self._monotonic()
        unfit: set[Tenant] = set()
        refused = await self._clerk.ask(lambda s: s.write(list(writes(snapshots, unfit)), now))
        self._give_up(unfit)
        unwanted = {r.id: r for r in refused}
        for snapshot in snapshots:
            self._note(snapshot, unwanted, unfit, held)
        if any(r.reason is store.Reason.UNKNOWN for r in refused):
            self._write_anew(snapshots, unwanted)

    async def _write_ends(self) -> None:
        ends = self._departures.ends()
        if ends:
            await self._clerk.ask(lambda s: s.end(ends, self._clock()))
            self._departures.ended(len(ends))

    # What came of it --------------------------------------------------------------------------------------------------

    def _note(
        self, snapshot: Snapshot, refused: Mapping[str, store.Refused], unfit: Collection[Tenant], held: float
    ) -> None:
        """What was written, and what was not wanted because the sequence is not ours any more."""
        model, tenants = snapshot.model, self._residents.at(snapshot.model)
        for tenant, step in zip(snapshot.tenants, snapshot.steps.tolist(), strict=True):
            if tenant in unfit:
                continue
            refusal = refused.get(tenant.id)
            if refusal is None or _is_old(refusal, tenant):
                model.tally.written += 1
                _note_written(tenant, step)
                if tenants.get(tenant.slot) is tenant:
                    model.progress.written[tenant.slot] = step
                    model.progress.safe_at[tenant.slot] = snapshot.moment
                    tenant.held = held
            elif refusal.reason is store.Reason.UNKNOWN:
                tenant.born = False
            else:
                self._residents.let_go(tenant, refusal.reason)

    def _give_up(self, tenants: Iterable[Tenant]) -> None:
        """Their states cannot be written, so nothing that is said of their checkpoints could be kept."""
        for tenant in tenants:
            log.error("sequence '%s' is given up", tenant.id)
            if tenant in self._residents:
                sentence = "the state of sequence '{}' cannot be written; the server's log has the details"
                self._residents.lose([tenant], error_pb2.REASON_INTERNAL, sentence)

    def _write_anew(self, snapshots: Iterable[Snapshot], refused: Mapping[str, store.Refused]) -> None:
        """The store has lost its data: whatever is known here is made known to it again."""
        log.warning("the store of checkpoints has lost sequences; they are written again")
        for snapshot in snapshots:
            lost = [at for at, t in enumerate(snapshot.tenants) if self._has_left(t) and t.id in refused]
            left = [at for at in lost if refused[snapshot.tenants[at].id].reason is store.Reason.UNKNOWN]
            if left:
                self._departures.add([snapshot.left(left)])
        for model in self._residents.models():
            model.progress.written[list(self._residents.at(model))] = NONE
        for tenant in self._residents:
            tenant.born = False
        self.hurry()

    def _has_left(self, tenant: Tenant) -> bool:
        return self._residents.get(tenant.id) is None

    def _tell(self, model: ServedModel) -> None:
        slots = model.progress.tell()
        tenants = self._residents.at(model)
        for holder in dict.fromkeys(tenants[slot].holder for slot in slots.tolist()):
            if holder is not None:
                holder.tell()


def _is_old(refusal: store.Refused, tenant: Tenant) -> bool:
    """Whether it is only of an earlier stay: one write can hold a sequence as it left one stream, and goes on here."""
    return refusal.reason is store.Reason.FENCED and refusal.fence <= tenant.fence


def _note_written(tenant: Tenant, step: int) -> None:
    tenant.is_born()
    if step > tenant.steps and tenant.life in (Life.OPEN, Life.RESUMED):
        tenant.move(Move.STEP)
