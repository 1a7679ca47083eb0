"""What one transaction reads and changes in the file: see `Table`. Knows no decision."""

import json
import logging
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from itertools import count as counting
from math import inf
from typing import Any

from server.stores.checkpoint_index import CheckpointIndex
from server.stores.fencing import Kept, Tombstone
from server.stores.store import Reason, Usage
from server.stores.table import COUNTED, Changes

log = logging.getLogger(__name__)

SEQUENCES = "SELECT key, id, digest, owner, model, fence, touched, slots, awake FROM sequence"
TOMBSTONES = "SELECT id, digest, fence, reason, model, step, until, owner FROM tombstone"
AMONG = "WHERE id IN (SELECT value FROM json_each(?))"
PER_SEQUENCE = 256  # keys of checkpoints
KINDS = bytes, str, str, int, float, bytes, int  # of a sequence's columns, from its digest on


class SqliteTable:
    """For the length of one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._keys: dict[str, int] = {}  # of the sequences that were read
        self._damaged: dict[int, str] = {}

    def time(self) -> float | None:
        return self._one("SELECT time FROM total")[0]  # type: ignore[no-any-return] # a column is of any type

    def entries(self, ids: Collection[str]) -> Mapping[str, Kept | Tombstone]:
        found: dict[str, Kept | Tombstone] = {}
        plain = [id_ for id_ in ids if "\0" not in id_]  # SQLite's JSON ends at a zero
        for where, given in ((AMONG, json.dumps(plain)), *(("WHERE id = ?", id_) for id_ in ids if "\0" in id_)):
            found |= self._sequences(where, given)
            if len(found) < len(ids):
                found |= self._tombstones(where, given)
        return found

    def checkpoints(self, id_: str) -> Mapping[int, bytes]:
        first, last = _range(self._keys[id_])
        found = self.connection.execute("SELECT key, data FROM checkpoint WHERE key BETWEEN ? AND ?", (first, last))
        return {key - first: data for key, data in found}

    def page(self, cursor: object | None, limit: int) -> tuple[Mapping[str, Kept | Tombstone], object | None]:
        """Sequences by their keys, then tombstones by their ids: the cursor is the last one's."""
        if not isinstance(cursor, str):
            found = self._sequences("WHERE key > ? ORDER BY key LIMIT ?", cursor or 0, limit)
            last = max((*self._keys.values(), *self._damaged), default=None)
            return found, "" if last is None else last
        stones = self._tombstones("WHERE id > ? ORDER BY id LIMIT ?", cursor, limit)
        return stones, max(stones, default=None)

    def parked(self, limit: int, until: float = inf, owner: str | None = None) -> Mapping[str, Kept]:
        of, who = ("", ()) if owner is None else ("owner = ? AND", (owner,))
        return self._sequences(
            f"WHERE {of} awake = 0 AND touched <= ? ORDER BY touched, id LIMIT ?", *who, until, limit
        )

    def awake(self, limit: int, until: float) -> Mapping[str, Kept]:
        return self._sequences("WHERE awake = 1 AND touched <= ? ORDER BY touched, id LIMIT ?", until, limit)

    def tombstones(self, limit: int, until: float = inf, owner: str | None = None) -> Mapping[str, Tombstone]:
        of, who = ("", ()) if owner is None else ("owner = ? AND", (owner,))
        return self._tombstones(f"WHERE {of} until <= ? ORDER BY until LIMIT ?", *who, until, limit)

    def largest(self, limit: int, address: str | None = None) -> Sequence[tuple[str, int]]:
        source, given = "(SELECT address, parked FROM address)", list[str]()
        if address is not None:
            source = "(SELECT owner, parked FROM usage WHERE owner = ? OR owner > ? AND owner < ?)"
            given = [address, f"{address} ", f"{address}!"]  # "!" is next to the space
        query = f"SELECT * FROM {source} WHERE parked > 0 ORDER BY parked DESC LIMIT ?"  # noqa: S608 - ours
        return self.connection.execute(query, (*given, limit)).fetchall()

    def usage(self, owner: str | None = None) -> Usage:
        """See `Table.usage`. What is taken are the pages of the file that are not free."""
        columns = "SELECT sequences, bytes, parked, tombstones FROM"
        if owner is not None:
            return Usage(*(self._one(f"{columns} usage WHERE owner = ?", owner) or (0, 0)))
        pages, free, size = (self._one(f"PRAGMA {name}")[0] for name in ("page_count", "freelist_count", "page_size"))
        sequences, data, parked, tombstones = self._one(f"{columns} total")
        return Usage(sequences, data, parked, tombstones, (pages - free) * size)

    # Changing ---------------------------------------------------------------------------------------------------------

    def save(self, changes: Changes, time: float) -> None:
        self.set_aside()
        many = self.connection.executemany
        left = [id_ for id_, (before, after) in changes.entries.items() if _leaves(before, after)]
        many("DELETE FROM checkpoint WHERE key BETWEEN ? AND ?", [_range(self._keys[id_]) for id_ in left])
        many("DELETE FROM sequence WHERE id = ?", [(id_,) for id_ in left])
        fallen = [(id_,) for id_, (before, _) in changes.entries.items() if isinstance(before, Tombstone)]
        many("DELETE FROM tombstone WHERE id = ?", fallen)
        self._put(changes)
        self._put_checkpoints(changes)
        sums = ", ".join(f"{what} = {what} + excluded.{what}" for what in COUNTED)
        rows = [(owner, *(tally[what] for what in COUNTED)) for owner, tally in changes.tally.items()]
        many(f"INSERT INTO usage VALUES (?, ?, ?, ?, ?) ON CONFLICT (owner) DO UPDATE SET {sums}", rows)  # noqa: S608 - ours
        of = [(owner,) for owner, tally in changes.tally.items() if min(tally.values(), default=0) < 0]
        many("DELETE FROM usage WHERE owner = ? AND sequences = 0 AND tombstones = 0", of)
        sums = ", ".join(f"{what} = {what} + ?" for what in COUNTED)
        total = (sum((tally[what] for tally in changes.tally.values()), 0) for what in COUNTED)
        self.connection.execute(f"UPDATE total SET {sums}, time = ?", (*total, time))  # noqa: S608 - ours

    def _put(self, changes: Changes) -> None:
        new, changed, stones = [], [], []
        for id_, (_, entry) in changes.entries.items():
            if isinstance(entry, Tombstone):
                t = entry
                stones.append((id_, t.digest, t.fence, t.reason, t.model, t.step, t.until, t.owner))
            elif entry is not None:
                states = entry.fence, entry.touched, entry.checkpoints.packed, entry.awake
                if id_ in self._keys:
                    changed.append((*states, self._keys[id_]))
                else:
                    new.append((id_, entry.digest, entry.owner, entry.model, *states))
        many = self.connection.executemany
        many("INSERT INTO tombstone VALUES (?, ?, ?, ?, ?, ?, ?, ?)", stones)
        many("UPDATE sequence SET fence = ?, touched = ?, slots = ?, awake = ? WHERE key = ?", changed)
        if new:
            query = "SELECT max(key) FROM (SELECT max(key) AS key FROM sequence UNION ALL SELECT max(key) FROM damaged)"
            keys = counting((self._one(query)[0] or 0) + 1)
            rows = [(next(keys), *row) for row in new]
            many("INSERT INTO sequence VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._keys |= {row[1]: row[0] for row in rows}

    def _put_checkpoints(self, changes: Changes) -> None:
        keyed = [(self._keys[id_] * PER_SEQUENCE + number, data) for (id_, number), data in changes.checkpoints.items()]
        many = self.connection.executemany
        many("DELETE FROM checkpoint WHERE key = ?", [(key,) for key, data in keyed if data is None])
        many(
            "INSERT INTO checkpoint VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET data = excluded.data",
            [(key, data) for key, data in keyed if data is not None],
        )

    def set_aside(self) -> None:
        """Moves damaged rows out of the table of sequences, so that sweeps go on for the others; logs it once."""
        for key, why in self._damaged.items():
            log.error("a sequence in the store is damaged, and is set aside in its table `damaged`: %s", why)
            self.connection.execute("INSERT INTO damaged SELECT * FROM sequence WHERE key = ?", (key,))
            self.connection.execute("DELETE FROM sequence WHERE key = ?", (key,))
        if self._damaged:
            self._count_anew()
            self._damaged.clear()

    def _count_anew(self) -> None:
        """What a damaged row counted for cannot be told."""
        sums = "count(*), ifnull(sum(bytes), 0), ifnull(sum(awake = 0), 0)"
        self.connection.create_function("bytes_in", 1, _bytes_in, deterministic=True)
        rows = "(SELECT owner, awake, bytes_in(slots) AS bytes FROM sequence)"
        self.connection.execute("DELETE FROM usage")
        self.connection.execute(f"INSERT INTO usage SELECT owner, {sums}, 0 FROM {rows} GROUP BY owner")  # noqa: S608 - ours
        self.connection.execute(
            "INSERT INTO usage SELECT owner, 0, 0, 0, count(*) FROM tombstone WHERE 1 GROUP BY owner "
            "ON CONFLICT (owner) DO UPDATE SET tombstones = excluded.tombstones"
        )
        query = f"UPDATE total SET (sequences, bytes, parked) = (SELECT {sums} FROM {rows})"  # noqa: S608 - ours
        self.connection.execute(query)

    # Rows -------------------------------------------------------------------------------------------------------------

    def _one(self, query: str, *given: object) -> Any:  # noqa: ANN401 - a row
        return self.connection.execute(query, given).fetchone()

    def _sequences(self, where: str, *given: object) -> dict[str, Kept]:
        found = {}
        for key, id_, *columns in self.connection.execute(f"{SEQUENCES} {where}", given):
            try:
                found[id_] = _kept(*columns)
                self._keys[id_] = key
            except (TypeError, ValueError) as error:
                self._damaged[key] = f"{id_!r}: {error}"
        return found

    def _tombstones(self, where: str, *given: object) -> dict[str, Tombstone]:
        found = self.connection.execute(f"{TOMBSTONES} {where}", given)
        return {id_: _tombstone(*columns) for id_, *columns in found}


def _kept(digest: Any, owner: Any, model: Any, fence: Any, touched: Any, slots: Any, awake: Any) -> Kept:  # noqa: ANN401 - what a damaged file holds
    columns = digest, owner, model, fence, touched, slots, awake
    if tuple(map(type, columns)) != KINDS:
        raise TypeError(f"expected {', '.join(kind.__name__ for kind in KINDS)}, found {columns!r:.200}")
    return Kept(digest, owner, model, fence, touched, bool(awake), CheckpointIndex.unpacked(slots))


def _tombstone(
    digest: bytes, fence: int, reason: str, model: str, step: int | None, until: float, owner: str
) -> Tombstone:
    return Tombstone(digest, fence, Reason(reason), owner, model, step, until)


def _leaves(before: object, after: object) -> bool:
    return isinstance(before, Kept) and not isinstance(after, Kept)


def _range(key: int) -> tuple[int, int]:
    return key * PER_SEQUENCE, (key + 1) * PER_SEQUENCE - 1


def _bytes_in(slots: object) -> int:
    try:
        return CheckpointIndex.unpacked(slots).bytes if isinstance(slots, bytes) else 0
    except ValueError:
        return 0
