"""The states of all open sequences of a model: fixed slots, one row each. Knows no sequence, only slot numbers."""

import mmap
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import count as numbers
from typing import Any

import numpy as np

from server.errors import OverLimit, Reason
from server.meter import Places


class SlotTable:
    """`capacity` rows of `initial.shape`, taken and given back by number, and counted by account.

    Memory is reserved, and used once a row is written. `of_one`: the most sequences of one account; 0 is no limit.
    """

    def __init__(self, initial: np.ndarray, capacity: int, of_one: int = 0) -> None:
        self._rows = _reserved((capacity, *initial.shape), initial.dtype)
        self.done = np.zeros(capacity, np.int64)  # how many steps led to each row
        self._free: list[int] = []
        self._used = 0  # rows below this one have been handed out at least once
        self._places = Places(capacity, of_one or capacity, bounded=False)
        self.taken_by = np.zeros(capacity, np.int64)  # the number of the account that has each slot; 0: none
        self._accounts: dict[int, str] = {}  # by number
        self._numbers: dict[str, int] = {}  # by account
        self._new = numbers(1)

    @property
    def in_use(self) -> int:
        return self._places.count

    @property
    def free(self) -> int:
        return self._places.most - self.in_use

    def room(self, account: str) -> int:
        """How many slots an account may take: the last eighth is for those that have few."""
        return self._places.room(account)

    def of(self, account: str) -> np.ndarray:
        """The slots of an account."""
        return np.flatnonzero(self.taken_by == self._numbers.get(account, -1))

    def reserve(self, count: int, account: str = "") -> np.ndarray:
        """Takes `count` slots for an account, whose rows have still to be written. Returns their numbers.

        Raises:
            OverLimit: there are not so many for it; none is taken then.
        """
        if not self._places.take(account, count):
            raise OverLimit(self._why(count), Reason.TOO_MANY_SEQUENCES)
        place = max(0, len(self._free) - count)
        reused = self._free[place:]
        del self._free[place:]
        fresh = range(self._used, self._used + count - len(reused))
        self._used = max(self._used, fresh.stop)
        slots = np.concatenate([np.array(reused, np.intp), np.arange(fresh.start, fresh.stop, dtype=np.intp)])
        if count:
            self.taken_by[slots] = self._number(account)
        return slots

    def _why(self, count: int) -> str:
        if count > self.free:
            return f"{count} more would make {self.in_use + count} of this model, and {self._places.most} is the limit"
        return f"{self.in_use} of this model take steps, and the last {self.free} are for who has few"

    def _number(self, account: str) -> int:
        if account not in self._numbers:
            number = self._numbers[account] = next(self._new)
            self._accounts[number] = account
        return self._numbers[account]

    def restore(self, slots: np.ndarray, rows: np.ndarray, steps: np.ndarray | int) -> None:
        """Writes rows [len(slots), W], or one row [W] into all, that so many steps led to."""
        self._rows[slots] = rows
        self.done[slots] = steps

    def give_back(self, slots: Sequence[int]) -> None:
        """Frees slots, whoever has them."""
        self._free.extend(slots)
        those = np.array(slots, np.intp)
        for number, count in Counter(self.taken_by[those].tolist()).items():
            account = self._accounts[number]
            self._places.give_back(account, count)
            if account not in self._places.of:
                del self._accounts[number], self._numbers[account]
        self.taken_by[those] = 0

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
