"""Which sequences a client wants to resume, and what a store has of them, decoded and checked against their models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from server.caller import Caller
from server.durability import checkpoint
from server.durability.checkpoint import Checkpoint, Found
from server.durability.loss_errors import gone
from server.durability.sequence import Life, ServedSequence, digest_of
from server.errors import Reason, SequenceGone, StoreSilent, TidegateError, WrongState
from server.stores import store

if TYPE_CHECKING:
    from server.runtime.served_model import ServedModel

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What a store has of a sequence, and where in it the client can go on."""

    fence: int
    owner: str
    found: Found


@dataclass(frozen=True, slots=True, eq=False)
class Restored:
    """A sequence that was claimed, and the checkpoint to go on from."""

    sequence: ServedSequence
    checkpoint: Checkpoint
    later: bool  # whether the store has later checkpoints
    answered: int  # how many answers its client has


@dataclass(slots=True, eq=False)
class ResumeRequest:
    """Sequences that one client asks to resume, each with how many answers it has.

    `admit` is called first, with their model, how many slots they need beside those that they have here, and whose
    account they are, and raises a Refusal if there is no place for them. Then those that are open here on another
    stream leave it. `then` is called with all of them, to put their states into slots and call `settle`, or with why
    not. Nothing is done once `wanted` says that the client is gone.
    """

    caller: Caller
    ids: list[str]
    token: str
    answered: list[int]
    admit: Callable[[ServedModel, int, str], None]
    then: Callable[[list[Restored] | TidegateError], None]
    wanted: Callable[[], bool]
    exact: bool = False  # only from the last step that each has taken: their client cannot send inputs again
    digest: bytes = field(init=False)
    named: dict[str, None] = field(init=False)  # each id once
    asked: float = field(init=False, default=0.0)  # when; if it is carried out late, the store sees that
    beaten: str = field(init=False, default="")  # the id of a sequence that a later one wants too

    def __post_init__(self) -> None:
        self.digest = digest_of(self.token, self.caller.token)
        self.named = dict.fromkeys(self.ids)

    def add(self, ids: Sequence[str], answered: Sequence[int]) -> None:
        """Further sequences, before it is claimed: to take in tens of thousands at once takes some milliseconds."""
        self.ids += ids
        self.answered += answered
        self.named.update(dict.fromkeys(ids))

    def as_without_token(self) -> bool:
        """From now on for sequences that were opened without a token. False: it is for these already."""
        before, self.digest = self.digest, digest_of(self.token)
        return self.digest != before

    def claims(self, part: slice = slice(None)) -> list[store.Claim]:
        """The claims of some of them. All claims are made in the store's thread."""
        return [store.Claim(id_, self.digest) for id_ in self.ids[part]]

    def check_exact(self, restored: Restored) -> None:
        """Raises SequenceGone: it may have taken steps after its newest checkpoint, and was to go on exactly."""
        sequence, newest = restored.sequence, restored.checkpoint
        if self.exact and newest.mark != checkpoint.mark_of(sequence.fence):
            raise SequenceGone(
                f"sequence '{sequence.id}' was not parked: it is open elsewhere, or its server failed, and steps after "
                f"step {newest.step} may be missing",
                Reason.CHECKPOINT_GONE,
            )

    def check(self) -> None:
        """Raises SequenceGone: a later claim wants one of the sequences, or the client has left."""
        if late := self.beaten or ("" if self.wanted() else self.ids[0]):
            raise gone(late, store.Reason.FENCED)


def decoded(answers: Sequence[store.Claimed | store.Gone], answered: Sequence[int]) -> list[Kept | store.Gone]:
    """What a store said of each, its checkpoints decoded. For the store's thread: it takes a while."""
    return [
        Kept(one.fence, one.owner, checkpoint.newest(one.checkpoints, most)) if isinstance(one, store.Claimed) else one
        for one, most in zip(answers, answered, strict=True)
    ]


def restored_from(
    claim: store.Claim, kept: Kept | store.Gone, answered: int, exact: Callable[[str, int, str], ServedModel]
) -> Restored:
    """What a sequence goes on from, by what was read; `exact` finds its model. Raises Refusal: it cannot go on."""
    kept = had(claim.id, kept)
    newest = _newest(claim.id, kept.found, answered)
    model = exact(newest.model, newest.version, newest.sha256)
    _check_fits(claim.id, newest, model)
    sequence = ServedSequence(
        claim.id,
        claim.digest,
        kept.owner,
        model,
        -1,
        kept.fence,
        stored=True,
        life=Life.OPENING,
        steps=newest.step,
        resumed=True,
    )
    return Restored(sequence, newest, kept.found.later, answered)


def restored_again(kept: Kept | store.Gone, seen: Restored, fence: int) -> Restored:
    """What was read and admitted, brought up to date with the claim: it may have been written once more meanwhile.

    What somebody else has claimed or ended after our claim is lost at the store's next refusal, which says why: before
    its first step.
    """
    sequence = seen.sequence
    sequence.fence = fence
    if isinstance(kept, store.Gone) or kept.fence != fence:
        return replace(seen, later=True)
    newest = _newest(sequence.id, kept.found, seen.answered)
    if newest.sha256 != seen.checkpoint.sha256:
        raise StoreSilent(f"sequence '{sequence.id}' went on with another version of its model meanwhile; try again")
    sequence.steps = newest.step
    return Restored(sequence, newest, kept.found.later, seen.answered)


def _check_fits(name: str, kept: Checkpoint, model: ServedModel) -> None:
    """Raises WrongState: the state has another layout than the model's states here; another release wrote it."""
    state, initial = kept.state, model.graph.initial
    if state is not None and (state.shape, state.dtype) != (initial.shape, initial.dtype):
        raise WrongState(
            f"the checkpoint of sequence '{name}' holds {state.size} numbers of {state.dtype}; model '{model.name}' "
            f"version {model.version} keeps {initial.size} of {initial.dtype} here"
        )


def had(name: str, found: T | store.Gone) -> T:
    """What the store has. Raises SequenceGone; StoreSilent: another claim was carried out before this late one."""
    if not isinstance(found, store.Gone):
        return found
    if found.reason is store.Reason.FENCED:
        raise StoreSilent(f"the store was too slow: another has claimed sequence '{name}' since; try again")
    raise gone(name, found.reason)


def _newest(name: str, found: Found, answered: int) -> Checkpoint:
    """The checkpoint to go on from. Raises SequenceGone: none is whole and not later than the client's answers."""
    for refused in found.refused:
        log.warning("a checkpoint of sequence '%s' is passed over: %s", name, refused)
    if found.checkpoint is None:
        raise SequenceGone(
            f"no checkpoint of sequence '{name}' is kept at or before step {answered}", Reason.CHECKPOINT_GONE
        )
    return found.checkpoint
