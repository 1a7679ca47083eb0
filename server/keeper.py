"""Keeps the sequences of this server beyond their streams: checkpoints them, parks, restores and ends them.

Lives in the event loop. The store is asked by the clerk, off the path of a step; what is written together is a copy of
states taken while no step is half done. Knows no gRPC; who holds a sequence hears through `Holder`.
"""

import asyncio
import hashlib
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count as counter
from secrets import token_urlsafe
from typing import Any, Protocol, TypeVar

import numpy as np

from server import checkpoint, store
from server.checkpoint import Checkpoint
from server.clerk import Clerk
from server.errors import OverLimit, SequenceGone, StoreFailed, StoreSilent, TidegateError
from server.losses import WHY, gone, kept_at
from server.model import ServedModel
from server.progress import NONE
from server.sequence import Life, Move
from server.settings import Settings
from server.snapshot import Snapshot, born, writes
from server.tenant import Tenant, new_ids
from tidegate.v1 import error_pb2

log = logging.getLogger(__name__)

T = TypeVar("T")

_MOST = 4_096  # checkpoints of one model in one write
_FAREWELLS = 100_000  # parked states, and ends, that may wait for a store that does not answer
_HOUSEKEEPING = 5.0  # seconds between two looks at limits and retention
_BACKOFF = 0.1, 2.0  # seconds: the first and the longest wait after a failure of the store


class Exact(Protocol):
    """Where the very model of a checkpoint is found."""

    def exact(self, name: str, version: int, sha256: str) -> ServedModel:
        """The model of this content. Raises Refusal."""


@dataclass(frozen=True, eq=False)
class Enrolled:
    """Sequences that were opened together: their ids, and the secret that resumes them."""

    tenants: tuple[Tenant, ...]
    token: str


@dataclass(frozen=True, eq=False)
class Restored:
    """A sequence that was claimed, and the checkpoint to go on from."""

    tenant: Tenant
    checkpoint: Checkpoint
    answered: int  # how many answers its client has


