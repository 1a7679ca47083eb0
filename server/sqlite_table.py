"""What one transaction reads and changes in the tables; changes are collected, and written in few statements."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import count as counting
from itertools import islice

from server.fencing import Kept, Tombstone, as_of, buried, end_refused, gone, next_fence, outrun, write_refused
from server.slots import Slots
from server.store import Claim, Claimed, End, Evicted, Gone, Reason, Refused, Terms, Write

SEQUENCES = "SELECT key, id, digest, owner, model, fence, touched, slots FROM sequence"
AMONG = "WHERE id IN (SELECT value FROM json_each(?))"
PER_SEQUENCE = 256  # keys of checkpoints


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence in the file."""

    key: int
    id: str
    kept: Kept
    slots: Slots

    def place(self, slot: int) -> int:
        """The key of the checkpoint in a slot."""
        assert slot < PER_SEQUENCE, f"{slot} checkpoints of one sequence; what is to be spared may be few"
        return self.key * PER_SEQUENCE + slot


class SqliteTable:
    """For the length of one transaction, at the time `now`. Nothing is changed before `flush`."""

    def __init__(self, connection: sqlite3.Connection, now: float, terms: Terms) -> None:
        self._connection, self._now, self._terms = connection, now, terms
        self._seen: dict[str, Row | Tombstone | None] = {}
        self._keys: counting[int] | None = None
        # what is to be written
        self._born: dict[int, Row] = {}
        self._changed: dict[int, Row] = {}
        self._checkpoints: dict[int, bytes | None] = {}
        self._buried: list[tuple[Row, Tombstone]] = []
        self._sequences_of: defaultdict[str, int] = defaultdict(int)  # changes by owner
        self._bytes_of: defaultdict[str, int] = defaultdict(int)

    def look_up(self, ids: Iterable[str]) -> None:
        """Reads many sequences in one statement, those that are there."""
        found = self._connection.execute(f"{SEQUENCES} {AMONG}", (json.dumps(list(ids)),))
        rows = (_row(*columns) for columns in found)
        self._seen |= {row.id: row for row in rows}

    def write(self, write: Write) -> Refused | None:
        """See `Store.write`."""
        row = self._look(write.id)
        if refused := write_refused(write, row.kept if isinstance(row, Row) else row):
            return refused
        if not isinstance(row, Row):
            row = self._bear(write)
        slots, number, freed = row.slots.placed(write.step, len(write.data), self._terms.keep, write.spare)
        self._checkpoints |= dict.fromkeys(map(row.place, freed))
        self._checkpoints[row.place(number)] = write.data
        self._bytes_of[row.kept.owner] += slots.bytes - row.slots.bytes
        self._change(row, write.fence, slots)
        return None

    def claim(self, claims: Sequence[Claim]) -> list[Claimed | Gone]:
        """See `Store.claim`."""
        refused = [self._unclaimable(claim) for claim in claims]
        if any(refused):
            return [why or self.read(claim) for claim, why in zip(claims, refused, strict=True)]
        return [self._take(claim) for claim in claims]

    def _unclaimable(self, claim: Claim) -> Gone | None:
        row = self._look(claim.id)
        entry = row.kept if isinstance(row, Row) else row
        return gone(entry, claim.digest) or outrun(entry, self._now)

    def _take(self, claim: Claim) -> Claimed | Gone:
        row = self._look(claim.id)
        assert isinstance(row, Row), "else it is gone"
        self._change(row, next_fence(row.kept.fence, self._now), row.slots)
        return self.read(claim)

    def read(self, claim: Claim) -> Claimed | Gone:
        """See `Store.read`."""
        row = self._look(claim.id)
        if refused := gone(row.kept if isinstance(row, Row) else row, claim.digest):
            return refused
        assert isinstance(row, Row), "else it is gone"
        query = "SELECT key, data FROM checkpoint WHERE key BETWEEN ? AND ?"
        data = dict(self._connection.execute(query, (row.place(0), row.place(PER_SEQUENCE - 1))))
        places = [row.place(number) for number in row.slots.newest_first]
        newest_first = tuple(data[place] for place in places if place in data)  # none is missing but after a rescue
        return Claimed(row.kept.fence, row.kept.owner, row.kept.model, newest_first)

    def end(self, end: End) -> Refused | None:
        """See `Store.end`."""
        row = self._look(end.id)
        if refused := end_refused(end, row.kept if isinstance(row, Row) else row):
            return refused
        if isinstance(row, Row):
            self.bury(row, end.reason, end.fence)
        return None

    def evict(self, row: Row) -> Evicted:
        """Ends a sequence for room; one that is past its retention, as expired."""
        reason = Reason.EXPIRED if isinstance(as_of(row.kept, self._now, self._terms), Tombstone) else Reason.EVICTED
        self.bury(row, reason)
        return Evicted(row.id, row.kept.owner, row.slots.bytes, reason)

    def bury(self, row: Row, reason: Reason, fence: int = 0) -> None:
        """Leaves of a sequence what is remembered of it."""
        tombstone = buried(row.kept, reason, max(fence, row.kept.fence), self._now, self._terms)
        self._seen[row.id] = tombstone
        self._buried.append((row, tombstone))
        self._sequences_of[row.kept.owner] -= 1
        self._bytes_of[row.kept.owner] -= row.slots.bytes

    def forget(self, limit: int) -> None:
        """Removes tombstones that have stood long enough, at once."""
        self._connection.execute(
            "DELETE FROM tombstone WHERE id IN (SELECT id FROM tombstone WHERE until <= ? ORDER BY until LIMIT ?)",
            (self._now, limit),
        )

    def expired(self, limit: int) -> list[Row]:
        """Sequences that are past their retention, the longest untouched first."""
        query = f"{SEQUENCES} WHERE touched <= ? ORDER BY touched LIMIT ?"
        return [_row(*found) for found in self._connection.execute(query, (self._now - self._terms.retention, limit))]

    def oldest(self, count: int, owner: str | None, spare: Collection[str]) -> list[Row]:
        """The longest untouched sequences, of an owner or of all, without those to spare."""
        where, given = ("", ()) if owner is None else ("WHERE owner = ?", (owner,))
        found = self._connection.execute(f"{SEQUENCES} {where} ORDER BY touched", given)
        return [_row(*columns) for columns in islice((f for f in found if f[1] not in spare), count)]

    def flush(self) -> None:
        """Writes all changes."""
        many = self._connection.executemany
        graves = [(row.id, t.digest, t.fence, t.reason, t.model, t.step, t.until) for row, t in self._buried]
        many("DELETE FROM checkpoint WHERE key BETWEEN ? AND ?", [_range(row) for row, _ in self._buried])
        many("DELETE FROM sequence WHERE key = ?", [(row.key,) for row, _ in self._buried])
        many("INSERT OR REPLACE INTO tombstone VALUES (?, ?, ?, ?, ?, ?, ?)", graves)
        many("DELETE FROM tombstone WHERE id = ?", [(row.id,) for row in self._born.values()])
        many("INSERT INTO sequence VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [_columns(row) for row in self._born.values()])
        many(
            "UPDATE sequence SET fence = ?, touched = ?, slots = ? WHERE key = ?",
            [(r.kept.fence, r.kept.touched, r.slots.packed, r.key) for r in self._changed.values()],
        )
        checkpoints = self._checkpoints.items()
        many("DELETE FROM checkpoint WHERE key = ?", [(key,) for key, data in checkpoints if data is None])
        many(
            "INSERT INTO checkpoint VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET data = excluded.data",
            [(key, data) for key, data in checkpoints if data is not None],
        )
        self._count()

    def _count(self) -> None:
        counts = [(owner, self._sequences_of[owner], change) for owner, change in self._bytes_of.items()]
        self._connection.executemany(
            "INSERT INTO usage VALUES (?, ?, ?) ON CONFLICT (owner) DO UPDATE "
            "SET sequences = sequences + excluded.sequences, bytes = bytes + excluded.bytes",
            counts,
        )
        self._connection.executemany(
            "DELETE FROM usage WHERE owner = ? AND sequences = 0", [(owner,) for owner, gone, _ in counts if gone < 0]
        )
        self._connection.execute(
            "UPDATE total SET sequences = sequences + ?, bytes = bytes + ?",
            (sum(self._sequences_of.values()), sum(self._bytes_of.values())),
        )

    def _look(self, id_: str) -> Row | Tombstone | None:
        """A sequence as of now."""
        if id_ not in self._seen:
            self._seen[id_] = self._find(id_)
        row = self._seen[id_]
        entry = as_of(row.kept if isinstance(row, Row) else row, self._now, self._terms)
        return row if isinstance(entry, Kept) else entry

    def _find(self, id_: str) -> Row | Tombstone | None:
        if found := self._connection.execute(f"{SEQUENCES} WHERE id = ?", (id_,)).fetchone():
            return _row(*found)
        query = "SELECT digest, fence, reason, model, step, until FROM tombstone WHERE id = ?"
        if found := self._connection.execute(query, (id_,)).fetchone():
            digest, fence, reason, model, step, until = found
            return Tombstone(digest, fence, Reason(reason), model, step, until)
        return None

    def _bear(self, write: Write) -> Row:
        assert write.birth is not None, "else it is refused"
        if self._keys is None:
            self._keys = counting(
                self._connection.execute("SELECT ifnull(max(key), 0) + 1 FROM sequence").fetchone()[0]
            )
        kept = Kept(write.birth.digest, write.birth.owner, write.birth.model, write.fence, self._now, None)
        row = Row(next(self._keys), write.id, kept, Slots())
        self._born[row.key] = row
        self._sequences_of[kept.owner] += 1
        return row

    def _change(self, row: Row, fence: int, slots: Slots) -> None:
        kept = Kept(row.kept.digest, row.kept.owner, row.kept.model, fence, self._now, slots.newest)
        row = self._seen[row.id] = Row(row.key, row.id, kept, slots)
        (self._born if row.key in self._born else self._changed)[row.key] = row


def _row(key: int, id_: str, digest: bytes, owner: str, model: str, fence: int, touched: float, data: bytes) -> Row:
    slots = Slots.unpacked(data)
    return Row(key, id_, Kept(digest, owner, model, fence, touched, slots.newest), slots)


def _columns(row: Row) -> tuple[int, str, bytes, str, str, int, float, bytes]:
    kept = row.kept
    return (row.key, row.id, kept.digest, kept.owner, kept.model, kept.fence, kept.touched, row.slots.packed)


def _range(row: Row) -> tuple[int, int]:
    return row.place(0), row.place(PER_SEQUENCE - 1)
