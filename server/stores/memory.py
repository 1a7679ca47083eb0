"""A store in memory, for tests and for those who want none: what it keeps ends with the process.

One may be shared by several servers of a process, each with a thread of its own.
"""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from math import inf
from threading import Lock

from server.caller import account_of
from server.stores.fencing import Entry, Kept, Tombstone
from server.stores.store import Usage
from server.stores.table import Changes, Tally
from server.stores.table_store import TableStore
from server.stores.terms import Terms

OF_ONE = 512  # bytes that a sequence takes beside its checkpoints, and a tombstone, about

_Ids = OrderedDict[str, None]  # the longest untouched first


class MemoryTable:
    """See `Table` and `Tables`."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._time: float | None = None
        self._entries: dict[str, Kept | Tombstone] = {}
        self._checkpoints: defaultdict[str, dict[int, bytes]] = defaultdict(dict)
        self._awake, self._parked, self._tombstones = _Ids(), _Ids(), _Ids()
        self._parked_of: defaultdict[str, _Ids] = defaultdict(_Ids)
        self._tombstones_of: defaultdict[str, _Ids] = defaultdict(_Ids)
        self._total, self._tally = Tally(), defaultdict[str, Tally](Tally)

    @contextmanager
    def writing(self) -> Iterator["MemoryTable"]:
        with self._lock:
            yield self

    reading = writing

    def shrink(self) -> bool:
        return False

    def losses(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing to let go of."""

    def time(self) -> float | None:
        return self._time

    def entries(self, ids: Collection[str]) -> Mapping[str, Kept | Tombstone]:
        return {id_: self._entries[id_] for id_ in ids if id_ in self._entries}

    def checkpoints(self, id_: str) -> Mapping[int, bytes]:
        return self._checkpoints[id_]

    def page(self, cursor: object | None, limit: int) -> tuple[Mapping[str, Kept | Tombstone], object | None]:
        ids = iter(tuple(self._entries)) if cursor is None else cursor
        assert isinstance(ids, Iterator), "it is that of the page before"
        some = tuple(islice(ids, limit))
        return self.entries(some), ids if len(some) == limit else None

    def parked(self, limit: int, until: float = inf, owner: str | None = None) -> Mapping[str, Kept]:
        ids = self._parked if owner is None else self._parked_of.get(owner, _Ids())
        first = ((id_, self._entries[id_]) for id_ in islice(ids, limit))
        return {id_: kept for id_, kept in first if isinstance(kept, Kept) and kept.touched <= until}

    def awake(self, limit: int, until: float) -> Mapping[str, Kept]:
        first = ((id_, self._entries[id_]) for id_ in islice(self._awake, limit))
        return {id_: kept for id_, kept in first if isinstance(kept, Kept) and kept.touched <= until}

    def tombstones(self, limit: int, until: float = inf, owner: str | None = None) -> Mapping[str, Tombstone]:
        ids = self._tombstones if owner is None else self._tombstones_of.get(owner, _Ids())
        first = ((id_, self._entries[id_]) for id_ in islice(ids, limit))
        return {id_: stone for id_, stone in first if isinstance(stone, Tombstone) and stone.until <= until}

    def largest(self, limit: int, address: str | None = None) -> Sequence[tuple[str, int]]:
        counts = Counter[str]()
        for owner, ids in self._parked_of.items():
            if address is None or address == account_of(owner):
                counts[account_of(owner) if address is None else owner] += len(ids)
        return counts.most_common(limit)

    def usage(self, owner: str | None = None) -> Usage:
        tally = self._total if owner is None else self._tally.get(owner, Tally())
        taken = tally["bytes"] + OF_ONE * (tally["sequences"] + tally["tombstones"])
        return Usage(tally["sequences"], tally["bytes"], tally["parked"], tally["tombstones"], taken)

    def save(self, changes: Changes, time: float) -> None:
        self._time = time
        for id_, (before, after) in changes.entries.items():
            self._put(id_, before, after)
            if isinstance(after, Kept) and after.touched < time:
                self._sort(self._lists(after))
        for (id_, number), data in changes.checkpoints.items():
            if data is None:
                self._checkpoints[id_].pop(number, None)
            else:
                self._checkpoints[id_][number] = data
        for owner, change in changes.tally.items():
            self._count(owner, change)

    def _put(self, id_: str, before: Entry, after: Entry) -> None:
        for ids in self._lists(before):
            ids.pop(id_, None)
        for ids in self._lists(after):
            ids[id_] = None
        if after is None:
            self._entries.pop(id_, None)
        else:
            self._entries[id_] = after
        if not isinstance(after, Kept):
            self._checkpoints.pop(id_, None)
        if before is not None:
            for of in (self._parked_of, self._tombstones_of):
                if before.owner in of and not of[before.owner]:
                    del of[before.owner]

    def _sort(self, those: Sequence[_Ids]) -> None:
        """After a sequence was put that was touched earlier."""
        for ids in those:
            for id_ in sorted(ids, key=lambda one: self._entries[one].touched):  # type: ignore[union-attr] # parked
                ids.move_to_end(id_)

    def _lists(self, entry: Entry) -> Sequence[_Ids]:
        match entry:
            case None:
                return ()
            case Tombstone():
                return self._tombstones, self._tombstones_of[entry.owner]
            case Kept() if entry.awake:
                return (self._awake,)
        return self._parked, self._parked_of[entry.owner]

    def _count(self, owner: str, change: Tally) -> None:
        for tally in (self._total, self._tally[owner]):
            tally.update(change)
        if not any(self._tally[owner].values()):
            del self._tally[owner]


class MemoryStore(TableStore):
    """See `Store`."""

    tables: MemoryTable

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms, MemoryTable())
