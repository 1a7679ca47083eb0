"""Gives memory back to the system: glibc keeps all that it once had, however much of it is free since."""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_MUCH = 64 * 2**20  # bytes: less is not worth the time
_CALM = 2  # looks in a row that find so much free: what is needed again at once is kept
_PAGE = 4_096  # bytes, as /proc/PID/statm counts

_MALLINFO2 = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"  # of malloc.h


class _Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _MALLINFO2.split()]


class Allocator:
    """What is asked of the C library; another one than glibc is left alone."""

    def __init__(self) -> None:
        with suppress(OSError, AttributeError):
            self._libc = ctypes.CDLL(None)
            self._libc.mallinfo2.restype = _Mallinfo

    def free(self) -> int:
        """Free bytes that the allocator keeps, whether or not they are resident."""
        with suppress(AttributeError):
            return int(self._libc.mallinfo2().fordblks)
        return 0

    def give_back(self) -> None:
        self._libc.malloc_trim(0)


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


class Memory:
    """Call `look` every few seconds, in a thread: giving back a gibibyte takes tenths of a second."""

    def __init__(self, allocator: Allocator | None = None, resident: Callable[[], int] = resident) -> None:
        self._allocator = allocator or Allocator()
        self._resident = resident
        self._least = 0  # resident after the last time
        self._calm = 0

    def look(self) -> None:
        """Gives back what is free if that is much, was much before, and is resident."""
        free = self._allocator.free()
        much = free >= _MUCH and self._resident() - self._least >= _MUCH
        self._calm = self._calm + 1 if much else 0
        if self._calm >= _CALM:
            self._allocator.give_back()
            self._least, self._calm = self._resident(), 0
