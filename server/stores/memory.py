"""A store in memory, for tests and for those who want none: what it keeps ends with the process.

One may be shared by several servers of a process, each with a thread of its own.
"""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from math import inf
from threading import Lock
from typing import Any

from server.caller import account_of
from server.stores.fencing import Entry, Kept, Tombstone
from server.stores.store import Usage
from server.stores.table import Changes, Tally
from server.stores.table_store import TableStore
from server.stores.terms import Terms

OF_ONE = 512  # bytes that a sequence takes beside its checkpoints, and a tombstone, about
AWAKE, PARKED, GONE = "awake", "parked", "gone"

_List = tuple[str, str | None]  # one of these, and of which owner; None: of all


class MemoryTable:
    """See `Table` and `Tables`."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._time: float | None = None
        self._entries: dict[str, Kept | Tombstone] = {}
        self._checkpoints: defaultdict[str, dict[int, bytes]] = defaultdict(dict)
        self._lists: dict[_List, OrderedDict[str, None]] = {}  # ids, the longest untouched first; none is empty
        self._tallies = defaultdict[str | None, Tally](Tally)  # by owner, and of all under None

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
        return self._first((PARKED, owner), limit, until)

    def awake(self, limit: int, until: float) -> Mapping[str, Kept]:
        return self._first((AWAKE, None), limit, until)

    def tombstones(self, limit: int, until: float = inf, owner: str | None = None) -> Mapping[str, Tombstone]:
        return self._first((GONE, owner), limit, until)

    def _first(self, those: _List, limit: int, until: float) -> dict[str, Any]:
        first = {id_: self._entries[id_] for id_ in islice(self._lists.get(those, ()), limit)}
        return {id_: entry for id_, entry in first.items() if _since(entry) <= until}

    def largest(self, limit: int, address: str | None = None) -> Sequence[tuple[str, int]]:
        counts = Counter[str]()
        for (state, owner), ids in self._lists.items():
            if state == PARKED and owner is not None and address in (None, account_of(owner)):
                counts[account_of(owner) if address is None else owner] += len(ids)
        return counts.most_common(limit)

    def usage(self, owner: str | None = None) -> Usage:
        tally = self._tallies.get(owner, Tally())
        taken = tally["bytes"] + OF_ONE * (tally["sequences"] + tally["tombstones"])
        return Usage(tally["sequences"], tally["bytes"], tally["parked"], tally["tombstones"], taken)

    def save(self, changes: Changes, time: float) -> None:
        self._time = time
        for id_, (before, after) in changes.entries.items():
            self._put(id_, before, after, time)
        for (id_, number), data in changes.checkpoints.items():
            if data is None:
                self._checkpoints[id_].pop(number, None)
            else:
                self._checkpoints[id_][number] = data
        for owner, change in changes.tally.items():
            for key in (None, owner):
                self._tallies[key].update(change)
                if not any(self._tallies[key].values()):
                    del self._tallies[key]

    def _put(self, id_: str, before: Entry, after: Entry, time: float) -> None:
        for those in _lists_of(before):
            del self._lists[those][id_]
            if not self._lists[those]:
                del self._lists[those]
        if after is None:
            self._entries.pop(id_, None)
        else:
            self._entries[id_] = after
        for those in _lists_of(after):
            ids = self._lists.setdefault(those, OrderedDict())
            ids[id_] = None
            if isinstance(after, Kept) and after.touched < time:
                self._lists[those] = OrderedDict.fromkeys(sorted(ids, key=lambda one: _since(self._entries[one])))
        if not isinstance(after, Kept):
            self._checkpoints.pop(id_, None)


def _lists_of(entry: Entry) -> Sequence[_List]:
    match entry:
        case None:
            return ()
        case Kept() if entry.awake:
            return ((AWAKE, None),)
        case Kept():
            return (PARKED, None), (PARKED, entry.owner)
    return (GONE, None), (GONE, entry.owner)


def _since(entry: Kept | Tombstone) -> float:
    return entry.touched if isinstance(entry, Kept) else entry.until


class MemoryStore(TableStore):
    """See `Store`."""

    tables: MemoryTable

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms, MemoryTable())
