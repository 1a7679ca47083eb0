"""Requests that wait in several lines at once, one line for each sequence: a request may go when it is first in all."""

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

E = TypeVar("E")


class Lines(Generic[E]):
    """Lines by handle. Entries are compared by identity, and known in the order in which they came."""

    def __init__(self) -> None:
        self.entries: dict[E, Sequence[int]] = {}  # with the handles of each
        self._lines: dict[int, list[E]] = {}  # none is empty
        self._behind: dict[E, int] = {}  # in how many of its lines an entry is not the first

    def concern(self, handles: Iterable[int]) -> bool:
        return bool(self._lines) and not self._lines.keys().isdisjoint(handles)

    def is_first(self, entry: E) -> bool:
        return not self._behind[entry]

    def put(self, entry: E, handles: Sequence[int]) -> bool:
        """Adds an entry at the end of the lines of these; whether it is the first in all of them."""
        behind = 0
        for handle in handles:
            line = self._lines.get(handle)
            if line is None:
                self._lines[handle] = [entry]
            else:
                behind += 1
                line.append(entry)
        self.entries[entry] = handles
        self._behind[entry] = behind
        return not behind

    def remove(self, entry: E) -> Sequence[int]:
        """Takes an entry out; its handles."""
        handles = self.entries.pop(entry)
        del self._behind[entry]
        for handle in handles:
            line = self._lines[handle]
            was_first = line[0] is entry
            line.remove(entry)
            if not line:
                del self._lines[handle]
            elif was_first:
                self._behind[line[0]] -= 1
        return handles

    def first(self, handles: Iterable[int]) -> list[E]:
        """Those that are the first in all of their lines, and wait for one of these; each once."""
        heads = dict.fromkeys(line[0] for handle in handles if (line := self._lines.get(handle)))
        return [entry for entry in heads if not self._behind[entry]]

    def of(self, handle: int) -> list[E]:
        return list(self._lines.get(handle, ()))

    def clear(self) -> None:
        self._lines.clear()
        self.entries.clear()
        self._behind.clear()
