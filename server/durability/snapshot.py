"""Copies of states at a moment, and what a store is to write of them. Knows no store that does it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from server.durability import checkpoint
from server.durability.checkpoint import Checkpoint
from server.durability.sequence import ServedSequence
from server.stores import store

if TYPE_CHECKING:
    from server.runtime.served_model import ServedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """States of sequences of one model at a moment: `steps` [N], `slots` [N, W], and the steps [N, 3] to keep too.

    `awake`: whether they went on from there, as far as is known.
    `moment`: when, by a monotonic clock; 0 where that is not needed.
    `behind`: by how many steps, at most, they are ahead of what the store has.
    `told`: is called once it is written, or will not be soon; perhaps more than once.
    """

    model: ServedModel
    sequences: tuple[ServedSequence, ...]
    steps: np.ndarray
    states: np.ndarray
    kept: np.ndarray
    moment: float = 0.0
    awake: bool = True
    behind: int = 0
    told: Callable[[], None] = lambda: None

    def of(self, places: list[int]) -> Snapshot:
        """Some of them."""
        sequences = tuple(self.sequences[at] for at in places)
        steps, states, kept = self.steps[places], self.states[places], self.kept[places]
        return replace(self, sequences=sequences, steps=steps, states=states, kept=kept)


def taken(sequences: Sequence[ServedSequence], *, awake: bool = True) -> Snapshot:
    """The states of sequences of one model as they are now in their slots."""
    model, slots = sequences[0].model, np.array([sequence.slot for sequence in sequences])
    steps, rows = model.slots.done[slots], model.slots.gather(slots)
    behind = int((steps - np.maximum(model.watermarks.written[slots], 0)).max(initial=0))
    return Snapshot(
        model, tuple(sequences), steps, rows, model.watermarks.kept(slots), awake=awake, behind=max(behind, 0)
    )


def writes(snapshots: Iterable[Snapshot], unfit: set[ServedSequence]) -> Iterable[store.Write]:
    """What a store is to write. Sequences whose states cannot be encoded are left out and added to `unfit`."""
    for snapshot in snapshots:
        try:
            yield from list(_writes(snapshot))
        except Exception:
            if not unfit:  # the log needs no more than an example
                log.exception("a state of %s version %d cannot be written", snapshot.model.name, snapshot.model.version)
            if len(snapshot.sequences) == 1:
                unfit.update(snapshot.sequences)
            else:
                yield from writes((snapshot.of([at]) for at in range(len(snapshot.sequences))), unfit)


def _writes(snapshot: Snapshot) -> Iterable[store.Write]:
    steps, kept = snapshot.steps.tolist(), snapshot.kept.tolist()
    for sequence, step, data, spare in zip(snapshot.sequences, steps, _encoded(snapshot), kept, strict=True):
        write = store.Write(sequence.id, sequence.fence, step, data, spare=tuple(spare), awake=snapshot.awake)
        yield from creating(sequence, write)


def creating(sequence: ServedSequence, write: store.Write) -> Iterable[store.Write]:
    """A write, with what makes its sequence known to the store.

    Of a new one its beginning is kept too: a client that has no answer yet has to go back there.
    """
    if sequence.stored:
        yield write
        return
    model, anew = sequence.model, sequence.new and sequence.fence > 1  # under an id that was there before, perhaps
    creation = store.Creation(sequence.digest, sequence.owner, model.name, anew)
    if sequence.new and write.step != sequence.steps:
        origin = Checkpoint(model.name, model.version, model.loaded.sha256, sequence.steps, sequence.origin)
        yield store.Write(sequence.id, sequence.fence, sequence.steps, checkpoint.encode(origin), creation)
    yield replace(write, creation=creation)


def _encoded(snapshot: Snapshot) -> list[bytes]:
    """The bytes of each checkpoint; one of the model's initial state holds no numbers. The last one says that it is."""
    model, steps, states = snapshot.model, snapshot.steps, snapshot.states
    who = model.name, model.version, model.loaded.sha256
    moved = (steps > 0) | (states != model.graph.initial).any(axis=1)
    initial = checkpoint.encode(Checkpoint(*who, 0, None))
    fences = [0 if snapshot.awake else sequence.fence for sequence in snapshot.sequences]
    lasts = [fence for fence, has in zip(fences, moved.tolist(), strict=True) if has]
    encoded = iter(checkpoint.encode_many(*who, steps[moved].tolist(), states[moved], lasts))
    return [next(encoded) if has else initial for has in moved.tolist()]
