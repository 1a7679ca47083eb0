"""The states of all open sequences of a model: fixed slots, one row each. Knows no sequence, only slot numbers."""

import mmap
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from server.errors import OverLimit, Reason


class SlotTable:
    """`capacity` rows of `initial.shape`, taken and given back by number.

    Memory is reserved, and used once a row is written.
    """

    def __init__(self, initial: np.ndarray, capacity: int) -> None:
        self._rows = _reserved((capacity, *initial.shape), initial.dtype)
        self.done = np.zeros(capacity, np.int64)  # how many steps led to each row
        self._free: list[int] = []
        self._used = 0  # rows below this one have been handed out at least once

    @property
    def in_use(self) -> int:
        return self._used - len(self._free)

    @property
    def free(self) -> int:
        return len(self._rows) - self.in_use

    def reserve(self, count: int) -> np.ndarray:
        """Takes `count` slots, whose rows have still to be written. Returns their numbers.

        Raises:
            OverLimit: there are not so many; none is taken then.
        """
        capacity = len(self._rows)
        if self.in_use + count > capacity:
            raise OverLimit(
                f"{count} more would make {self.in_use + count} of this model, and {capacity} is the limit",
                Reason.TOO_MANY_SEQUENCES,
            )
        place = max(0, len(self._free) - count)
        reused = self._free[place:]
        del self._free[place:]
        fresh = range(self._used, self._used + count - len(reused))
        self._used = max(self._used, fresh.stop)
        return np.concatenate([np.array(reused, np.intp), np.arange(fresh.start, fresh.stop, dtype=np.intp)])

    def restore(self, slots: np.ndarray, rows: np.ndarray, steps: np.ndarray | int) -> None:
        """Writes rows [len(slots), W], or one row [W] into all, that so many steps led to."""
        self._rows[slots] = rows
        self.done[slots] = steps

    def give_back(self, slots: Sequence[int]) -> None:
        """Frees slots."""
        self._free.extend(slots)

    def row(self, slot: int) -> np.ndarray:
        """One row as a view, [1, W]."""
        return self._rows[slot : slot + 1]

    def put(self, slot: int, row: np.ndarray) -> None:
        """Puts one row [1, W] back after a step."""
        self._rows[slot] = row[0]
        self.done[slot] += 1

    def gather(self, slots: np.ndarray) -> np.ndarray:
        """A copy of the rows, [len(slots), W]."""
        return self._rows.take(slots, 0)

    def scatter(self, slots: np.ndarray, rows: np.ndarray, steps: int) -> None:
        """Puts rows [len(slots), W] back after so many steps."""
        self._rows[slots] = rows
        self.done[slots] += steps


def _reserved(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An array of zeros in small pages: the kernel takes up to 5 ms for the first write to each huge page."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = mmap.mmap(-1, max(1, size), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype, int(np.prod(shape))).reshape(shape)
