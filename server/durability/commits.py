"""Makes one checkpoint the last of an open sequence: an earlier one, or one of another version of its model.

The caller puts the state in place. It is one write of its own, never beside another. If the store has definitely not
carried it out, the sequence goes on as it was; if that is unknown, its client has to resume it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from server.durability import checkpoint
from server.durability.checkpoint import Checkpoint
from server.durability.loss_errors import gone, kept_at
from server.durability.registry import Registry
from server.durability.sequence import ServedSequence
from server.durability.snapshot import creating
from server.errors import StoreSilent, TidegateError
from server.stores import store
from server.watermarks import NONE

if TYPE_CHECKING:
    from server.durability.checkpointer import Checkpointer
    from server.durability.store_thread import StoreThread
    from server.runtime.served_model import ServedModel


@dataclass(eq=False)
class Commits:
    """Rewinds and moves of open sequences, in the store."""

    _store: StoreThread
    _registry: Registry
    _checkpointer: Checkpointer

    def go_back(
        self,
        sequence: ServedSequence,
        step: int,
        wanted: Callable[[], bool],
        then: Callable[[Checkpoint | TidegateError], None],
    ) -> None:
        """Makes the newest checkpoint at or before a step the last one; `then` puts it in place.

        Nothing is written where that is not `wanted` any more when its turn has come: the sequence may have left since.
        """
        self._store.run(self._gone_back(sequence, step, wanted), then)

    def go_over(
        self,
        sequence: ServedSequence,
        model: ServedModel,
        step: int,
        row: np.ndarray,
        wanted: Callable[[], bool],
        then: Callable[[TidegateError | None], None],
    ) -> None:
        """Writes a last checkpoint that goes on with another version of the model from this step and state [W].

        `wanted`: as for `go_back`.
        """
        data = checkpoint.encode(Checkpoint(model.name, model.version, model.loaded.sha256, step, row))
        self._store.run(self._gone_over(sequence, step, data, wanted), then)

    def relocate(self, sequence: ServedSequence, model: ServedModel, slot: int) -> None:
        """A sequence goes on in a slot of another model, as `go_over` has written."""
        self._registry.relocate(sequence, model, slot)

    async def _gone_back(self, sequence: ServedSequence, step: int, wanted: Callable[[], bool]) -> Checkpoint:
        async with self._checkpointer.turn_of(sequence, stored=True):
            _check(wanted)
            kept = kept_at(sequence, await self._seen(sequence), step)
            await self._write(sequence, kept.step, checkpoint.encode(kept), wanted)
            return kept

    async def _gone_over(self, sequence: ServedSequence, step: int, data: bytes, wanted: Callable[[], bool]) -> None:
        async with self._checkpointer.turn_of(sequence):
            _check(wanted)
            self._registry.keep([sequence])
            await self._seen(sequence)  # a store that does not answer is not asked to change anything
            await self._write(sequence, step, data, wanted)

    async def _seen(self, sequence: ServedSequence) -> store.Claimed | store.Gone:
        claims = [store.Claim(sequence.id, sequence.digest)]
        found = (await self._store.ask_soon(lambda s: s.read(claims, self._registry.clock())))[0]
        if isinstance(found, store.Gone) and found.reason is not store.Reason.UNKNOWN:
            self._registry.let_go([sequence], found.reason)
        return found

    async def _write(self, sequence: ServedSequence, step: int, data: bytes, wanted: Callable[[], bool]) -> None:
        _check(wanted)
        watermarks, slots = sequence.model.watermarks, np.array([sequence.slot])
        kept = watermarks.kept(slots)[0].tolist()
        written = watermarks.written[slots]
        watermarks.written[slots] = NONE  # until the caller puts it in place: a write that fails may be carried out
        try:
            refused = await self._write_alone(sequence, step, data, kept)
            if refused is store.Reason.UNKNOWN:  # the store has lost its data
                self._registry.forgotten(sequence)
                refused = await self._write_alone(sequence, step, data, kept)
        except StoreSilent as error:
            if not error.definite:  # where the sequence stands in the store is unknown
                self._registry.disown(sequence)
            elif sequence in self._registry:
                watermarks.written[slots] = written if sequence.stored else NONE
            raise
        if refused is not None:
            self._registry.let_go([sequence], refused)
            raise gone(sequence.id, refused)
        self._registry.note_stored(sequence)

    async def _write_alone(
        self, sequence: ServedSequence, step: int, data: bytes, kept: Sequence[int]
    ) -> store.Reason | None:
        writes = list(creating(sequence, store.Write(sequence.id, sequence.fence, step, data, spare=tuple(kept))))
        refused = await self._store.ask_soon(lambda s: s.write(writes, self._registry.clock()))
        return refused[0].reason if refused else None


def _check(wanted: Callable[[], bool]) -> None:
    """Raises TidegateError: it was given up while it waited."""
    if not wanted():
        raise TidegateError("this was given up before it was begun")
