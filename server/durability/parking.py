"""Parks open sequences that take no step for long: gives up their slots, and puts them back for the next step.

Also makes those ready that were resumed before later checkpoints and have not taken a step since.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
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
from server.errors import OverLimit, Reason, StoreFailed, StoreSilent, TidegateError
from server.runtime.turns import Work
from server.stores import store

if TYPE_CHECKING:
    from server.durability.store_thread import StoreThread
    from server.runtime.served_model import ServedModel

_MOST = 64  # sequences that are parked, or put back, before others get their turn
_PORTION = 256  # sequences of an account that the store is asked for in one call: others wait behind one
_ENOUGH = 4_096  # slots of an account among which one is looked for that may sleep instead of another

_Kept = dict[ServedSequence, Found | store.Reason]  # what a store has of some, or why that is nothing


@dataclass(slots=True, eq=False)
class _Call:
    """Sequences of one model that are to be woken together, and who waits for it."""

    asleep: Sequence[ServedSequence]
    awake: asyncio.Future[None]

    @property
    def model(self) -> ServedModel:
        return self.asleep[0].model

    def end(self, error: Exception | None = None) -> None:
        if self.awake.done():
            return  # who waited is gone
        if error is None:
            self.awake.set_result(None)
        else:
            self.awake.set_exception(error)


@dataclass(eq=False)
class Parking:
    """Puts idle sequences to sleep, and wakes them."""

    _store: StoreThread
    _registry: Registry
    _patience: float  # seconds without a step until a sequence is idle
    _calls: dict[str, deque[_Call]] = field(init=False, default_factory=dict)  # by account, where any are under way

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
        def rests(slot: int) -> bool:
            at_rest = model.watermarks.seen.item(slot) <= since and not model.watermarks.fresh.item(slot)
            return at_rest and model.watermarks.written.item(slot) == model.slots.done.item(slot)

        for at, slot in enumerate(slots.tolist(), 1):
            if not more():
                return
            sequence = self._registry.at(model).get(slot) if rests(slot) else None
            if sequence is not None and sequence.holder is not None and sequence.holder.let_sleep(sequence):
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

    async def _bring_back(self, asleep: Sequence[ServedSequence]) -> None:
        """Waits until they are awake, and those of their account that were called before."""
        models = dict.fromkeys(sequence.model for sequence in asleep)  # one, unless some of a fleet have moved
        calls = (self._call([one for one in asleep if one.model is model]) for model in models)
        for ended in await asyncio.gather(*calls, return_exceptions=True):  # none is under way after this
            if ended is not None:
                raise ended

    async def _call(self, asleep: Sequence[ServedSequence]) -> None:
        call, account = _Call(asleep, asyncio.get_running_loop().create_future()), account_of(asleep[0].owner)
        if account in self._calls:
            self._calls[account].append(call)
        else:
            self._calls[account] = deque([call])
            self._store.run(self._wake_all(account), lambda _: None)
        await call.awake

    async def _wake_all(self, account: str) -> None:
        """Wakes what is called of an account until nothing is: other accounts wait behind one call of the store."""
        waiting = self._calls[account]
        while waiting:
            calls, count = list[_Call](), 0
            while waiting and count < _PORTION:
                calls.append(waiting.popleft())
                count += len(calls[-1].asleep)
            try:
                await self._store.in_time(self._wake_together(calls, account), count)
            except Exception as error:  # noqa: BLE001 - it is raised where they are waited for
                if isinstance(error, StoreFailed | StoreSilent):  # the others have waited for the store as long
                    calls += waiting
                    waiting.clear()
                for call in calls:
                    call.end(error)
            await asyncio.sleep(0)
        del self._calls[account]

    async def _wake_together(self, calls: Sequence[_Call], account: str) -> None:
        """The store is asked for those alone that there is room for, so that no refused request costs a call of it."""
        slots: dict[ServedModel, list[int]] = {call.model: [] for call in calls}  # that are kept for them
        for model in slots:
            count = sum(len(call.asleep) for call in calls if call.model is model)
            await in_turns(self._make_way(model, count, account))  # for all at once: it looks at every slot
        try:
            going = [call async for call in self._admitted(calls, account, slots)]
            called = [sequence for call in going for sequence in call.asleep]
            for at in range(0, len(called), _PORTION):
                some, now = called[at : at + _PORTION], self._registry.clock()
                kept = await self._store.ask_soon(partial(_woken, called=some, now=now))
                async for part in pieces(len(some), _MOST):
                    for sequence in some[part]:
                        self._return(sequence, kept.pop(sequence), slots[sequence.model])
        finally:
            for model, unused in slots.items():
                model.slots.give_back(unused)
        for call in going:
            call.end()

    async def _admitted(
        self, calls: Sequence[_Call], account: str, slots: dict[ServedModel, list[int]]
    ) -> AsyncIterator[_Call]:
        """Keeps slots for those calls that there is room for, and refuses the others."""
        async for part in pieces(len(calls), _MOST):
            for call in calls[part]:
                try:
                    slots[call.model] += call.model.slots.reserve(len(call.asleep), account).tolist()
                    yield call
                except OverLimit as refusal:
                    call.end(refusal)

    def _return(self, sequence: ServedSequence, found: Found | store.Reason, slots: list[int]) -> None:
        """Puts a sequence into one of these slots, which it takes from the list."""
        if sequence.life is not Life.ASLEEP:
            return  # it left meanwhile
        if not isinstance(found, Found):
            self._registry.lose_asleep(sequence, found)
            return
        kept = found.checkpoint
        if kept is None or kept.step != sequence.steps:  # the newest is damaged: its client can go back further
            self._registry.lose([sequence], Reason.DRAINING, "sequence '{}' has to be resumed")
            return
        model, slot = sequence.model, slots.pop()
        row = model.graph.initial if kept.state is None else kept.state
        model.slots.restore(np.array([slot]), row[np.newaxis], np.array([kept.step]))
        self._registry.wake(sequence, slot, kept.step, later=found.later)

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
