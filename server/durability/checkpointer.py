"""Writes the checkpoints of all sequences that have moved since, in one write, off the path of a step.

What is written together is a copy of states taken while no step is half done. Knows no stream and no limit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from server.caller import account_of
from server.durability.outbox import Outbox
from server.durability.pieces import PerAccount, each, pieces
from server.durability.registry import Registry, is_old
from server.durability.sequence import Holder, Life, ServedSequence
from server.durability.snapshot import Snapshot, taken, writes
from server.errors import Reason, StoreFailed
from server.stores import store

if TYPE_CHECKING:
    from server.durability.store_thread import StoreThread
    from server.runtime.served_model import ServedModel

log = logging.getLogger(__name__)

_MOST = 1_024  # checkpoints of one model in one write: copying more holds up the steps for too long


@dataclass(eq=False)
class Checkpointer:
    """Writes the states of sequences that took steps or left their streams, and the ends of closed ones."""

    _store: StoreThread
    _registry: Registry
    _outbox: Outbox
    _most_steps: int  # steps that a sequence may be ahead of its checkpoint before a write is hurried
    _seconds: float  # after which it is due again, if it has moved
    _hurried: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _complete: float = field(init=False)  # when everything was written last
    cut: bool = field(init=False, default=False)  # whether there was more than one write takes
    _losses: int = field(init=False, default=0)  # how often the store has lost its data, as far as is known
    _turn: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)  # one write at a time
    _turns: PerAccount = field(init=False, default_factory=lambda: PerAccount(1))  # of `turn_of`

    def __post_init__(self) -> None:
        self._complete = self._registry.monotonic()

    # When -------------------------------------------------------------------------------------------------------------

    def hurry(self) -> None:
        """Ends `rest`: there is something to write."""
        self._hurried.set()

    async def rest(self) -> bool:
        """Waits until what was written last is due, or until hurried; whether everything is to be written now.

        Does not wait if it was hurried while the last write went on.
        """
        due = self._complete + self._seconds
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurried.wait(), due - self._registry.monotonic())
        self._hurried.clear()
        return self._registry.monotonic() >= due

    def _watch(self, model: ServedModel) -> None:
        """Hurries once a sequence is as far ahead of its checkpoint as it may be."""
        left = self._most_steps - model.watermarks.lag(model.slots.done)
        if left > 0:  # no sequence can be so far before that many rounds
            model.batcher.remind(left, lambda: self._watch(model))
        else:
            self.hurry()

    # Writing ----------------------------------------------------------------------------------------------------------

    async def checkpoint(self, everything: bool = True) -> None:
        """Writes the states of all sequences that have moved since, in one write.

        Unless `everything`, only of those that are new, or far ahead of their checkpoint: one quick sequence does not
        cause all slow ones to be written as often as itself.

        Raises:
            StoreFailed: nothing is lost: they are written the next time.
        """
        async with self._turn:
            try:
                await self._write_all(1 if everything else max(1, self._most_steps // 2))
            except StoreFailed:
                self._outbox.wait_no_more()
                raise
            await self._tell()
            if self._outbox:
                self.hurry()
            if everything and not self.cut:
                self._complete = self._registry.monotonic()

    async def _write_all(self, least: int) -> None:
        departed = self._outbox.take(_MOST)
        self.cut = False
        try:
            snapshots = [s for model in self._registry.models() if (s := await self._snapshot(model, least))]
            await self._write([*departed, *snapshots])
        except BaseException:
            self._outbox.put_back(departed)
            raise
        for leaving in departed:
            self._registry.note(leaving.sequences)
            self._outbox.written(leaving)
        if ends := self._outbox.ends():  # the others in the next round, beside what was parked meanwhile
            await self._write_ends(ends)

    async def _write_ends(self, ends: Sequence[store.End]) -> None:
        now = self._registry.clock()
        await self._store.ask(lambda s: s.end(ends, now))
        self._outbox.ended(len(ends))

    async def look_for_losses(self) -> None:
        """Asks the store whether it has lost its data. If so all that is here is written again, quiet or not.

        Raises:
            StoreFailed.
        """
        losses = await self._store.ask(lambda s: s.losses())
        if losses > self._losses:
            await self._forget_all()
        self._losses = losses

    async def write_soon(self, sequences: Iterable[ServedSequence] = (), digest: bytes | None = None) -> None:
        """Writes what has left its stream by now, and those of these that are new, while a client waits.

        Does not wait for what has left with tokens of another `digest`. A failure of the store is ignored.

        Raises:
            StoreSilent: it took too long.
        """
        unstored = [sequence for sequence in sequences if not sequence.stored]
        self._registry.keep(unstored)
        left = self._outbox.digests() if digest is None else {digest}  # not what leaves from now on: that has no end
        with suppress(StoreFailed):
            await self._store.soon(lambda: self._write_until_stored(unstored, left))

    async def _write_until_stored(self, unstored: Collection[ServedSequence], left: Collection[bytes]) -> None:
        """One write does not take all of them if they are many. Those that sleep have no state here to be written."""
        await self.checkpoint()
        here = self._registry
        while self._outbox.concerns(left) or any(o.slot >= 0 and not o.stored and o in here for o in unstored):
            await asyncio.sleep(0)  # the time limit ends this, whatever happens
            await self.checkpoint()

    @asynccontextmanager
    async def turn_soon(self) -> AsyncIterator[None]:
        """Nothing is written while this context is entered.

        Raises:
            StoreSilent: the write that was under way took too long.
        """
        await self._store.soon(self._turn.acquire)
        try:
            yield
        finally:
            self._turn.release()

    @asynccontextmanager
    async def turn_of(self, sequence: ServedSequence, *, stored: bool = False) -> AsyncIterator[None]:
        """As `turn_soon`, for one of each account at a time; one to be `stored` is before. Raises StoreSilent."""
        async with self._turns.turn(account_of(sequence.owner)):
            self._store.check_time()
            if stored and not sequence.stored and sequence in self._registry:
                await self.write_soon([sequence], sequence.digest)
            async with self.turn_soon():
                yield

    async def _snapshot(self, model: ServedModel, least: int) -> Snapshot | None:
        snapshot: asyncio.Future[Snapshot | None] = asyncio.get_running_loop().create_future()

        def copy() -> None:
            if snapshot.done():
                return
            try:
                snapshot.set_result(self._copy(model, least))
            except Exception as error:  # noqa: BLE001 - it is raised where the snapshot is awaited
                snapshot.set_exception(error)

        model.batcher.pause(copy)
        return await snapshot

    def _copy(self, model: ServedModel, least: int) -> Snapshot | None:
        sequences, watermarks, now = self._registry.at(model), model.watermarks, self._registry.monotonic()
        slots = watermarks.behind(model.slots.done, least)
        if len(slots) > _MOST:
            slots = watermarks.first(slots, model.slots.taken_by, _MOST, now - self._seconds)
            self.cut = True
            self.hurry()
        watermarks.look(model.slots.done, now)
        watermarks.seen[slots] = now
        if not len(slots):
            return None
        return replace(taken([sequences[slot] for slot in slots.tolist()]), moment=now)

    async def _write(self, snapshots: Sequence[Snapshot]) -> None:
        if not snapshots:
            return
        now, held = self._registry.clock(), self._registry.monotonic()
        unfit: set[ServedSequence] = set()
        refused = await self._store.ask(lambda s: s.write(list(writes(snapshots, unfit)), now))
        self._give_up(unfit)
        unwanted = {r.id: r for r in refused}
        for snapshot in snapshots:
            async for part in pieces(len(snapshot.sequences)):
                self._note(snapshot, part, unwanted, unfit, held)
            await asyncio.sleep(0)
        if any(r.reason is store.Reason.UNKNOWN for r in refused):
            await self._write_anew(snapshots, unwanted)

    # What came of it --------------------------------------------------------------------------------------------------

    def _note(
        self,
        snapshot: Snapshot,
        part: slice,
        refused: Mapping[str, store.Refused],
        unfit: Collection[ServedSequence],
        held: float,
    ) -> None:
        """Records what was written of a part, and lets go of sequences that another server owns now."""
        model, sequences = snapshot.model, self._registry.at(snapshot.model)
        foreign: list[tuple[ServedSequence, store.Refused]] = []
        kept = list[ServedSequence](), list[int]()
        for sequence, step in zip(snapshot.sequences[part], snapshot.steps[part].tolist(), strict=True):
            if sequence in unfit:
                continue
            refusal = refused.get(sequence.id)
            if refusal is None or is_old(refusal, sequence):
                model.counters.written += 1
                kept[0].append(sequence)
                kept[1].append(step)
                self._registry.note_stored(sequence)
                if sequences.get(sequence.slot) is sequence:
                    model.watermarks.written[sequence.slot] = step
                    model.watermarks.safe_at[sequence.slot] = snapshot.moment
                    sequence.held = held
            elif refusal.reason is store.Reason.UNKNOWN:
                self._registry.forgotten(sequence)
            else:
                foreign.append((sequence, refusal))
        self._registry.lives.kept(*kept)
        self._registry.refused(foreign)

    def _give_up(self, sequences: Iterable[ServedSequence]) -> None:
        """Ends sequences whose states cannot be written: no promise about their checkpoints could be kept."""
        for sequence in sequences:
            log.error("sequence '%s' is given up", sequence.id)
            if sequence in self._registry:
                sentence = "the state of sequence '{}' cannot be written; the server's log has the details"
                self._registry.lose([sequence], Reason.INTERNAL, sentence)

    async def _write_anew(self, snapshots: Iterable[Snapshot], refused: Mapping[str, store.Refused]) -> None:
        """The store has lost its data: writes everything that is here once more."""
        for snapshot in snapshots:
            gone = [at for at, t in enumerate(snapshot.sequences) if t.id in refused and not self._registry.get(t.id)]
            left = [at for at in gone if refused[snapshot.sequences[at].id].reason is store.Reason.UNKNOWN]
            if left:
                self._outbox.add([replace(snapshot.of(left), awake=False)])
        await self._forget_all()

    async def _forget_all(self) -> None:
        log.warning("the store of checkpoints has lost sequences; they are written again")
        sequences = list(self._registry)
        async for part in pieces(len(sequences)):
            here = [sequence for sequence in sequences[part] if sequence in self._registry]
            for sequence in here:
                self._registry.forgotten(sequence)
            await self._look_for([sequence for sequence in here if sequence.life is Life.ASLEEP])
        self.hurry()

    async def _look_for(self, asleep: Sequence[ServedSequence]) -> None:
        """Asks the store for sequences that have no state here: those that it has lost are lost."""
        claims = [store.Claim(sequence.id, sequence.digest) for sequence in asleep]
        kept = await self._store.ask(lambda s: s.read(claims, self._registry.clock())) if claims else []
        for sequence, found in zip(asleep, kept, strict=True):
            if sequence.life is not Life.ASLEEP:
                continue  # it woke up, or left, meanwhile
            if isinstance(found, store.Gone):
                self._registry.lose_asleep(sequence, found.reason)
            else:
                sequence.stored = True

    async def _tell(self) -> None:
        """Tells streams, each once, of the new checkpoints of their sequences."""
        holders = dict[Holder, None]()
        for model in self._registry.models():
            sequences = self._registry.at(model)
            told = (sequences[slot].holder for slot in model.watermarks.tell().tolist())
            holders |= dict.fromkeys(holder for holder in told if holder is not None)
            self._watch(model)
        await each(holders, lambda holder: holder.tell())
