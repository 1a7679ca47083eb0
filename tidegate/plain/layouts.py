"""The layouts of messages that are read without protobuf: those few that come most.

To take one in costs as much as to read hundreds of messages, so that nobody who sends ever new ones has it done often.
"""

from collections import Counter
from typing import Generic, Protocol, TypeVar

MOST = 16
OFTEN = 256  # messages, which one that takes the place of another has come in
_LONGEST = 256  # bytes that one begins with
_COUNTED = 256  # that have come, and are not taken in


class Layout(Protocol):
    """What many messages have in common."""

    uses: int  # messages that it was met in lately


L = TypeVar("L", bound=Layout)


class Layouts(Generic[L]):
    """By the bytes that each begins with. `all` are those that are known."""

    def __init__(self) -> None:
        self._known: dict[bytes, L] = {}
        self.all: list[L] = []
        self._came = Counter[bytes]()  # how often others did

    def wants(self, head: bytes) -> bool:
        """Whether to `put` the layout of a message that has come and is not known: there is room, or it comes often."""
        if head in self._known or len(head) > _LONGEST:
            return False
        if len(self._known) < MOST:
            return True
        if len(self._came) >= _COUNTED and head not in self._came:  # all lose one, so that what comes often stays
            self._came = Counter({other: count - 1 for other, count in self._came.items() if count > 1})
        self._came[head] += 1
        return self._came[head] >= OFTEN and self._has_unused()

    def _has_unused(self) -> bool:
        """Whether one was hardly used since this was asked last; it goes."""
        least = min(self._known, key=lambda head: self._known[head].uses)
        if unused := self._known[least].uses < OFTEN:
            del self._known[least]
        for layout in self._known.values():
            layout.uses = 0
        self._came.clear()
        return unused

    def put(self, head: bytes, layout: L) -> None:
        self._known[head] = layout
        self.all = list(self._known.values())