class Keeper:
    """All sequences that are open here.

    Args:
        clerk: asks the store.
        settings: how often, how many, how long.
        models: finds the model of a checkpoint.
        clock: seconds since 1970, for the store.
        monotonic: seconds, for what is idle.
    """

    def __init__(
        self,
        clerk: Clerk,
        settings: Settings,
        models: Exact,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clerk = clerk
        self._settings = settings
        self._models = models
        self._clock = clock
        self.monotonic = monotonic
        self._here: dict[str, Tenant] = {}
        self._by_slot: dict[ServedModel, dict[int, Tenant]] = {}
        self._owners: Counter[str] = Counter()
        self._farewells: deque[Snapshot] = deque()
        self._ends: list[store.End] = []  # after a write that may be creating them
        self._claiming: dict[str, int] = {}  # the number of the last that wants a sequence, while the store is asked
        self._numbers = counter()
        self._errands: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()  # one write at a time
        self._awake = asyncio.Event()
        self._full = False
        # for the metrics
        self.lost: Counter[str] = Counter()  # by reason
        self.usage = store.Usage(0, 0)  # of the store, when the house was kept last

    # Opening ----------------------------------------------------------------------------------------------------------

    def enrol(
        self,
        model: ServedModel,
        slots: np.ndarray,
        owner: str,
        route: str,
        steps: int = 0,
        origin: np.ndarray | None = None,
    ) -> Enrolled:
        """Takes in new sequences that live in these slots after so many steps, with this state [W] or the initial one.

        Their ids begin with `route`.

        Raises:
            OverLimit: the owner has too many, or the store is full.
        """
        limit = self._settings.max_per_owner
        if limit and self._owners[owner] + len(slots) > limit:
            raise OverLimit(
                f"'{owner}' has {self._owners[owner]} sequences open here; {limit} is the limit",
                error_pb2.REASON_TOO_MANY_OF_OWNER,
            )
        if self._full:
            raise OverLimit(
                f"the checkpoints take more than {self._settings.max_store_mib} MiB, and none may give way",
                error_pb2.REASON_STORE_FULL,
            )
        token = token_urlsafe(18)
        digest = _digest(token)
        tenants = tuple(
            Tenant(name, digest, owner, model, slot, steps=steps, new=True, origin=origin)
            for name, slot in zip(new_ids(len(slots), route), slots.tolist(), strict=True)
        )
        self._move_in(tenants)
        model.progress.begin(slots, steps, NONE, self.monotonic())
        self._awake.set()
        return Enrolled(tenants, token)

    def claim(
        self,
        ids: Sequence[str],
        token: str,
        answered: Sequence[int],
        then: Callable[[list[Restored] | TidegateError], None],
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Takes over sequences that were opened before; `then` hears of all of them, or why not.

        Those that are open here on another stream leave it. Their states still have to be put into slots, and
        `settle` be called, by `then` itself. Of several that want the same sequence the one that came last gets it,
        however slow the store is; none who says that it is not `wanted` any more.
        """
        now, digest = (
            self._clock(),
            _digest(token),
        )  # as it was asked for: if it is carried out late, the store sees that
        claims = [store.Claim(id_, digest) for id_ in ids]
        number = next(self._numbers)
        self._claiming.update(dict.fromkeys(ids, number))

        def done(found: list[Restored] | TidegateError) -> None:
            for id_ in ids:
                if self._claiming.get(id_) == number:
                    del self._claiming[id_]
            then(found)

        self._errand(self._claimed(number, claims, now, answered, wanted), done)

    async def _claimed(
        self,
        number: int,
        claims: Sequence[store.Claim],
        now: float,
        answered: Sequence[int],
        wanted: Callable[[], bool],
    ) -> list[Restored]:
        ids = [claim.id for claim in claims]
        here = [self._here[i] for i in ids if i in self._here]
        if self._farewells or self._ends or any(not tenant.born for tenant in here):
            await self._write_soon()
        late = next((i for i in ids if self._claiming.get(i) != number), None if wanted() else ids[0])
        if late is not None:
            raise gone(late, store.Reason.FENCED)
        answers = await self._clerk.ask_soon(lambda s: s.claim(claims, now))
        for id_, claimed in zip(ids, answers, strict=True):
            if isinstance(claimed, store.Claimed):
                self._give_way(id_, claimed.fence)
        found = zip(claims, answers, answered, strict=True)
        return [self._restored(claim.id, claim.digest, claimed, step) for claim, claimed, step in found]

    def _give_way(self, name: str, fence: int) -> None:
        """Whoever has a sequence here under an older number leaves it. Raises SequenceGone: its number is newer."""
        tenant = self._here.get(name)
        if tenant is None:
            return
        if tenant.fence >= fence:
            raise gone(name, store.Reason.FENCED)
        self._lose([tenant], error_pb2.REASON_TAKEN_OVER, "sequence '{}' goes on on another stream")

    def _restored(self, name: str, digest: bytes, claimed: store.Claimed | store.Gone, answered: int) -> Restored:
        if isinstance(claimed, store.Gone) and claimed.reason is store.Reason.FENCED:
            raise StoreSilent(f"the store was too slow: another has claimed sequence '{name}' since; try again")
        if isinstance(claimed, store.Gone):
            raise gone(name, claimed.reason)
        found = checkpoint.newest(claimed.checkpoints, answered)
        for refused in found.refused:
            log.warning("a checkpoint of sequence '%s' is passed over: %s", name, refused)
        kept = found.checkpoint
        if kept is None:
            raise SequenceGone(
                f"no checkpoint of sequence '{name}' is kept at or before step {answered}",
                error_pb2.REASON_CHECKPOINT_GONE,
            )
        model = self._models.exact(kept.model, kept.version, kept.sha256)
        tenant = Tenant(
            name, digest, claimed.owner, model, -1, claimed.fence, born=True, life=Life.PARKED, steps=kept.step
        )
        tenant.move(Move.RESUME)
        return Restored(tenant, kept, answered)

    def settle(self, restored: Sequence[Restored], slots: np.ndarray) -> None:
        """What was claimed lives in these slots from now on."""
        model = restored[0].tenant.model
        steps = np.array([r.checkpoint.step for r in restored])
        rows = [model.graph.initial if r.checkpoint.state is None else r.checkpoint.state for r in restored]
        model.slots.restore(slots, np.stack(rows), steps)
        for r, slot in zip(restored, slots.tolist(), strict=True):
            r.tenant.slot = slot
        self._move_in([r.tenant for r in restored])
        model.progress.begin(slots, steps, steps, self.monotonic())
        model.progress.come_back(slots, [r.answered for r in restored])
        model.tally.resumed += len(restored)

    # Leaving ----------------------------------------------------------------------------------------------------------

    def park(self, tenants: Sequence[Tenant]) -> None:
        """These sequences leave their stream, after all of its steps; their last states are written."""
        here = [tenant for tenant in tenants if tenant.slot >= 0]
        for tenant in tenants:
            if tenant.life is not Life.PARKED:
                tenant.move(Move.PARK)
                tenant.model.tally.parked += 1
        if here:
            model, slots = here[0].model, np.array([tenant.slot for tenant in here])
            done = model.slots.done[slots]
            if sum(len(waiting.tenants) for waiting in self._farewells) < _FAREWELLS:
                rows = model.slots.gather(slots)
                self._farewells.append(Snapshot(model, tuple(here), done, rows, model.progress.kept(slots)))
            self._awake.set()
        self._move_out(tenants)

    def end(self, tenants: Sequence[Tenant]) -> None:
        """The client has closed these sequences."""
        for tenant in tenants:
            tenant.move(Move.END)
        self._move_out(tenants)
        if len(self._ends) < _FAREWELLS:  # else they stay until they expire
            self._ends.extend(store.End(tenant.id, tenant.fence, store.Reason.ENDED) for tenant in tenants)
        self._awake.set()

    def _lose(self, tenants: Sequence[Tenant], reason: int, sentence: str) -> None:
        for tenant in tenants:
            if tenant.holder is not None:
                tenant.holder.take_away([tenant], SequenceGone(sentence.format(tenant.id), reason))
            tenant.move(Move.LOSE)
            self.lost[error_pb2.Reason.Name(reason).removeprefix("REASON_")] += 1
        self._move_out(tenants)

    # Sleeping ---------------------------------------------------------------------------------------------------------

    def sleep(self, tenant: Tenant) -> None:
        """An open sequence gives up its slot; what it holds is written."""
        tenant.move(Move.PARK)
        tenant.steps = int(tenant.model.slots.done[tenant.slot])
        self._vacate([tenant])
        tenant.slot = -1
        tenant.model.tally.parked += 1

    def wake(self, tenants: Sequence[Tenant], then: Callable[[TidegateError | None], None]) -> None:
        """Puts sleeping sequences back into slots; `then` hears when they are there, or why not."""
        self._errand(self._bring_back(tenants), then)

    async def _bring_back(self, tenants: Sequence[Tenant]) -> None:
        claims = [store.Claim(tenant.id, tenant.digest) for tenant in tenants]
        now = self._clock()
        kept = await self._clerk.ask_soon(lambda s: s.read(claims, now))
        for tenant, found in zip(tenants, kept, strict=True):
            if tenant.slot >= 0 or self._here.get(tenant.id) is not tenant:
                continue  # it woke up, or left, meanwhile
            if isinstance(found, store.Claimed) and found.fence == tenant.fence:
                self._return(tenant, checkpoint.newest(found.checkpoints).checkpoint)
            else:
                reason = store.Reason.FENCED if isinstance(found, store.Claimed) else found.reason
                self._lose([tenant], *WHY[reason])

    def _return(self, tenant: Tenant, kept: Checkpoint | None) -> None:
        if kept is None or kept.step != tenant.steps:  # the newest is damaged: its client can go back further
            self._lose([tenant], error_pb2.REASON_DRAINING, "sequence '{}' has to be resumed")
            return
        model = tenant.model
        self.make_room(model, 1)
        slots = model.slots.take(1)
        tenant.move(Move.RESUME)
        tenant.slot = slots.item(0)
        self._by_slot.setdefault(model, {})[tenant.slot] = tenant
        row = model.graph.initial if kept.state is None else kept.state
        model.slots.restore(slots, row[np.newaxis], np.array([kept.step]))
        model.progress.begin(slots, kept.step, kept.step, self.monotonic())

    def make_room(self, model: ServedModel, wanted: int) -> None:
        """Parks those that are idle, the longest idle first, if the slots would not do."""
        missing = wanted - model.slots.free
        if missing > 0:
            since = self.monotonic() - self._settings.idle_seconds
            self._put_to_sleep(model, model.progress.idle(model.slots.done, since), missing)

    def _put_to_sleep(self, model: ServedModel, slots: np.ndarray, most: int) -> None:
        tenants = self._by_slot.get(model, {})
        for slot in slots.tolist():
            if most <= 0:
                return
            tenant = tenants.get(slot)
            if tenant is not None and tenant.holder is not None and tenant.holder.put_to_sleep(tenant):
                most -= 1

    # Going back, going over -------------------------------------------------------------------------------------------

    def go_back(self, tenant: Tenant, step: int, then: Callable[[Checkpoint | TidegateError], None]) -> None:
        """Makes the newest checkpoint of an open sequence at or before a step its last one; `then` puts it in place."""
        self._errand(self._gone_back(tenant, step), then)

    async def _gone_back(self, tenant: Tenant, step: int) -> Checkpoint:
        if not tenant.born:
            await self._write_soon()
        claims = [store.Claim(tenant.id, tenant.digest)]
        async with self._turn:
            found = (await self._clerk.ask_soon(lambda s: s.read(claims, self._clock())))[0]
            if isinstance(found, store.Gone) and found.reason is not store.Reason.UNKNOWN:
                self._let_go(tenant, found.reason)
            kept = kept_at(tenant, found, step)
            await self._write_one(tenant, kept.step, checkpoint.encode(kept))
            return kept

    def anchor(
        self,
        tenant: Tenant,
        model: ServedModel,
        step: int,
        row: np.ndarray,
        then: Callable[[TidegateError | None], None],
    ) -> None:
        """Writes that a sequence goes on with another version of its model from this step and state [W] on."""
        data = checkpoint.encode(Checkpoint(model.name, model.version, model.loaded.sha256, step, row))
        self._errand(self._anchored(tenant, step, data), then)

    async def _anchored(self, tenant: Tenant, step: int, data: bytes) -> None:
        async with self._turn:
            await self._write_one(tenant, step, data)

    async def _write_one(self, tenant: Tenant, step: int, data: bytes) -> None:
        progress, slots = tenant.model.progress, np.array([tenant.slot])
        kept = progress.kept(slots)[0].tolist()
        progress.written[slots] = NONE  # until who asked has taken it up: it may be written although it fails
        refused = await self._write_alone(tenant, step, data, kept)
        if refused is store.Reason.UNKNOWN:  # the store has lost its data
            tenant.born = False
            refused = await self._write_alone(tenant, step, data, kept)
        if refused is not None:
            self._let_go(tenant, refused)
            raise gone(tenant.id, refused)
        tenant.is_born()

    async def _write_alone(self, tenant: Tenant, step: int, data: bytes, kept: Sequence[int]) -> store.Reason | None:
        writes = list(born(tenant, store.Write(tenant.id, tenant.fence, step, data, spare=tuple(kept))))
        refused = await self._clerk.ask_soon(lambda s: s.write(writes, self._clock()))
        return refused[0].reason if refused else None

    def _let_go(self, tenant: Tenant, reason: store.Reason) -> None:
        """The store does not take it for ours any more."""
        if self._here.get(tenant.id) is tenant:
            self._lose([tenant], *WHY[reason])

    # Writing ----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Writes checkpoints every so often, looks after limits and retention; until cancelled."""
        wait, (first, longest) = 0.0, _BACKOFF
        housekept = self.monotonic()
        while True:
            try:
                await self._rest(wait)
                await self.checkpoint()
                if self.monotonic() - housekept >= _HOUSEKEEPING:
                    housekept = self.monotonic()
                    await self.keep_house()
                wait = 0.0
            except StoreFailed:
                wait = min(longest, 2 * wait or first)
            except Exception:
                log.exception("writing checkpoints failed; trying again")
                wait = longest

    async def _rest(self, wait: float) -> None:
        if wait:
            await asyncio.sleep(wait)
            return
        self._awake.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._awake.wait(), self._settings.checkpoint_ms / 1e3)

    def _watch(self, model: ServedModel) -> None:
        """Wakes the writer once a sequence is as far ahead of its checkpoint as it may be."""
        left = self._settings.checkpoint_steps - model.progress.lag(model.slots.done)
        if left > 0:  # no sequence can be so far before that many rounds
            model.batcher.remind(left, lambda: self._watch(model))
        else:
            self._awake.set()

    async def checkpoint(self) -> None:
        """Writes the states of all sequences that have moved since, in one write.

        Raises:
            StoreFailed: nothing is lost: they are written the next time.
        """
        async with self._turn:
            farewells = [self._farewells.popleft() for _ in range(len(self._farewells))]
            snapshots = [snapshot for model in list(self._by_slot) if (snapshot := await self._snapshot(model))]
            try:
                await self._write([*farewells, *snapshots])
            except BaseException:
                self._farewells.extendleft(reversed(farewells))
                raise
            await self._write_ends()
            for model in list(self._by_slot):
                self._tell(model)
                self._watch(model)

    async def _write_soon(self) -> None:
        """For somebody who waits. If it fails, what is asked next fails too, and says so."""
        with suppress(StoreFailed):
            await self.checkpoint()

    async def flush(self) -> bool:
        """Writes all there is; whether that succeeded."""
        try:
            await self.checkpoint()
        except StoreFailed:
            return False
        return not self._farewells

    async def _snapshot(self, model: ServedModel) -> Snapshot | None:
        taken: asyncio.Future[Snapshot | None] = asyncio.get_running_loop().create_future()

        def copy() -> None:
            if not taken.done():
                taken.set_result(self._copy(model))

        model.batcher.pause(copy)
        return await taken

    def _copy(self, model: ServedModel) -> Snapshot | None:
        tenants = self._by_slot.get(model, {})
        slots = model.progress.behind(model.slots.done, _MOST)
        now = self.monotonic()
        model.progress.seen[slots] = now
        if len(slots) == _MOST:
            self._awake.set()
        if not len(slots):
            model.progress.complete = now
            return None
        steps = model.slots.done[slots]
        return Snapshot(
            model,
            tuple(tenants[slot] for slot in slots.tolist()),
            steps,
            model.slots.gather(slots),
            model.progress.kept(slots),
            now if len(slots) < _MOST else 0.0,
        )

    async def _write(self, snapshots: Sequence[Snapshot]) -> None:
        if not snapshots:
            return
        now = self._clock()
        refused = await self._clerk.ask(lambda s: s.write(list(writes(snapshots)), now))
        unwanted = {r.id: r for r in refused}
        for snapshot in snapshots:
            self._note(snapshot, unwanted)
        if any(r.reason is store.Reason.UNKNOWN for r in refused):
            self._write_anew(snapshots, unwanted)

    async def _write_ends(self) -> None:
        ends = list(self._ends)
        if ends:
            await self._clerk.ask(lambda s: s.end(ends, self._clock()))
            del self._ends[: len(ends)]

    def _write_anew(self, snapshots: Iterable[Snapshot], refused: dict[str, store.Refused]) -> None:
        """The store has lost its data: whatever is known here is made known to it again."""
        log.warning("the store of checkpoints has lost sequences; they are written again")
        for snapshot in snapshots:
            lost = [at for at, t in enumerate(snapshot.tenants) if t.id in refused and t.id not in self._here]
            left = [at for at in lost if refused[snapshot.tenants[at].id].reason is store.Reason.UNKNOWN]
            if left:
                self._farewells.append(snapshot.of(left))
        for model, tenants in self._by_slot.items():
            model.progress.written[list(tenants)] = NONE
        for tenant in self._here.values():
            tenant.born = False
        self._awake.set()

    def _note(self, snapshot: Snapshot, refused: dict[str, store.Refused]) -> None:
        """What was written, and what was not wanted because the sequence is not ours any more."""
        tenants = self._by_slot.get(snapshot.model, {})
        progress = snapshot.model.progress
        progress.complete = max(progress.complete, snapshot.complete)
        for tenant, step in zip(snapshot.tenants, snapshot.steps.tolist(), strict=True):
            refusal = refused.get(tenant.id)
            if refusal is not None and refusal.reason is store.Reason.UNKNOWN:
                tenant.born = False
                continue
            # the same sequence can be written twice: as it left one stream, and as it goes on on another
            if refusal is not None and (refusal.reason is not store.Reason.FENCED or refusal.fence > tenant.fence):
                self._let_go(tenant, refusal.reason)
                continue
            tenant.is_born()
            snapshot.model.tally.written += 1
            if step > tenant.steps and tenant.life in (Life.OPEN, Life.RESUMED):
                tenant.move(Move.STEP)
            if tenants.get(tenant.slot) is tenant:
                progress.written[tenant.slot] = step

    def _tell(self, model: ServedModel) -> None:
        slots = model.progress.tell()
        tenants = self._by_slot.get(model, {})
        for holder in dict.fromkeys(tenants[slot].holder for slot in slots.tolist()):
            if holder is not None:
                holder.tell()

    # Limits -----------------------------------------------------------------------------------------------------------

    async def keep_house(self) -> None:
        """Parks what is idle, ends what nobody came back to, and makes room where a limit is passed.

        Raises:
            StoreFailed.
        """
        since = self.monotonic() - self._settings.idle_seconds
        for model in list(self._by_slot):
            self._put_to_sleep(model, model.progress.idle(model.slots.done, since), _MOST)
        now = self._clock()
        more = True
        while more:
            swept = await self._clerk.ask(lambda s: s.expire(now))
            self.lost["SEQUENCE_EXPIRED"] += swept.expired
            more = swept.more
        await self._make_way(now)

    async def _make_way(self, now: float) -> None:
        limit = self._settings.max_store_mib * 2**20
        usage = self.usage = await self._clerk.ask(lambda s: s.usage())
        awake = [tenant.id for tenant in self._here.values() if tenant.slot >= 0]
        surplus = usage.sequences - len(awake) - self._settings.max_parked
        if usage.bytes > limit:
            surplus = max(surplus, int(np.ceil((usage.bytes - limit) / max(1, usage.bytes / usage.sequences))))
        evicted = []
        if surplus > 0:
            evicted = await self._clerk.ask(lambda s: s.evict(surplus, now, spare=frozenset(awake)))
            log.warning("%d parked sequences gave way: a limit of the store is reached", len(evicted))
        for one in evicted:
            tenant = self._here.get(one.id)
            if tenant is not None:
                self._lose([tenant], *WHY[one.reason])
            else:
                self.lost["SEQUENCE_EVICTED"] += 1
        self._full = usage.bytes - sum(one.bytes for one in evicted) > limit

    # Books ------------------------------------------------------------------------------------------------------------

    @property
    def open(self) -> int:
        """How many sequences are open here, sleeping ones among them."""
        return len(self._here)

    @property
    def unwritten(self) -> int:
        """How many sequences have left while the store did not answer, and wait to be written."""
        return sum(len(farewell.tenants) for farewell in self._farewells)

    def count_replayed(self, model: ServedModel) -> None:
        """Brings the tally of steps that were taken again up to date."""
        model.tally.replayed += model.progress.replayed(model.progress.replaying(), model.slots.done)

    def relocate(self, tenant: Tenant, model: ServedModel, slot: int) -> None:
        """A sequence goes on in a slot of another model, where it is anchored."""
        before, left = tenant.model.progress, tenant.slot
        self._vacate([tenant])
        tenant.model, tenant.slot = model, slot
        self._by_slot.setdefault(model, {})[slot] = tenant
        model.progress.go_on(slot, before, left, int(model.slots.done[slot]), self.monotonic())

    def gone_back(self, tenant: Tenant) -> None:
        """A sequence goes on from where `go_back` said."""
        tenant.model.progress.go_back(tenant.slot, int(tenant.model.slots.done[tenant.slot]))

    def _move_in(self, tenants: Iterable[Tenant]) -> None:
        for tenant in tenants:
            self._here[tenant.id] = tenant
            self._owners[tenant.owner] += 1
            self._by_slot.setdefault(tenant.model, {})[tenant.slot] = tenant

    def _move_out(self, tenants: Iterable[Tenant]) -> None:
        for tenant in tenants:
            if self._here.get(tenant.id) is not tenant:
                continue
            del self._here[tenant.id]
            self._owners[tenant.owner] -= 1
            if not self._owners[tenant.owner]:
                del self._owners[tenant.owner]
            if tenant.slot >= 0:
                self._vacate([tenant])

    def _vacate(self, tenants: Iterable[Tenant]) -> None:
        for tenant in tenants:
            by_slot = self._by_slot.get(tenant.model)
            if by_slot is not None and by_slot.get(tenant.slot) is tenant:
                del by_slot[tenant.slot]
                model, progress = tenant.model, tenant.model.progress
                if progress.retaken.item(tenant.slot) < progress.had.item(tenant.slot):
                    model.tally.replayed += progress.replayed(np.array([tenant.slot]), model.slots.done)
                progress.held[tenant.slot] = False
                if not by_slot:
                    del self._by_slot[tenant.model]

    def _errand(self, call: Coroutine[Any, Any, T], then: "Callable[[T | TidegateError], None]") -> None:
        """Does something with the store; `then` hears what came of it."""

        async def tried() -> None:
            found: T | TidegateError
            try:
                found = await call
            except TidegateError as error:
                found = error
            except Exception:
                log.exception("something with the store failed")
                found = TidegateError("the server failed; its log has the details")
            then(found)

        task = asyncio.get_running_loop().create_task(tried())
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
