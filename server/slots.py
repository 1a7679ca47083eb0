"""Where the checkpoints of one sequence are in a file: numbered places that are used again and again; pure."""

import struct
from dataclasses import dataclass

from server.fencing import superseded

PLACE = struct.Struct("<qQ")  # step, bytes
FREE = -1


@dataclass(frozen=True, slots=True)
class Slot:
    """A place that is taken: its number, whose step, how many bytes."""

    number: int
    step: int
    size: int


@dataclass(frozen=True, slots=True)
class Slots:
    """All that are taken, in no order."""

    taken: tuple[Slot, ...] = ()

    @property
    def bytes(self) -> int:
        """Of all checkpoints together."""
        return sum(slot.size for slot in self.taken)

    @property
    def newest(self) -> int | None:
        """The latest step that is kept."""
        return max((slot.step for slot in self.taken), default=None)

    @property
    def newest_first(self) -> list[Slot]:
        """By step, the newest first."""
        return sorted(self.taken, key=lambda slot: -slot.step)

    def placed(self, step: int, size: int, keep: int) -> tuple["Slots", Slot, list[int]]:
        """The slots once `step` is kept, where that goes, and the numbers of those that are free then."""
        going = set(superseded([slot.step for slot in self.taken], step, keep))
        staying = [slot for slot in self.taken if slot.step not in going]
        before, after = {slot.number for slot in self.taken}, {slot.number for slot in staying}
        number = min(set(range(len(after) + 1)) - after)
        slot = Slot(number, step, size)
        return Slots((*staying, slot)), slot, sorted(before - after - {number})


def packed(slots: Slots) -> bytes:
    """As it stands in the file."""
    by_number = {slot.number: slot for slot in slots.taken}
    places = [by_number.get(number) for number in range(max(by_number, default=-1) + 1)]
    return b"".join(PLACE.pack(FREE, 0) if slot is None else PLACE.pack(slot.step, slot.size) for slot in places)


def unpacked(data: bytes) -> Slots:
    """As it was when `packed`."""
    places = enumerate(PLACE.iter_unpack(data))
    return Slots(tuple(Slot(number, step, size) for number, (step, size) in places if step != FREE))
