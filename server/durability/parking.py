"""Parks open sequences that take no step for long: gives up their slots, and puts them back for the next step.

Also makes those ready that were resumed before later checkpoints and have not taken a step since.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from secrets import randbelow
from typing import TYPE_CHECKING

import numpy as np

from server.caller import account_of
from server.durability import checkpoint
from server.durability.checkpoint import Found
from server.durability.pieces import in_turns, pieces
from server.durability.registry import Registry
from server.durability.sequence import Life, ServedSequence
from server.durability.snapshot import taken, writes
from server.errors import Reason, StoreFailed, StoreSilent, TidegateError
from server.runtime.turns import Work
from server.stores import store

if TYPE_CHECKING:
    from server.durability.store_thread import StoreThread
    from server.runtime.served_model import ServedModel

_MOST = 64  # sequences that are parked, or put back, before others get their turn
_ENOUGH = 4_096  # slots of an account among which one is looked for that may sleep instead of another

_Kept = dict[ServedSequence, Found | store.Reason]  # what a store has of some, or why that is nothing


@dataclass(eq=False)
class Parking:
    """Puts idle sequences to sleep, and wakes them."""

    _store: StoreThread
    _registry: Registry
    _patience: float  # seconds without a step until a sequence is idle
    _called: list[ServedSequence] = field(init=False, default_factory=list)  # in this turn of the loop
    _reading: Awaitable[_Kept] = field(init=False)

    # Falling asleep ---------------------------------------------------------------------------------------------------

    async def park_idle(self) -> None:
        """Puts idle sequences to sleep."""
        for model in self._registry.models():
            await in_turns(self._fall_asleep(model, lambda: True))

    def make_room(self, model: ServedModel, wanted: int, account: str) -> Work:
        """Puts idle sequences to sleep, the longest idle first, until `wanted` slots are free for an account."""
        if model.slots.room(account) < wanted:
            yield from self._fall_asleep(model, lambda: model.slots.room(account) < wanted)

    def _make_way(self, model: ServedModel, wanted: int, account: str) -> Work:
        """Likewise for sequences that wake up. Where that is not enough, others of their account sleep in their place.

        They are among those that have taken no step for longest, and nothing of them is under way. So who wakes up is
        not refused for what others have taken.
        """
        yield from self.make_room(model, wanted, account)
        if (lacking := wanted - model.slots.room(account)) > 0:
            slots = model.slots.of(account)
            if len(slots) > (enough := 4 * lacking + _ENOUGH):  # to look at all takes a millisecond
                slots = slots[(randbelow(len(slots)) + np.arange(enough)) % len(slots)]
            resting = model.watermarks.resting(slots, model.slots.done)
            yield from self._put_to_sleep(model, resting, inf, lambda: model.slots.room(account) < wanted)

    def _fall_asleep(self, model: ServedModel, more: Callable[[], bool]) -> Work:
        """Puts to sleep what is idle now and still is at its turn, as long as `more` says so."""
        since = self._registry.monotonic() - self._patience
        return self._put_to_sleep(model, model.watermarks.idle(model.slots.done, since), since, more)

    def _put_to_sleep(self, model: ServedModel, slots: np.ndarray, since: float, more: Callable[[], bool]) -> Work:
        watermarks = model.watermarks
        for at, slot in enumerate(slots.tolist(), 1):
            if not more():
                return
            sequence = self._registry.at(model).get(slot)
            rests = watermarks.seen.item(slot) <= since and watermarks.written.item(slot) == model.slots.done.item(slot)
            if rests and sequence is not None and sequence.holder is not None and sequence.holder.let_sleep(sequence):
                self._registry.sleep(sequence)
            if at % _MOST == 0:
                yield

    # Waking up --------------------------------------------------------------------------------------------------------

    def wake(self, sequences: Sequence[ServedSequence], then: Callable[[TidegateError | None], None]) -> None:
        """Makes sequences ready for a step; `then` is called once they are, or with the error.

        Sleeping ones are put back into slots; later checkpoints of branched ones are deleted.
        """
        self._store.run(self._make_ready(sequences), then, len(sequences))

    async def _make_ready(self, sequences: Sequence[ServedSequence]) -> None:
        asleep = [sequence for sequence in sequences if sequence.life is Life.ASLEEP]
        if asleep:
            await self._bring_back(asleep)
        branched = [sequence for sequence in sequences if sequence.life is Life.BRANCHED]
        if branched:
            await self._cut_off(branched)

    async def _bring_back(self, sequences: Sequence[ServedSequence]) -> None:
        kept = await self._read(sequences)
        async for part in pieces(len(sequences), _MOST):
            for sequence in sequences[part]:
                found = kept.pop(sequence)
                if sequence.life is not Life.ASLEEP:
                    continue  # it woke up, or left, meanwhile
                if isinstance(found, Found):
                    self._return(sequence, found)
                else:
                    self._registry.lose_asleep(sequence, found)

    def _read(self, sequences: Sequence[ServedSequence]) -> Awaitable[_Kept]:
        """What the store has of them: one call for all that are woken in one turn of the event loop."""
        if not self._called:
            self._reading = asyncio.ensure_future(self._read_all())
        self._called.extend(sequences)
        return self._reading

    async def _read_all(self) -> _Kept:
        called, self._called = self._called, []
        now = self._registry.clock()
        kept = await self._store.ask_soon(lambda s: _woken(s, called, now))
        wanted = Counter((sequence.model, account_of(sequence.owner)) for sequence in called)
        for (model, account), count in wanted.items():
            await in_turns(self._make_way(model, count, account))  # for all at once: it looks at every slot
        return kept

    def _return(self, sequence: ServedSequence, found: Found) -> None:
        kept = found.checkpoint
        if kept is None or kept.step != sequence.steps:  # the newest is damaged: its client can go back further
            self._registry.lose([sequence], Reason.DRAINING, "sequence '{}' has to be resumed")
            return
        model, account = sequence.model, account_of(sequence.owner)
        for _ in self._make_way(model, 1, account):
            pass
        slots = model.slots.reserve(1, account)
        row = model.graph.initial if kept.state is None else kept.state
        model.slots.restore(slots, row[np.newaxis], np.array([kept.step]))
        self._registry.wake(sequence, slots.item(), kept.step, later=found.later)

    # Deleting later checkpoints ---------------------------------------------------------------------------------------

    async def _cut_off(self, sequences: Sequence[ServedSequence]) -> None:
        """Deletes the checkpoints later than where these stand: they go on from here, perhaps with other inputs.

        Not already when they are claimed: a claim may be carried out late, after its client has given up. A client that
        sends a step knows where the sequence stands.
        """
        models = dict.fromkeys(sequence.model for sequence in sequences)
        snapshots = [taken([sequence for sequence in sequences if sequence.model is model]) for model in models]
        now, unfit = self._registry.clock(), set[ServedSequence]()
        try:
            refused = await self._store.ask_soon(lambda s: s.write(list(writes(snapshots, unfit)), now))
        except StoreSilent as error:
            for sequence in sequences if not error.definite else ():
                self._registry.disown(sequence)
            raise
        why = {refusal.id: refusal.reason for refusal in refused}
        async for part in pieces(len(sequences)):
            for sequence in sequences[part]:
                reason = why.get(sequence.id)
                if sequence in unfit:
                    self._registry.disown(sequence)
                elif reason is None:
                    self._registry.note_stored(sequence)
                elif reason is store.Reason.UNKNOWN:  # the store has lost its data, and the later checkpoints with it
                    self._registry.forgotten(sequence)
                else:
                    self._registry.let_go([sequence], reason)


def _woken(kept: store.Store, called: Sequence[ServedSequence], now: float) -> _Kept:
    """In the store's thread: reads sequences, and marks them awake, so that they are not evicted, if it can write."""
    with suppress(StoreFailed):
        kept.hold([store.Hold(sequence.id, sequence.fence, awake=True) for sequence in called], now)
    answers = kept.read([store.Claim(sequence.id, sequence.digest) for sequence in called], now)
    return {sequence: _found(sequence, answer) for sequence, answer in zip(called, answers, strict=True)}


def _found(sequence: ServedSequence, answer: store.Claimed | store.Gone) -> Found | store.Reason:
    if isinstance(answer, store.Gone):
        return answer.reason
    if answer.fence != sequence.fence:
        return store.Reason.FENCED
    return checkpoint.newest(answer.checkpoints, sequence.steps)
