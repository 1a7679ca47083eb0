"""What a store reads and writes to take its decisions: all that a new one needs to bring. Knows no decision."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from server.stores.fencing import Entry, Kept, Tombstone
from server.stores.store import Usage

Tally = Counter[str]  # what an owner has, or by how much that changes, by what is counted
COUNTED = ("sequences", "bytes", "parked", "tombstones")


@dataclass(slots=True)
class Changes:
    """What a transaction changes.

    `entries`: by id, before and after. `checkpoints`: by id and by number in the sequence's index; None deletes. All
    checkpoints of a sequence go without being named here when its entry is `Kept` no more. `tally`: by owner.
    """

    entries: dict[str, tuple[Entry, Entry]] = field(default_factory=dict)
    checkpoints: dict[tuple[str, int], bytes | None] = field(default_factory=dict)
    tally: dict[str, Tally] = field(default_factory=dict)


class Table(Protocol):
    """The data as one transaction sees it. Lists are in the order of `touched` or `until`, the oldest first."""

    def time(self) -> float | None:
        """The store's time as it was saved last; for data from before there was one, when it was touched last."""

    def entries(self, ids: Collection[str]) -> Mapping[str, Kept | Tombstone]:
        """Those that are there."""

    def checkpoints(self, id_: str) -> Mapping[int, bytes]:
        """What is kept of a sequence, by number in its index."""

    def page(self, cursor: object | None, limit: int) -> tuple[Mapping[str, Kept | Tombstone], object | None]:
        """About `limit` entries, in an order that changes do not touch, and where to go on; None: that was all."""

    def parked(self, limit: int, until: float = inf, owner: str | None = None) -> Mapping[str, Kept]:
        """Up to `limit` parked sequences, touched at or before `until`, of an owner."""

    def awake(self, limit: int, until: float) -> Mapping[str, Kept]:
        """Likewise of those that are awake."""

    def tombstones(self, limit: int, until: float = inf, owner: str | None = None) -> Mapping[str, Tombstone]:
        """Up to `limit` of those that stand until then or less long, of an owner."""

    def largest(self, limit: int, address: str | None = None) -> Sequence[tuple[str, int]]:
        """The owners of an address with the most parked sequences, or the addresses; and how many, the most first."""

    def usage(self, owner: str | None = None) -> Usage:
        """Counters, of everything or of an owner."""

    def save(self, changes: Changes, time: float) -> None:
        """Carries out all changes, and keeps the time; called once, at the end."""


class Tables(Protocol):
    """Where the data is."""

    def reading(self) -> AbstractContextManager[Table]:
        """One moment's view; nothing is saved."""

    def writing(self) -> AbstractContextManager[Table]:
        """A transaction during which no other client writes: committed when it is left, rolled back on an error."""

    def shrink(self) -> bool:
        """See `Store.shrink`."""

    def losses(self) -> int:
        """See `Store.losses`."""

    def close(self) -> None:
        """Lets go of files and connections."""
