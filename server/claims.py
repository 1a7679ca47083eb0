"""Takes over sequences that were opened before, here or at another server, with the checkpoints to go on from.

Of several that want the same one, the one that came last gets it. Knows no stream: whoever claims has the slots.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count as counter
from typing import Protocol

import numpy as np

from server import checkpoint, store
from server.checkpoint import Checkpoint
from server.clerk import Clerk
from server.departures import Departures
from server.errands import Errands
from server.errors import SequenceGone, StoreSilent, TidegateError
from server.losses import gone
from server.model import ServedModel
from server.residents import Residents
from server.scribe import Scribe
from server.sequence import Life, Move
from server.tenant import Tenant, digest_of
from tidegate.v1 import error_pb2

log = logging.getLogger(__name__)


class Exact(Protocol):
    """Where the very model of a checkpoint is found."""

    def exact(self, name: str, version: int, sha256: str) -> ServedModel:
        """The model of this content. Raises Refusal."""


@dataclass(frozen=True, eq=False)
class Restored:
    """A sequence that was claimed, and the checkpoint to go on from."""

    tenant: Tenant
    checkpoint: Checkpoint
    answered: int  # how many answers its client has


@dataclass(frozen=True, eq=False)
class _Wish:
    """Sequences that one client wants, each with how many answers it has, and the moment at which it asked."""

    number: int  # a later wish has a larger one
    claims: Sequence[store.Claim]
    answered: Sequence[int]
    now: float  # if it is carried out late, the store sees that
    wanted: Callable[[], bool]


class Claims:
    """Lives in the event loop.

    Args:
        clerk: asks the store.
        residents: who leaves its stream if it is claimed.
        departures: what the store should know before.
        scribe: writes that.
        errands: carry out what waits for the store.
        models: finds the model of a checkpoint.
        clock: seconds since 1970, for the store.
    """

    def __init__(
        self,
        clerk: Clerk,
        residents: Residents,
        departures: Departures,
        scribe: Scribe,
        errands: Errands,
        models: Exact,
        clock: Callable[[], float],
    ) -> None:
        self._clerk = clerk
        self._residents = residents
        self._departures = departures
        self._scribe = scribe
        self._errands = errands
        self._models = models
        self._clock = clock
        self._numbers = counter()
        self._last: dict[str, int] = {}  # the number of the last that wants a sequence, while the store is asked

    def claim(
        self,
        ids: Sequence[str],
        token: str,
        answered: Sequence[int],
        then: Callable[[list[Restored] | TidegateError], None],
        wanted: Callable[[], bool],
    ) -> None:
        """Takes over sequences; `then` hears of all of them, or why not. See `Keeper.claim`."""
        digest = digest_of(token)
        claims = [store.Claim(id_, digest) for id_ in ids]
        wish = _Wish(next(self._numbers), claims, answered, self._clock(), wanted)
        self._last.update(dict.fromkeys(ids, wish.number))

        def done(found: list[Restored] | TidegateError) -> None:
            for id_ in ids:
                if self._last.get(id_) == wish.number:
                    del self._last[id_]
            then(found)

        self._errands.run(self._claimed(wish), done)

    def settle(self, restored: Sequence[Restored], slots: np.ndarray) -> None:
        """What was claimed lives in these slots from now on; all of one model."""
        model = restored[0].tenant.model
        steps = np.array([r.checkpoint.step for r in restored])
        rows = [model.graph.initial if r.checkpoint.state is None else r.checkpoint.state for r in restored]
        model.slots.restore(slots, np.stack(rows), steps)
        self._residents.move_in([r.tenant for r in restored], slots, steps, steps)
        model.progress.come_back(slots, [r.answered for r in restored])
        model.tally.resumed += len(restored)

    async def _claimed(self, wish: _Wish) -> list[Restored]:
        ids = [claim.id for claim in wish.claims]
        if self._departures or any(self._is_unborn(id_) for id_ in ids):
            await self._scribe.write_soon()
        late = next((i for i in ids if self._last.get(i) != wish.number), None if wish.wanted() else ids[0])
        if late is not None:
            raise gone(late, store.Reason.FENCED)
        answers = await self._clerk.ask_soon(lambda s: s.claim(wish.claims, self._clock(), wish.now))
        for id_, claimed in zip(ids, answers, strict=True):
            if isinstance(claimed, store.Claimed):
                self._give_way(id_, claimed.fence)
        found = zip(wish.claims, answers, wish.answered, strict=True)
        return [self._restored(claim, claimed, step) for claim, claimed, step in found]

    def _is_unborn(self, name: str) -> bool:
        tenant = self._residents.get(name)
        return tenant is not None and not tenant.born

    def _give_way(self, name: str, fence: int) -> None:
        """Whoever has a sequence here under an older number leaves it. Raises SequenceGone: its number is newer."""
        tenant = self._residents.get(name)
        if tenant is None:
            return
        if tenant.fence >= fence:
            raise gone(name, store.Reason.FENCED)
        self._residents.lose([tenant], error_pb2.REASON_TAKEN_OVER, "sequence '{}' goes on on another stream")

    def _restored(self, claim: store.Claim, claimed: store.Claimed | store.Gone, answered: int) -> Restored:
        if isinstance(claimed, store.Gone):
            if claimed.reason is store.Reason.FENCED:
                raise StoreSilent(f"the store was too slow: another has claimed sequence '{claim.id}' since; try again")
            raise gone(claim.id, claimed.reason)
        kept = _newest(claim.id, claimed, answered)
        model = self._models.exact(kept.model, kept.version, kept.sha256)
        tenant = Tenant(
            claim.id,
            claim.digest,
            claimed.owner,
            model,
            -1,
            claimed.fence,
            born=True,
            life=Life.PARKED,
            steps=kept.step,
        )
        tenant.move(Move.RESUME)
        return Restored(tenant, kept, answered)


def _newest(name: str, claimed: store.Claimed, answered: int) -> Checkpoint:
    """The newest checkpoint that is whole, and not later than the client's answers. Raises SequenceGone."""
    found = checkpoint.newest(claimed.checkpoints, answered)
    for refused in found.refused:
        log.warning("a checkpoint of sequence '%s' is passed over: %s", name, refused)
    if found.checkpoint is None:
        raise SequenceGone(
            f"no checkpoint of sequence '{name}' is kept at or before step {answered}", error_pb2.REASON_CHECKPOINT_GONE
        )
    return found.checkpoint
