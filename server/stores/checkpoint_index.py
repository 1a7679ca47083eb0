"""Which checkpoints of one sequence a store keeps, each under a small number that is used again; pure.

The sequences of a fleet have the same, so what was worked out lately is kept.
"""

import struct
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple, Self

FREE = -1
MOST = 256  # checkpoints of one sequence
_lately = lru_cache(maxsize=16)


def superseded(steps: list[int], step: int, keep: int, spare: Collection[int] = ()) -> list[int]:
    """Of the steps that are kept, those that go when `step` is written: later ones, the same, and the oldest.

    Those to spare stay if they are earlier, and do not count as kept.
    """
    earlier = [s for s in steps if s < step and s not in spare]
    oldest = sorted(earlier, reverse=True)[keep - 1 :]
    return [s for s in steps if s >= step] + oldest


class CheckpointIndex(NamedTuple):
    """The i-th entries: the step of the checkpoint that is kept under the number i (or FREE), and its bytes (or 0)."""

    steps: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        """As they were when `packed`. Raises ValueError: they are damaged."""
        return cls(*_unpacked(data))

    @property
    def packed(self) -> bytes:
        return _packed(self)

    @property
    def bytes(self) -> int:
        return sum(self.sizes)

    @property
    def newest(self) -> int | None:
        return max(self.steps) if self.steps else None

    @property
    def newest_first(self) -> list[int]:
        """The numbers that are taken, that of the last step first."""
        taken = [number for number, step in enumerate(self.steps) if step != FREE]
        return sorted(taken, key=lambda number: -self.steps[number])

    def placed(self, step: int, size: int, keep: int, spare: tuple[int, ...] = ()) -> "Placed":
        """The index once `step` is kept, the number of its checkpoint, and the numbers that are free from now on."""
        return _placed(self, step, size, keep, spare)


Placed = tuple[CheckpointIndex, int, Collection[int]]


@_lately
def _unpacked(data: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if len(data) % 16 or len(data) > 16 * MOST:
        raise ValueError(f"{len(data)} bytes of an index; expected a step and a size for each of up to {MOST}")
    numbers = struct.unpack(f"<{len(data) // 8}q", data)
    return numbers[::2], numbers[1::2]


@_lately
def _packed(index: CheckpointIndex) -> bytes:
    numbers = [number for place in zip(index.steps, index.sizes, strict=True) for number in place]
    return struct.pack(f"<{len(numbers)}q", *numbers)


@_lately
def _placed(index: CheckpointIndex, step: int, size: int, keep: int, spare: tuple[int, ...]) -> Placed:
    going = superseded([s for s in index.steps if s != FREE], step, keep, spare)
    steps = [FREE if s in going else s for s in index.steps]
    sizes = [0 if s in going else n for s, n in zip(index.steps, index.sizes, strict=True)]
    number = steps.index(FREE) if FREE in steps else len(steps)
    steps[number : number + 1], sizes[number : number + 1] = [step], [size]
    freed = tuple(n for n, (s, before) in enumerate(zip(steps, index.steps, strict=False)) if s == FREE != before)
    return CheckpointIndex(tuple(steps), tuple(sizes)), number, freed
