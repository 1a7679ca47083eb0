"""Takes over sequences that were opened before, here or at another server, with the checkpoints to go on from.

Of several claims of the same sequence the last one gets it. Knows no stream: the claimant has the slots.
Checkpoints are decoded in the store's thread; what the event loop does for each sequence it does in pieces.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from server.access.guesses import Guesses
from server.caller import account_of
from server.durability.limits import PORTION, Limits, Lookups
from server.durability.loss_errors import gone
from server.durability.outbox import Outbox
from server.durability.pieces import consumed, freed, in_turns, pieces
from server.durability.registry import Registry
from server.durability.restored import Kept, Restored, ResumeRequest, decoded, had, restored_again, restored_from
from server.durability.sequence import Move, ServedSequence, check_name, digest_of, may_ask_for
from server.errors import BadInput, OverLimit, Reason, SequenceGone, TidegateError
from server.stores import store

if TYPE_CHECKING:
    from server.durability.checkpointer import Checkpointer
    from server.durability.parking import Parking
    from server.durability.store_thread import StoreThread
    from server.runtime.served_model import ServedModel

log = logging.getLogger(__name__)

_ELSEWHERE = "sequence '{}' goes on on another stream"


class ModelLookup(Protocol):
    """Where the very model of a checkpoint is found."""

    def exact(self, name: str, version: int, sha256: str) -> ServedModel:
        """The model of this content. Raises Refusal."""


@dataclass(eq=False)
class Takeovers:
    """Claims of sequences that are open on another stream or server, or parked."""

    _store: StoreThread
    _registry: Registry
    _outbox: Outbox
    _checkpointer: Checkpointer
    _limits: Limits
    _parking: Parking
    _models: ModelLookup
    _lookups: Lookups
    _guesses: Guesses = field(init=False, default_factory=Guesses)
    # by digest and id: the last claim of a sequence, while the store is asked
    _last: dict[bytes, dict[str, ResumeRequest]] = field(init=False, default_factory=dict)

    def claim(self, request: ResumeRequest) -> None:
        """Takes over sequences that were opened before. Of several claims of the same sequence the last one gets it."""
        try:
            self._lookups.begin(request.caller, len(request.ids))
        except OverLimit as refusal:
            request.then(refusal)
            return
        self._expect(request)
        self._store.run(self._taken_over(request), request.then, len(request.ids))

    def _expect(self, request: ResumeRequest) -> None:
        request.asked = self._registry.clock()
        mine = dict.fromkeys(request.named, request)
        if others := self._last.get(request.digest):
            for id_ in mine:
                if (other := others.get(id_)) is not None:
                    other.beaten = id_
            others.update(mine)
        else:
            self._last[request.digest] = mine

    async def _taken_over(self, request: ResumeRequest) -> list[Restored]:
        """Delays the answer to a wrong token, longer each time; that to the right token is never delayed."""
        try:
            async with self._lookups.turn(request.caller):
                return await self._claimed_by_owner(request)
        except SequenceGone as refused:
            if refused.reason is Reason.WRONG_TOKEN:
                log.warning("a wrong resume token came from %s", request.caller.account)
                if wait := self._guesses.wrong(request.caller.account, self._registry.monotonic()):
                    await asyncio.sleep(wait)
            raise
        finally:
            self._lookups.end(request.caller, len(request.ids))
            await self._expect_no_more(request)

    async def _claimed_by_owner(self, request: ResumeRequest) -> list[Restored]:
        """A sequence that was opened with a token is that token's; one without is whose the resume token is."""
        try:
            return await self._claimed(request)
        except SequenceGone as refused:
            if refused.reason is not Reason.WRONG_TOKEN:
                raise
            await self._expect_no_more(request)
            if not request.as_without_token():
                raise
            self._expect(request)
        return await self._claimed(request)

    async def _expect_no_more(self, request: ResumeRequest) -> None:
        """Ends what `claim` began: the sequences are here now, or do not come, unless a later claim wants them."""
        last = self._last.get(request.digest, {})  # none: a later one that wanted the same has ended first
        async for part in pieces(len(request.ids)):
            mine = {id_ for id_ in request.ids[part] if last.get(id_) is request}  # one may be named twice
            for id_ in mine:
                del last[id_]
            self._registry.expect_no_more(mine, request.digest)
        if not last and self._last.get(request.digest) is last:
            del self._last[request.digest]

    def settle(self, restored: Sequence[Restored], slots: np.ndarray) -> list[ServedSequence]:
        """Puts the states of claimed sequences of one model into slots [N].

        Returns those that are lost because another stream has claimed them since.
        """
        model = restored[0].sequence.model
        steps = np.array([r.checkpoint.step for r in restored])
        rows = [model.graph.initial if r.checkpoint.state is None else r.checkpoint.state for r in restored]
        model.slots.restore(slots, np.stack(rows), steps)
        for r in restored:
            r.sequence.move(Move.BRANCH if r.later else Move.READY)
        lost = self._registry.add_claimed([r.sequence for r in restored], slots, steps, _ELSEWHERE)
        model.watermarks.come_back(slots, [r.answered for r in restored])
        model.counters.resumed += len(restored)
        return lost

    async def _claimed(self, request: ResumeRequest) -> list[Restored]:
        """Reads and admits the sequences before it claims them: a refused resume has changed nothing."""
        if len(request.named) < len(request.ids):
            raise BadInput("a resume names a sequence twice", Reason.MALFORMED)
        async for part in pieces(len(request.ids)):
            for id_ in request.ids[part]:
                check_name("the sequence id", id_)
                if not may_ask_for(id_, request.token):
                    raise gone(id_, store.Reason.UNKNOWN)
        restored, taken = await self._admitted(request), list[Restored]()
        try:
            fences, first = await self._take(request)
            await self._give_way(request.ids, fences)
            await self._bring_up(request, fences, first, restored, taken)
        except TidegateError:
            await freed(restored)
            await freed(taken)
            raise
        return taken

    async def _take(self, request: ResumeRequest) -> tuple[list[int], list[Kept | store.Gone]]:
        """Raises the fences of all in one call of the store; what the first portion is then. Raises TidegateError.

        Not in portions: a fence never falls again, so whoever has the sequences of a portion open would lose them to a
        resume that is refused because of the next one.
        """

        def taken(kept: store.Store) -> tuple[list[int | store.Gone], list[Kept | store.Gone]]:
            answers = kept.claim(request.claims(), self._registry.clock(), request.asked)
            return answers, self._looked_for(request, slice(PORTION), kept)

        answers, first = await self._store.ask_soon(taken)
        fences = list[int]()
        async for part in pieces(len(answers)):
            fences += [had(*one) for one in zip(request.ids[part], answers[part], strict=True)]
        return fences, first

    async def _bring_up(
        self,
        request: ResumeRequest,
        fences: Sequence[int],
        again: list[Kept | store.Gone],
        restored: list[Restored],
        taken: list[Restored],
    ) -> None:
        """Moves what was admitted to `taken`, brought up to date: it may have been written between reading and claim.

        It is read `again` in portions, between which others have their turn: nobody below these fences writes any more.
        Whoever claims one of them meanwhile has it, and the others stay.
        """
        while again:
            async for part in consumed(again):
                those = slice(len(taken), len(taken) + len(part))
                each = zip(part, restored[: len(part)], fences[those], strict=True)
                taken += [restored_again(*one) for one in each]
                del restored[: len(part)]
            if restored:
                portion = slice(len(taken), len(taken) + PORTION)
                again = await self._store.ask_soon(partial(self._looked_for, request, portion))

    async def _admitted(self, request: ResumeRequest) -> list[Restored]:
        """What each sequence goes on from, before it is claimed."""
        here = self._registry.those_here(request.ids)
        seen, restored = list[Kept | store.Gone](), list[Restored]()
        try:
            await self._see(request, here, seen)
            if (later := self._registry.those_here(request.ids)) != here:  # one has left, and is not in the store yet
                await freed(seen)
                await self._see(request, later, seen)
            await self._restore(request, seen, restored)
            await self._admit(request, restored)
        except TidegateError:
            await freed(seen)
            await freed(restored)
            raise
        return restored

    async def _see(self, request: ResumeRequest, here: Sequence[ServedSequence], seen: list[Kept | store.Gone]) -> None:
        """What the store has of each; nothing after the first that it does not have."""
        if self._outbox.concerns({request.digest}) or not all(sequence.stored for sequence in here):
            await self._checkpointer.write_soon(here, request.digest)
        if self._outbox.concerns({untokened := digest_of(request.token)}):  # it may have been opened without a token
            await self._checkpointer.write_soon((), untokened)
        request.check()
        for first in range(0, len(request.ids), PORTION):
            part = await self._store.ask_soon(partial(self._looked_for, request, slice(first, first + PORTION)))
            request.check()
            seen += part
            if any(isinstance(one, store.Gone) for one in part):
                break  # it is refused

    async def _admit(self, request: ResumeRequest, restored: Sequence[Restored]) -> None:
        """Checks that all may come. Raises Refusal: too many, of several models, or there are no slots."""
        model = restored[0].sequence.model
        theirs = 0
        async for part in pieces(len(restored)):
            sequences = [r.sequence for r in restored[part]]
            if any(sequence.model is not model for sequence in sequences):
                raise BadInput("sequences of different models cannot be resumed together", Reason.MALFORMED)
            self._limits.expect(sequences)
            here = self._registry.those_here([sequence.id for sequence in sequences])
            theirs += sum(sequence.slot >= 0 and sequence.model is model for sequence in here)
        account = account_of(restored[0].sequence.owner)
        await in_turns(self._parking.make_room(model, len(restored) - theirs, account))
        request.check()
        request.admit(model, len(restored) - theirs, account)

    async def _give_way(self, ids: Sequence[str], fences: Sequence[int]) -> None:
        """Removes them from streams that have them under an older fence. Raises SequenceGone: a fence here is newer."""
        newer = ""
        async for part in pieces(len(ids)):
            fence = dict(zip(ids[part], fences[part], strict=True))
            here = self._registry.those_here(fence)
            former = [sequence for sequence in here if sequence.fence < fence[sequence.id]]
            self._registry.lose(former, Reason.TAKEN_OVER, _ELSEWHERE)
            if len(former) < len(here):
                newer = next(sequence.id for sequence in here if sequence.fence >= fence[sequence.id])
        if newer:
            raise gone(newer, store.Reason.FENCED)

    async def _restore(self, request: ResumeRequest, seen: list[Kept | store.Gone], restored: list[Restored]) -> None:
        """What each sequence goes on from, as the store said. Raises Refusal: that of the first that cannot go on."""
        async for part in consumed(seen):
            those = slice(len(restored), len(restored) + len(part))
            found = zip(request.claims(those), part, request.answered[those], strict=True)
            restored += [restored_from(*one, self._models.exact) for one in found]
            for one in restored[those]:
                request.check_exact(one)

    def _looked_for(self, request: ResumeRequest, part: slice, kept: store.Store) -> list[Kept | store.Gone]:
        """In the store's thread: what it has of some of them."""
        return decoded(kept.read(request.claims(part), self._registry.clock()), request.answered[part])
