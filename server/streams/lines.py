"""Lines of requests, one for each sequence. A request stands in the lines of all of its sequences."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

E = TypeVar("E")


class Lines(Generic[E]):
    """Lines by handle. Entries are compared by identity, and kept in the order in which they came."""

    __slots__ = ("_behind", "_lines", "entries")

    def __init__(self) -> None:
        self.entries: dict[E, Sequence[int]] = {}  # with the handles of each
        self._lines: dict[int, list[E]] = {}  # none is empty
        self._behind: dict[E, int] = {}  # in how many of its lines an entry is not the first

    def concern(self, handles: Iterable[int]) -> bool:
        return bool(self._lines) and not self._lines.keys().isdisjoint(handles)

    def is_first(self, entry: E) -> bool:
        return not self._behind[entry]

    def put(self, entry: E, handles: Sequence[int]) -> bool:
        """Adds an entry at the end of the lines of these handles; returns whether it is the first in all of them."""
        for _ in self.putting(entry, handles, len(handles) or 1):
            pass
        return self.is_first(entry)

    def putting(self, entry: E, handles: Sequence[int], size: int) -> Iterator[None]:
        """The same in pieces of so many handles. Until the end the entry is not the first of all of its lines."""
        self.entries[entry] = handles
        self._behind[entry] = 1
        for at in range(0, len(handles), size):
            if at:
                yield
                if entry not in self.entries:  # it was removed meanwhile
                    return
            for handle in handles[at : at + size]:
                line = self._lines.get(handle)
                if line is None:
                    self._lines[handle] = [entry]
                else:
                    self._behind[entry] += 1
                    line.append(entry)
        self._behind[entry] -= 1

    def remove(self, entry: E) -> Sequence[int]:
        """Takes an entry out; returns its handles."""
        handles = self.entries.pop(entry)
        del self._behind[entry]
        for handle in handles:
            line = self._lines.get(handle, [])
            if entry not in line:
                continue  # it was still being put
            was_first = line[0] is entry
            line.remove(entry)
            if not line:
                del self._lines[handle]
            elif was_first:
                self._behind[line[0]] -= 1
        return handles

    def first(self, handles: Iterable[int]) -> list[E]:
        """The entries in the lines of these handles that are the first in all of their lines."""
        heads = dict.fromkeys(line[0] for handle in handles if (line := self._lines.get(handle)))
        return [entry for entry in heads if not self._behind[entry]]

    def of(self, handle: int) -> list[E]:
        return list(self._lines.get(handle, ()))

    def clear(self) -> None:
        self._lines.clear()
        self.entries.clear()
        self._behind.clear()
