"""The sequences of this server by id and by slot, how many each owner has, and all changes to them. Asks no store."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from server.durability.loss_errors import WHY
from server.durability.quota import Quota
from server.durability.sequence import Holder, Life, Move, ServedSequence
from server.errors import Reason, SequenceGone
from server.lives import Lives
from server.meter import LimitsOf, unlimited
from server.stores import store
from server.watermarks import NONE

if TYPE_CHECKING:
    from server.runtime.served_model import ServedModel

_SWEPT = Reason.SEQUENCE_EXPIRED, Reason.SEQUENCE_EVICTED  # counted by the server that ended them
_LOST = "TAKEN_OVER", "SEQUENCE_EXPIRED", "SEQUENCE_EVICTED", "CHECKPOINT_GONE", "DRAINING"
_NONE_HERE: Mapping[int, ServedSequence] = {}


class Registry:
    """All sequences that are open here, sleeping ones among them. All of durability takes its time from here."""

    def __init__(
        self,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        limits_of: LimitsOf = unlimited,
        lives: Lives | None = None,
    ) -> None:
        self.clock = clock  # seconds since 1970
        self.monotonic = monotonic
        self.lives = lives or Lives()
        self._here: dict[str, ServedSequence] = {}
        self._by_slot: dict[ServedModel, dict[int, ServedSequence]] = {}
        self.quota = Quota(limits_of)  # of those that are here or coming
        self._active: set[str] = set()  # owners, since `take_active` was called last
        self._coming: dict[str, ServedSequence] = {}  # that the store is being asked for, by id
        self.lost = Counter(dict.fromkeys(_LOST, 0))  # by reason, for the metrics

    def __len__(self) -> int:
        return len(self._here)

    def __iter__(self) -> Iterator[ServedSequence]:
        return iter(self._here.values())

    def ids(self) -> list[str]:
        """Of all that are open here: for a hundred thousand it takes less than a millisecond."""
        return list(self._here)

    def __contains__(self, sequence: ServedSequence) -> bool:
        return self._here.get(sequence.id) is sequence

    def get(self, name: str) -> ServedSequence | None:
        """The sequence that is open here under this id."""
        return self._here.get(name)

    def those_here(self, ids: Iterable[str]) -> list[ServedSequence]:
        """The sequences that are open here under these ids."""
        return [sequence for sequence in map(self._here.get, ids) if sequence is not None]

    def unknown(self, sequences: Iterable[ServedSequence]) -> list[ServedSequence]:
        """Those whose ids are neither open here nor expected."""
        return [one for one in sequences if one.id not in self._here and one.id not in self._coming]

    def expect(self, coming: Sequence[ServedSequence]) -> None:
        """Sequences may be resumed here soon; their owners' quotas count them from now on."""
        for sequence in self.unknown(coming):
            self.quota.count(sequence.owner, 1)
        self._coming.update((sequence.id, sequence) for sequence in coming)

    def expect_no_more(self, ids: Iterable[str], digest: bytes) -> None:
        """Ends `expect` for sequences with this token's digest: they are here now, or do not come."""
        for id_ in ids:
            coming = self._coming.get(id_)
            if coming is not None and coming.digest == digest:
                del self._coming[id_]
                if id_ not in self._here:
                    self.quota.count(coming.owner, -1)

    def note(self, sequences: Iterable[ServedSequence]) -> None:
        """Notes that the store may hold more parked sequences of their owners than before."""
        self._active.update(sequence.owner for sequence in sequences)

    def take_active(self) -> set[str]:
        """The owners whose sequences came, left or fell asleep here since the last call."""
        active, self._active = self._active, set()
        return active

    def models(self) -> list[ServedModel]:
        """The models of which sequences have slots now."""
        return list(self._by_slot)

    def at(self, model: ServedModel) -> Mapping[int, ServedSequence]:
        """The sequences that have slots of a model, by slot."""
        return self._by_slot.get(model, _NONE_HERE)

    # Coming -----------------------------------------------------------------------------------------------------------

    def add(
        self, sequences: Sequence[ServedSequence], slots: np.ndarray, steps: np.ndarray | int, written: np.ndarray | int
    ) -> None:
        """Sequences of one model live in these slots after so many steps; their newest checkpoints are `written`."""
        self._add(sequences, slots)
        sequences[0].model.watermarks.begin(slots, steps, written, self.monotonic())

    def add_fresh(self, sequences: Sequence[ServedSequence], slots: np.ndarray) -> None:
        """New sequences of one model live in these slots, in its initial state: nothing of them is kept yet."""
        self._add(sequences, slots)
        cohort = int.from_bytes(sequences[0].digest[:7], "little")  # one token, one cohort
        sequences[0].model.watermarks.begin_afresh(slots, cohort, self.monotonic())

    def add_claimed(
        self, sequences: Sequence[ServedSequence], slots: np.ndarray, steps: np.ndarray, sentence: str
    ) -> list[ServedSequence]:
        """As `add`. Of a sequence that two streams have then, that of the older fence is lost; `sentence` says why.

        Returns those of `sequences` that are lost: another stream has claimed them since.
        """
        here = [(new, old) for new in sequences if (old := self._here.get(new.id)) is not None]
        self.lose([old for new, old in here if old.fence < new.fence], Reason.TAKEN_OVER, sentence)
        late = [new for new, old in here if old.fence >= new.fence]
        stay = [at for at, sequence in enumerate(sequences) if sequence not in late]
        if stay:
            self.add([sequences[at] for at in stay], slots[stay], steps[stay], steps[stay])
        self.lose(late, Reason.TAKEN_OVER, sentence)
        return late

    def keep(self, sequences: Iterable[ServedSequence]) -> None:
        """Has sequences written although they may have taken no step."""
        slots: dict[ServedModel, list[int]] = {}
        for sequence in sequences:
            if not sequence.stored and sequence.slot >= 0:
                slots.setdefault(sequence.model, []).append(sequence.slot)
        for model, those in slots.items():
            model.watermarks.keep(np.array(those))

    def _add(self, sequences: Sequence[ServedSequence], slots: np.ndarray) -> None:
        now = self.monotonic()
        for sequence, slot in zip(sequences, slots.tolist(), strict=True):
            if sequence.id not in self._here and sequence.id not in self._coming:
                self.quota.count(sequence.owner, 1)
            self._here[sequence.id] = sequence
            sequence.began = now
            self._place(sequence, slot)
        self.note(sequences)
        self.lives.came(sequences)

    def sleep(self, sequence: ServedSequence) -> None:
        """An open sequence, whose last state is written, gives up its slot."""
        model, slot = sequence.model, sequence.slot
        sequence.move(Move.SLEEP)
        sequence.steps, sequence.standing = model.slots.done.item(slot), model.watermarks.standing(slot)
        self.vacate(sequence)
        self.note([sequence])
        model.slots.give_back([slot])
        model.asleep += 1
        model.counters.parked += 1
        sequence.slot, sequence.held = -1, -inf  # written to the store with the leases

    def wake(self, sequence: ServedSequence, slot: int, step: int, *, later: bool) -> None:
        """A sequence that slept has a slot again after its last step; whether the store has `later` checkpoints."""
        assert sequence.standing is not None
        sequence.move(Move.BRANCH if later else Move.READY)
        self._place(sequence, slot)
        sequence.model.watermarks.go_on(slot, sequence.standing, step, self.monotonic())

    def relocate(self, sequence: ServedSequence, model: ServedModel, slot: int) -> None:
        """A sequence goes on in a slot of another model, as the store has it."""
        standing = sequence.model.watermarks.standing(sequence.slot)
        self.vacate(sequence)
        before, sequence.model = sequence.place, model
        self._place(sequence, slot)
        self.lives.moved(sequence, before)
        model.watermarks.go_on(slot, standing, int(model.slots.done[slot]), self.monotonic())

    def _place(self, sequence: ServedSequence, slot: int) -> None:
        sequence.slot = slot
        self._by_slot.setdefault(sequence.model, {})[slot] = sequence

    # In the store -----------------------------------------------------------------------------------------------------

    def note_stored(self, sequence: ServedSequence) -> None:
        """Notes that the store knows a sequence, and has no checkpoints later than the one just written."""
        sequence.stored, sequence.new, sequence.origin = True, False, None
        if sequence.life is Life.BRANCHED:
            sequence.move(Move.READY)

    def forgotten(self, sequence: ServedSequence) -> None:
        """Notes that the store has lost a sequence: its state is written again."""
        sequence.stored = False
        if sequence.slot >= 0:
            if sequence.life in (Life.BRANCHED, Life.LEAVING):
                sequence.move(Move.FORGET)
            if sequence in self:
                sequence.model.watermarks.written[sequence.slot] = NONE

    # Going ------------------------------------------------------------------------------------------------------------

    def remove(self, sequences: Sequence[ServedSequence]) -> None:
        """Removes sequences; those that are not here are passed over."""
        self.note(sequences)
        for sequence in sequences:
            if sequence not in self:
                continue
            del self._here[sequence.id]
            if sequence.id not in self._coming:
                self.quota.count(sequence.owner, -1)
            if sequence.slot >= 0:
                self.vacate(sequence)

    def vacate(self, sequence: ServedSequence) -> None:
        """Takes a sequence out of its slot, which its stream gives back."""
        model, by_slot = sequence.model, self._by_slot.get(sequence.model)
        if by_slot is None or by_slot.get(sequence.slot) is not sequence:
            return
        del by_slot[sequence.slot]
        watermarks = model.watermarks
        if watermarks.retaken.item(sequence.slot) < watermarks.had.item(sequence.slot):
            model.counters.replayed += watermarks.replayed(np.array([sequence.slot]), model.slots.done)
        watermarks.held[sequence.slot] = False
        if not by_slot:
            del self._by_slot[model]

    def lose(self, sequences: Sequence[ServedSequence], reason: Reason, sentence: str, *, counted: bool = True) -> None:
        """Removes sequences against their clients' will; their streams say why. `sentence` has a place for the id."""
        self.lives.left([sequence for sequence in sequences if sequence in self], Reason(reason).name.lower())
        by_holder: dict[Holder, list[ServedSequence]] = {}
        for sequence in sequences:
            if sequence.holder is not None:
                by_holder.setdefault(sequence.holder, []).append(sequence)
        for holder, those in by_holder.items():
            others = f" (and {len(those) - 1} more)" if len(those) > 1 else ""
            holder.take_away(those, SequenceGone(sentence.format(those[0].id) + others, reason))
        for sequence in sequences:
            sequence.move(Move.LOSE)
        if counted and reason not in _SWEPT and sequences:
            self.lost[Reason(reason).name] += len(sequences)
        self.remove(sequences)

    def disown(self, sequence: ServedSequence) -> None:
        """Ends a sequence of which it is unknown where it stands in the store: its client has to resume it."""
        if sequence in self:
            self.lose([sequence], Reason.DRAINING, "sequence '{}' has to be resumed: the store did not answer")

    def lose_asleep(self, sequence: ServedSequence, reason: store.Reason) -> None:
        """Ends a sleeping sequence: the store has no state from which it could go on."""
        if reason is store.Reason.UNKNOWN:
            why = "the store has lost its data, and with it the state of sequence '{}', which was asleep"
            self.lose([sequence], Reason.CHECKPOINT_GONE, why)
        else:
            self.let_go([sequence], reason)

    def refused(self, refusals: Iterable[tuple[ServedSequence, store.Refused]]) -> None:
        """Lets go of sequences that the store gave up, or to another server.

        Not for a refusal of an earlier stay. Nor where the store does not know a sequence: it has lost its data, and
        the next write brings the sequence back.
        """
        by_reason = defaultdict[store.Reason, list[ServedSequence]](list)
        for sequence, refusal in refusals:
            if refusal.reason is not store.Reason.UNKNOWN and not is_old(refusal, sequence):
                by_reason[refusal.reason].append(sequence)
        for reason, those in by_reason.items():
            self.let_go(those, reason)

    def let_go(self, sequences: Iterable[ServedSequence], reason: store.Reason) -> None:
        """The store says why they are not this server's any more; those that are here leave their streams."""
        self.lose([sequence for sequence in sequences if sequence in self], *WHY[reason])


def is_old(refusal: store.Refused, sequence: ServedSequence) -> bool:
    """Whether a refusal is of an earlier stay: one write can hold a sequence as it left a stream, and as it goes on."""
    return refusal.reason is store.Reason.FENCED and refusal.fence <= sequence.fence
