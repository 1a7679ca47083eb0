"""Who is here: the sequences of this server by id, by slot and by owner, and which slots that holds. Asks no store."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np

from server.durability.losses import WHY
from server.durability.sequence import Move
from server.durability.tenant import Tenant
from server.errors import SequenceGone
from server.runtime.served_model import ServedModel
from server.stores import store
from tidegate.v1 import error_pb2

_SWEPT = error_pb2.REASON_SEQUENCE_EXPIRED, error_pb2.REASON_SEQUENCE_EVICTED  # counted by the server that ended them
_NOBODY: Mapping[int, Tenant] = {}


class Residents:
    """All sequences that are open here, sleeping ones among them.

    Args:
        monotonic: seconds, for what is idle.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._here: dict[str, Tenant] = {}
        self._by_slot: dict[ServedModel, dict[int, Tenant]] = {}
        self._owners: dict[str, dict[str, Tenant]] = {}
        self._active: set[str] = set()  # owners, since somebody looked
        self.coming: dict[str, str] = {}  # by id the owners of those that the store is being asked for
        self.lost: Counter[str] = Counter()  # by reason, for the metrics

    def __len__(self) -> int:
        return len(self._here)

    def __iter__(self) -> Iterator[Tenant]:
        return iter(self._here.values())

    def __contains__(self, tenant: Tenant) -> bool:
        return self._here.get(tenant.id) is tenant

    def get(self, name: str) -> Tenant | None:
        """Who is here under this id."""
        return self._here.get(name)

    def of_owner(self, owner: str) -> Collection[Tenant]:
        """An owner's sequences that are here."""
        return self._owners.get(owner, {}).values()

    def count(self, owner: str, besides: Collection[str] = ()) -> int:
        """How many an owner has here or coming, without some."""
        here = self._owners.get(owner, {})
        coming = sum(whose == owner and id_ not in here for id_, whose in self.coming.items() if id_ not in besides)
        return len(here) + coming - sum(id_ in here for id_ in besides)

    def note(self, tenants: Iterable[Tenant]) -> None:
        """The store may hold more that is parked of their owners than before."""
        self._active.update(tenant.owner for tenant in tenants)

    def take_active(self) -> set[str]:
        """Whose sequences have come, gone or fallen asleep here since the last call."""
        active, self._active = self._active, set()
        return active

    def models(self) -> list[ServedModel]:
        """Those that sequences have slots of now."""
        return list(self._by_slot)

    def at(self, model: ServedModel) -> Mapping[int, Tenant]:
        """Who has which slot of a model."""
        return self._by_slot.get(model, _NOBODY)

    # Coming -----------------------------------------------------------------------------------------------------------

    def move_in(
        self, tenants: Sequence[Tenant], slots: np.ndarray, steps: np.ndarray | int, written: np.ndarray | int
    ) -> None:
        """Sequences of one model live in these slots after so many steps; their newest checkpoints are `written`."""
        for tenant, slot in zip(tenants, slots.tolist(), strict=True):
            self._here[tenant.id] = tenant
            self._owners.setdefault(tenant.owner, {})[tenant.id] = tenant
            self._house(tenant, slot)
        self.note(tenants)
        tenants[0].model.progress.begin(slots, steps, written, self._monotonic())

    def wake(self, tenant: Tenant, slot: int, step: int) -> None:
        """A sequence that slept has a slot again; its newest checkpoint is of its last step."""
        assert tenant.standing is not None
        self._house(tenant, slot)
        tenant.model.progress.go_on(slot, tenant.standing, step, self._monotonic())

    def relocate(self, tenant: Tenant, model: ServedModel, slot: int) -> None:
        """A sequence goes on in a slot of another model, where it is anchored."""
        standing = tenant.model.progress.standing(tenant.slot)
        self.vacate(tenant)
        tenant.model = model
        self._house(tenant, slot)
        model.progress.go_on(slot, standing, int(model.slots.done[slot]), self._monotonic())

    def _house(self, tenant: Tenant, slot: int) -> None:
        tenant.slot = slot
        self._by_slot.setdefault(tenant.model, {})[slot] = tenant

    # Going ------------------------------------------------------------------------------------------------------------

    def move_out(self, tenants: Sequence[Tenant]) -> None:
        """They are not here any more; those that were not are passed over."""
        self.note(tenants)
        for tenant in tenants:
            if tenant not in self:
                continue
            del self._here[tenant.id]
            del self._owners[tenant.owner][tenant.id]
            if not self._owners[tenant.owner]:
                del self._owners[tenant.owner]
            if tenant.slot >= 0:
                self.vacate(tenant)

    def vacate(self, tenant: Tenant) -> None:
        """It leaves its slot, which its stream gives back."""
        model, by_slot = tenant.model, self._by_slot.get(tenant.model)
        if by_slot is None or by_slot.get(tenant.slot) is not tenant:
            return
        del by_slot[tenant.slot]
        progress = model.progress
        if progress.retaken.item(tenant.slot) < progress.had.item(tenant.slot):
            model.tally.replayed += progress.replayed(np.array([tenant.slot]), model.slots.done)
        progress.held[tenant.slot] = False
        if not by_slot:
            del self._by_slot[model]

    def lose(self, tenants: Sequence[Tenant], reason: int, sentence: str) -> None:
        """They leave against their clients' will, who hear of it; `sentence` has a place for the id."""
        for tenant in tenants:
            if tenant.holder is not None:
                tenant.holder.take_away([tenant], SequenceGone(sentence.format(tenant.id), reason))
            tenant.move(Move.LOSE)
            if reason not in _SWEPT:
                self.lost[error_pb2.Reason.Name(reason).removeprefix("REASON_")] += 1
        self.move_out(tenants)

    def disown(self, tenant: Tenant) -> None:
        """Where it stands in the store is not known any more, so nothing is written of it: it has to be resumed."""
        if tenant in self:
            self.lose([tenant], error_pb2.REASON_DRAINING, "sequence '{}' has to be resumed: the store did not answer")

    def let_go(self, tenant: Tenant, reason: store.Reason) -> None:
        """The store does not take it for ours any more."""
        if tenant in self:
            self.lose([tenant], *WHY[reason])
