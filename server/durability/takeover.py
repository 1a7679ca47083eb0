"""Takes over sequences that were opened before, here or at another server, with the checkpoints to go on from.

Of several that want the same one, the one that came last gets it. Knows no stream: whoever claims has the slots.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count as counter
from typing import TYPE_CHECKING, Protocol

import numpy as np

from server.caller import Caller
from server.durability import checkpoint
from server.durability.checkpoint import Checkpoint
from server.durability.guesses import Guesses
from server.durability.limits import Limits
from server.durability.losses import gone
from server.durability.outbox import Outbox
from server.durability.registry import Registry
from server.durability.sequence import Life, Move, ServedSequence, digest_of
from server.durability.store_thread import BackgroundCalls
from server.errors import Reason, SequenceGone, StoreSilent, TidegateError, WrongState
from server.stores import store

if TYPE_CHECKING:
    from server.durability.checkpointer import Checkpointer
    from server.durability.store_thread import StoreThread
    from server.runtime.served_model import ServedModel

log = logging.getLogger(__name__)


class ModelLookup(Protocol):
    """Where the very model of a checkpoint is found."""

    def exact(self, name: str, version: int, sha256: str) -> ServedModel:
        """The model of this content. Raises Refusal."""


@dataclass(frozen=True, eq=False)
class Restored:
    """A sequence that was claimed, and the checkpoint to go on from."""

    sequence: ServedSequence
    checkpoint: Checkpoint
    later: bool  # whether the store has later checkpoints
    answered: int  # how many answers its client has


@dataclass(frozen=True, eq=False)
class _Takeover:
    """Sequences that one client wants, each with how many answers it has, and the moment at which it asked.

    `admit` is asked before anything changes, and refuses what there is no place for.
    """

    number: int  # a later wish has a larger one
    caller: Caller
    claims: Sequence[store.Claim]
    answered: Sequence[int]
    now: float  # if it is carried out late, the store sees that
    admit: Callable[[list[Restored]], None]
    wanted: Callable[[], bool]


@dataclass(eq=False)
class Takeovers:
    """Claims of sequences that are open elsewhere, or nowhere."""

    _store_thread: StoreThread
    _registry: Registry
    _outbox: Outbox
    _checkpointer: Checkpointer
    _background: BackgroundCalls
    _limits: Limits
    _models: ModelLookup
    _clock: Callable[[], float]
    _monotonic: Callable[[], float]
    _guesses: Guesses = field(init=False, default_factory=Guesses)
    _numbers: Iterator[int] = field(init=False, default_factory=counter)
    # the number of the last that wants a sequence with this digest, while the store is asked
    _last: dict[store.Claim, int] = field(init=False, default_factory=dict)
    _expected: dict[str, bytes] = field(init=False, default_factory=dict)  # the digests of those that count already

    def claim(
        self,
        caller: Caller,
        ids: Sequence[str],
        token: str,
        answered: Sequence[int],
        admit: Callable[[list[Restored]], None],
        then: Callable[[list[Restored] | TidegateError], None],
        wanted: Callable[[], bool],
    ) -> None:
        """Takes over sequences that were opened before; `then` is called with all of them, or with why not.

        `admit` is called first, with what they would go on from as far as that is known, and raises a Refusal if there
        is no place for them. Then those that are open here on another stream leave it. `then` has to put their states
        into slots and call `settle`. Of several that want the same sequence the last gets it, however slow the store
        is; none whose stream says that it is not `wanted` any more.
        """
        digest = digest_of(token)
        claims = [store.Claim(id_, digest) for id_ in ids]
        wish = _Takeover(next(self._numbers), caller, claims, answered, self._clock(), admit, wanted)
        self._last.update(dict.fromkeys(claims, wish.number))

        def done(found: list[Restored] | TidegateError) -> None:
            self._expect_no_more([claim for claim in claims if self._last.get(claim) == wish.number])
            then(found)

        self._background.run(self._slowed(caller.address, self._store_thread.in_time(self._claimed(wish))), done)

    def _expect_no_more(self, claims: Sequence[store.Claim]) -> None:
        """They are here now, or do not come, unless somebody else has the token."""
        for claim in claims:
            self._last.pop(claim, None)
            if self._expected.get(claim.id) == claim.digest:
                del self._expected[claim.id]
                self._registry.expect_no_more([claim.id])

    def settle(self, restored: Sequence[Restored], slots: np.ndarray) -> None:
        """What was claimed lives in these slots from now on; all of one model."""
        model = restored[0].sequence.model
        steps = np.array([r.checkpoint.step for r in restored])
        rows = [model.graph.initial if r.checkpoint.state is None else r.checkpoint.state for r in restored]
        model.slots.restore(slots, np.stack(rows), steps)
        for r in restored:
            r.sequence.move(Move.BRANCH if r.later else Move.READY)
        self._registry.add([r.sequence for r in restored], slots, steps, steps)
        model.watermarks.come_back(slots, [r.answered for r in restored])
        model.counters.resumed += len(restored)

    def giving_way(self, model: ServedModel, ids: Sequence[str]) -> int:
        """How many slots of a model are free once these sequences are resumed: those that they have now."""
        here = [self._registry.get(id_) for id_ in ids]
        return sum(sequence is not None and sequence.slot >= 0 and sequence.model is model for sequence in here)

    async def _slowed(self, address: str, claimed: Awaitable[list[Restored]]) -> list[Restored]:
        """The answer to who guesses tokens comes later each time; who has the right one is not kept waiting."""
        try:
            return await claimed
        except SequenceGone as refused:
            if refused.reason is Reason.WRONG_TOKEN:
                log.warning("a wrong resume token came from %s", address)
                if wait := self._guesses.wrong(address, self._monotonic()):
                    await asyncio.sleep(wait)
            raise

    async def _claimed(self, wish: _Takeover) -> list[Restored]:
        """Looks before it takes: who is refused has thrown nobody out."""
        here = self._here(wish)
        seen = await self._seen(wish)
        if self._here(wish) != here:  # somebody has left its stream meanwhile, in a state that is not in the store yet
            seen = await self._seen(wish)
        self._limits.expect({restored.sequence.id: restored.sequence.owner for restored in seen})
        self._expected.update((claim.id, claim.digest) for claim in wish.claims)
        wish.admit(seen)
        answers = await self._store_thread.ask_soon(lambda s: s.claim(wish.claims, self._clock(), wish.now))
        if all(isinstance(claimed, store.Claimed) for claimed in answers):
            self._give_way(wish, answers)
        found = zip(wish.claims, answers, seen, strict=True)
        return [_taken(claim, claimed, before) for claim, claimed, before in found]

    async def _seen(self, wish: _Takeover) -> list[Restored]:
        unborn = [sequence for sequence in self._here(wish) if not sequence.born]
        self._registry.keep(unborn)
        if self._outbox or unborn:
            await self._checkpointer.write_soon()
        self._check_wanted(wish)
        seen = await self._store_thread.ask_soon(lambda s: s.read(wish.claims, wish.now))
        self._check_wanted(wish)
        return self._restored(wish, seen)

    def _here(self, wish: _Takeover) -> list[ServedSequence]:
        """Those of them that are open here now."""
        return [sequence for claim in wish.claims if (sequence := self._registry.get(claim.id)) is not None]

    def _check_wanted(self, wish: _Takeover) -> None:
        """Whether it is the last one for all that it wants, and its client is there. Raises SequenceGone."""
        late = [claim for claim in wish.claims if self._last.get(claim) != wish.number]
        if late := late or ([] if wish.wanted() else list(wish.claims)):
            raise gone(late[0].id, store.Reason.FENCED)

    def _give_way(self, wish: _Takeover, answers: Sequence[store.Claimed | store.Gone]) -> None:
        """Whoever has them here under an older number leaves them. Raises SequenceGone: a number here is newer."""
        found = zip(wish.claims, answers, strict=True)
        fences = {claim.id: claimed.fence for claim, claimed in found if isinstance(claimed, store.Claimed)}
        here = self._here(wish)
        former = [sequence for sequence in here if sequence.fence < fences[sequence.id]]
        self._registry.lose(former, Reason.TAKEN_OVER, "sequence '{}' goes on on another stream")
        if len(former) < len(here):
            newer = next(sequence for sequence in here if sequence.fence >= fences[sequence.id])
            raise gone(newer.id, store.Reason.FENCED)

    def _restored(self, wish: _Takeover, answers: Sequence[store.Claimed | store.Gone]) -> list[Restored]:
        """What a store said of each, as what to go on with. Raises Refusal: of the first with which that cannot be."""
        found = zip(wish.claims, answers, wish.answered, strict=True)
        return [self._restored_one(claim, claimed, answered) for claim, claimed, answered in found]

    def _restored_one(self, claim: store.Claim, claimed: store.Claimed | store.Gone, answered: int) -> Restored:
        claimed = _had(claim.id, claimed)
        kept, later = _newest(claim.id, claimed, answered)
        model = self._models.exact(kept.model, kept.version, kept.sha256)
        _check_fits(claim.id, kept, model)
        sequence = ServedSequence(
            claim.id,
            claim.digest,
            claimed.owner,
            model,
            -1,
            claimed.fence,
            born=True,
            life=Life.OPENING,
            steps=kept.step,
        )
        return Restored(sequence, kept, later, answered)


def _taken(claim: store.Claim, claimed: store.Claimed | store.Gone, seen: Restored) -> Restored:
    """What was seen and admitted, as it was claimed: it may have been written once more meanwhile."""
    claimed = _had(claim.id, claimed)
    kept, later = _newest(claim.id, claimed, seen.answered)
    if kept.sha256 != seen.checkpoint.sha256:
        raise StoreSilent(f"sequence '{claim.id}' went on with another version of its model meanwhile; try again")
    seen.sequence.fence, seen.sequence.steps = claimed.fence, kept.step
    return Restored(seen.sequence, kept, later, seen.answered)


def _check_fits(name: str, kept: Checkpoint, model: ServedModel) -> None:
    """Whether a state lies as the model's states do here. Raises WrongState: another release laid it out."""
    state, initial = kept.state, model.graph.initial
    if state is not None and (state.shape, state.dtype) != (initial.shape, initial.dtype):
        raise WrongState(
            f"the checkpoint of sequence '{name}' holds {state.size} numbers of {state.dtype}; model '{model.name}' "
            f"version {model.version} keeps {initial.size} of {initial.dtype} here"
        )


def _had(name: str, claimed: store.Claimed | store.Gone) -> store.Claimed:
    """What can be had. Raises SequenceGone; StoreSilent: another claim was carried out before this late one."""
    if isinstance(claimed, store.Claimed):
        return claimed
    if claimed.reason is store.Reason.FENCED:
        raise StoreSilent(f"the store was too slow: another has claimed sequence '{name}' since; try again")
    raise gone(name, claimed.reason)


def _newest(name: str, claimed: store.Claimed, answered: int) -> tuple[Checkpoint, bool]:
    """The newest checkpoint that is whole and not later than the client's answers, and whether later ones are kept.

    Raises:
        SequenceGone: there is none.
    """
    found = checkpoint.newest(claimed.checkpoints, answered)
    for refused in found.refused:
        log.warning("a checkpoint of sequence '%s' is passed over: %s", name, refused)
    if found.checkpoint is None:
        raise SequenceGone(
            f"no checkpoint of sequence '{name}' is kept at or before step {answered}", Reason.CHECKPOINT_GONE
        )
    return found.checkpoint, found.later
