"""What one transaction reads and changes in the tables; changes are collected, and written in few statements."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count as counting

from server.stores import fencing
from server.stores.fencing import Entry, Kept, Tombstone
from server.stores.sqlite.places import Slots
from server.stores.store import Claim, Claimed, End, Evicted, Gone, Hold, Reason, Refused, Terms, Write

SEQUENCES = "SELECT key, id, digest, owner, model, fence, touched, slots, awake FROM sequence"
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
        self._parked_of: defaultdict[str, int] = defaultdict(int)

    def look_up(self, ids: Iterable[str]) -> None:
        """Reads many sequences in one statement, those that are there."""
        found = self._connection.execute(f"{SEQUENCES} {AMONG}", (json.dumps(list(ids)),))
        rows = (_row(*columns) for columns in found)
        self._seen |= {row.id: row for row in rows}

    def write(self, write: Write) -> Refused | None:
        """See `Store.write`."""
        row = self._look(write.id)
        if refused := fencing.write_refused(write, self._of_owner(row)):
            return refused
        if not isinstance(row, Row):
            row = self._bear(write)
        slots, number, freed = row.slots.placed(write.step, len(write.data), self._terms.keep, write.spare)
        self._checkpoints |= dict.fromkeys(map(row.place, freed))
        self._checkpoints[row.place(number)] = write.data
        self._bytes_of[row.kept.owner] += slots.bytes - row.slots.bytes
        self._change(row, write.fence, awake=write.awake, slots=slots)
        return None

    def claim(self, claims: Sequence[Claim], asked: float) -> list[Claimed | Gone]:
        """See `Store.claim`."""
        refused = [self._unclaimable(claim, asked) for claim in claims]
        if any(refused):
            return [why or self.read(claim) for claim, why in zip(claims, refused, strict=True)]
        return [self._take(claim) for claim in claims]

    def _unclaimable(self, claim: Claim, asked: float) -> Gone | None:
        entry = self._of_all(self._look(claim.id))
        return fencing.gone(entry, claim.digest) or fencing.outrun(entry, asked, self._now)

    def _take(self, claim: Claim) -> Claimed | Gone:
        row = self._look(claim.id)
        assert isinstance(row, Row), "else it is gone"
        self._change(row, fencing.next_fence(row.kept.fence, self._now), awake=True)
        return self.read(claim)

    def read(self, claim: Claim) -> Claimed | Gone:
        """See `Store.read`."""
        row = self._look(claim.id)
        if refused := fencing.gone(self._of_all(row), claim.digest):
            return refused
        assert isinstance(row, Row), "else it is gone"
        query = "SELECT key, data FROM checkpoint WHERE key BETWEEN ? AND ?"
        data = dict(self._connection.execute(query, (row.place(0), row.place(PER_SEQUENCE - 1))))
        places = [row.place(number) for number in row.slots.newest_first]
        newest_first = tuple(data[place] for place in places if place in data)  # none is missing but after a rescue
        return Claimed(row.kept.fence, row.kept.owner, row.kept.model, newest_first)

    def hold(self, hold: Hold) -> Refused | None:
        """See `Store.hold`."""
        row = self._look(hold.id)
        if refused := fencing.hold_refused(hold, self._of_owner(row)):
            return refused
        assert isinstance(row, Row), "else it is refused"
        if hold.awake or row.kept.awake:
            self._change(row, hold.fence, awake=hold.awake)
        return None

    def park(self, row: Row) -> None:
        """Its owner has been silent for too long."""
        self._change(row, row.kept.fence, awake=False)

    def end(self, end: End) -> Refused | None:
        """See `Store.end`."""
        row = self._look(end.id)
        if refused := fencing.end_refused(end, self._of_owner(row)):
            return refused
        if isinstance(row, Row):
            self.bury(row, end.reason, end.fence)
        return None

    def evict(self, row: Row) -> Evicted:
        """Ends a sequence for room; one that is past its retention, as expired."""
        reason = Reason.EXPIRED if isinstance(self._of_all(row), Tombstone) else Reason.EVICTED
        self.bury(row, reason)
        return Evicted(row.id, row.kept.owner, row.slots.bytes, reason)

    def bury(self, row: Row, reason: Reason, fence: int = 0) -> None:
        """Leaves of a sequence what is remembered of it."""
        tombstone = fencing.buried(row.kept, reason, max(fence, row.kept.fence), self._now, self._terms)
        self._seen[row.id] = tombstone
        self._buried.append((row, tombstone))
        self._sequences_of[row.kept.owner] -= 1
        self._bytes_of[row.kept.owner] -= row.slots.bytes
        self._parked_of[row.kept.owner] -= not row.kept.awake

    def forget(self, limit: int) -> bool:
        """Removes tombstones that have stood long enough, at once. Whether more have."""
        query = "SELECT id FROM tombstone WHERE until <= ? ORDER BY until LIMIT ?"
        due = self._connection.execute(query, (self._now, limit + 1)).fetchall()
        self._connection.executemany("DELETE FROM tombstone WHERE id = ?", due[:limit])
        return len(due) > limit

    def expired(self, limit: int) -> list[Row]:
        """Sequences that are past their retention, the longest parked first."""
        return self._rows("awake = 0 AND touched <= ?", self._now - self._terms.retention, limit)

    def lapsed(self, limit: int) -> list[Row]:
        """Sequences that are past their lease, the longest first."""
        return self._rows("awake = 1 AND touched <= ?", self._now - self._terms.lease, limit)

    def oldest(self, count: int, owner: str | None) -> list[Row]:
        """The sequences that were parked longest ago, of an owner or of all."""
        if owner is None:
            return self._rows("awake = 0", count)
        return self._rows("awake = 0 AND owner = ?", owner, count)

    def _rows(self, where: str, *given: str | float) -> list[Row]:
        found = self._connection.execute(f"{SEQUENCES} WHERE {where} ORDER BY touched, id LIMIT ?", given)
        return [_row(*columns) for columns in found]

    def flush(self) -> None:
        """Writes all changes."""
        many = self._connection.executemany
        graves = [(row.id, t.digest, t.fence, t.reason, t.model, t.step, t.until) for row, t in self._buried]
        many("DELETE FROM checkpoint WHERE key BETWEEN ? AND ?", [_range(row) for row, _ in self._buried])
        many("DELETE FROM sequence WHERE key = ?", [(row.key,) for row, _ in self._buried])
        many("INSERT OR REPLACE INTO tombstone VALUES (?, ?, ?, ?, ?, ?, ?)", graves)
        many("DELETE FROM tombstone WHERE id = ?", [(row.id,) for row in self._born.values()])
        many("INSERT INTO sequence VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [_columns(row) for row in self._born.values()])
        many(
            "UPDATE sequence SET fence = ?, touched = ?, slots = ?, awake = ? WHERE key = ?",
            [(r.kept.fence, r.kept.touched, r.slots.packed, r.kept.awake, r.key) for r in self._changed.values()],
        )
        checkpoints = self._checkpoints.items()
        many("DELETE FROM checkpoint WHERE key = ?", [(key,) for key, data in checkpoints if data is None])
        many(
            "INSERT INTO checkpoint VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET data = excluded.data",
            [(key, data) for key, data in checkpoints if data is not None],
        )
        self._count()

    def _count(self) -> None:
        owners = {*self._bytes_of, *self._parked_of}
        if not owners:
            return  # nothing to sync
        counts = [(o, self._sequences_of[o], self._bytes_of[o], self._parked_of[o]) for o in owners]
        self._connection.executemany(
            "INSERT INTO usage VALUES (?, ?, ?, ?) ON CONFLICT (owner) DO UPDATE SET sequences = sequences + "
            "excluded.sequences, bytes = bytes + excluded.bytes, parked = parked + excluded.parked",
            counts,
        )
        self._connection.executemany(
            "DELETE FROM usage WHERE owner = ? AND sequences = 0", [(owner,) for owner, gone, *_ in counts if gone < 0]
        )
        changes = self._sequences_of, self._bytes_of, self._parked_of
        self._connection.execute(
            "UPDATE total SET sequences = sequences + ?, bytes = bytes + ?, parked = parked + ?",
            [sum(change.values()) for change in changes],
        )

    def _look(self, id_: str) -> Row | Tombstone | None:
        if id_ not in self._seen:
            self._seen[id_] = self._find(id_)
        return self._seen[id_]

    def _of_owner(self, row: Row | Tombstone | None) -> Entry:
        return fencing.remembered(row.kept if isinstance(row, Row) else row, self._now)

    def _of_all(self, row: Row | Tombstone | None) -> Entry:
        return fencing.as_of(row.kept if isinstance(row, Row) else row, self._now, self._terms)

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
        birth = write.birth
        kept = Kept(birth.digest, birth.owner, birth.model, write.fence, self._now, awake=True, step=None)
        row = Row(next(self._keys), write.id, kept, Slots())
        self._born[row.key] = row
        self._sequences_of[kept.owner] += 1
        return row

    def _change(self, row: Row, fence: int, *, awake: bool, slots: Slots | None = None) -> None:
        slots = slots or row.slots
        kept = replace(row.kept, fence=fence, touched=self._now, awake=awake, step=slots.newest)
        self._parked_of[kept.owner] += row.kept.awake - awake
        row = self._seen[row.id] = Row(row.key, row.id, kept, slots)
        (self._born if row.key in self._born else self._changed)[row.key] = row


def _row(
    key: int, id_: str, digest: bytes, owner: str, model: str, fence: int, touched: float, data: bytes, awake: int
) -> Row:
    slots = Slots.unpacked(data)
    return Row(key, id_, Kept(digest, owner, model, fence, touched, bool(awake), slots.newest), slots)


def _columns(row: Row) -> tuple[int, str, bytes, str, str, int, float, bytes, bool]:
    kept = row.kept
    return (
        row.key,
        row.id,
        kept.digest,
        kept.owner,
        kept.model,
        kept.fence,
        kept.touched,
        row.slots.packed,
        kept.awake,
    )


def _range(row: Row) -> tuple[int, int]:
    return row.place(0), row.place(PER_SEQUENCE - 1)
