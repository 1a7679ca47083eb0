"""Copies of states at a moment, and what a store is to write of them. Knows no store that does it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from server import checkpoint, store
from server.checkpoint import Checkpoint
from server.model import ServedModel
from server.tenant import Tenant


@dataclass(frozen=True, eq=False)
class Snapshot:
    """States of sequences of one model at a moment: `steps` [N], `states` [N, W], and the steps [N, 3] to keep too.

    `awake`: whether they went on from there, as far as is known.
    `complete`: that moment, if nothing else of the model is to be written; else 0.
    """

    model: ServedModel
    tenants: tuple[Tenant, ...]
    steps: np.ndarray
    states: np.ndarray
    kept: np.ndarray
    complete: float = 0.0
    awake: bool = True

    def left(self, places: list[int]) -> "Snapshot":
        """Some of them, that have left since."""
        tenants = tuple(self.tenants[at] for at in places)
        return Snapshot(self.model, tenants, self.steps[places], self.states[places], self.kept[places], awake=False)


def writes(snapshots: Iterable[Snapshot]) -> Iterable[store.Write]:
    """What a store is to write of them."""
    for snapshot in snapshots:
        steps = snapshot.steps.tolist()
        data = _encoded(snapshot)
        kept = snapshot.kept.tolist()
        for tenant, step, bytes_, spare in zip(snapshot.tenants, steps, data, kept, strict=True):
            write = store.Write(tenant.id, tenant.fence, step, bytes_, spare=tuple(spare), awake=snapshot.awake)
            yield from born(tenant, write)


def born(tenant: Tenant, write: store.Write) -> Iterable[store.Write]:
    """A write, with what makes its sequence known to the store.

    Of a new one its beginning is kept too: a client that has no answer yet has to go back there.
    """
    if tenant.born:
        yield write
        return
    model, birth = tenant.model, store.Birth(tenant.digest, tenant.owner, tenant.model.name)
    if tenant.new and write.step != tenant.steps:
        origin = Checkpoint(model.name, model.version, model.loaded.sha256, tenant.steps, tenant.origin)
        yield store.Write(tenant.id, tenant.fence, tenant.steps, checkpoint.encode(origin), birth)
    yield replace(write, birth=birth)


def _encoded(snapshot: Snapshot) -> list[bytes]:
    """A state that is still the model's initial one takes next to nothing."""
    model, steps, states = snapshot.model, snapshot.steps, snapshot.states
    who = model.name, model.version, model.loaded.sha256
    moved = (steps > 0) | (states != model.graph.initial).any(axis=1)
    initial = checkpoint.encode(Checkpoint(*who, 0, None))
    encoded = iter(checkpoint.encode_many(*who, steps[moved].tolist(), states[moved]))
    return [next(encoded) if has else initial for has in moved.tolist()]
