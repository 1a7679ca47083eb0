"""What a store decides, once for all that bring a `Table`: loads entries, decides by `fencing`, collects changes."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import islice, starmap
from typing import TypeVar

from server.stores import fencing
from server.stores.checkpoint_index import CheckpointIndex
from server.stores.eviction import RANKED, parts
from server.stores.fencing import Entry, Kept, Tombstone
from server.stores.records import Outcome, Page, Record
from server.stores.store import Claim, Claimed, End, Evicted, Gone, Hold, Reason, Refused, Swept, Write
from server.stores.table import Changes, Table, Tally
from server.stores.terms import Terms

A = TypeVar("A", Write, Hold, End)


class Transaction:
    """One call of a store. `now`: of the caller's clock; `time`: of the store."""

    def __init__(self, table: Table, terms: Terms, now: float, time: float) -> None:
        self._table, self._terms, self._now, self._time = table, terms, now, time
        self._seen: dict[str, Entry] = {}
        self._changes = Changes()

    def write(self, writes: Sequence[Write]) -> list[Refused]:
        return self._each(writes, self._write)

    def claim(self, claims: Sequence[Claim], asked: float) -> list[int | Gone]:
        self._load({claim.id for claim in claims})
        refused = [self._unclaimable(claim, asked) for claim in claims]
        if any(refused):
            return [why or self._kept(claim.id).fence for claim, why in zip(claims, refused, strict=True)]
        return [self._take(claim) for claim in claims]

    def read(self, claims: Sequence[Claim]) -> list[Claimed | Gone]:
        self._load({claim.id for claim in claims})
        return [self._read(claim) for claim in claims]

    def hold(self, holds: Sequence[Hold]) -> list[Refused]:
        return self._each(holds, self._hold)

    def end(self, ends: Sequence[End]) -> list[Refused]:
        return self._each(ends, self._end)

    def _each(self, asked: Sequence[A], carry_out: Callable[[A], Refused | None]) -> list[Refused]:
        self._load({one.id for one in asked})
        return [refused for one in asked if (refused := carry_out(one)) is not None]

    def expire(self, limit: int) -> Swept:
        expired = self._found(self._table.parked(limit + 1, self._time - self._terms.retention))
        lapsed = self._found(self._table.awake(limit + 1, self._time - self._terms.lease))
        fallen = self._found(self._table.tombstones(limit + 1, self._time))
        for id_ in expired[:limit]:
            self._bury(id_, Reason.EXPIRED)
        for id_ in sorted(lapsed[:limit]):
            self._touch(id_, kept := self._kept(id_), kept.fence, awake=False)
        for id_ in fallen[:limit]:
            self._change(id_, None)
        owners = frozenset(self._kept(id_).owner for id_ in lapsed[:limit])
        return Swept(tuple(expired[:limit]), max(map(len, (expired, lapsed, fallen))) > limit, owners)

    def evict(self, count: int, owner: str | None) -> list[Evicted]:
        largest = partial(self._table.largest, RANKED)
        of = {owner: count} if owner is not None else parts(largest(), largest, count)
        if of is None:
            ids = self._found(self._table.parked(count))
        else:
            ids = [id_ for one, part in of.items() for id_ in self._found(self._table.parked(part, owner=one))]
        return [self._evict(id_) for id_ in ids]

    def forget(self, count: int) -> int:
        fallen = self._found(self._table.tombstones(count))
        for id_ in fallen:
            self._change(id_, None)
        return len(fallen)

    def page(self, cursor: object | None, limit: int) -> Page:
        entries, following = self._table.page(cursor, limit)
        return Page(tuple(starmap(self._record, entries.items())), following)

    def records(self, ids: Collection[str]) -> tuple[Record, ...]:
        return tuple(starmap(self._record, self._table.entries(ids).items()))

    def put(self, records: Sequence[Record]) -> list[Outcome]:
        self._load({record.id for record in records})
        return [self._put(record) for record in records]

    def save(self) -> None:
        self._bound_tombstones()
        self._count()
        kept = self._table.time()
        late = kept is None or self._time - kept >= self._terms.gap / 2  # as much as a crash may forget
        if self._changes.entries or late:
            self._table.save(self._changes, self._time)

    # One sequence -----------------------------------------------------------------------------------------------------

    def _write(self, write: Write) -> Refused | None:
        entry = self._of_owner(write.id)
        if refused := fencing.write_refused(write, entry):
            return refused
        kept = entry if isinstance(entry, Kept) else self._born(write)
        if isinstance(entry, Kept) and fencing.begins_anew(write, entry):
            self._changes.checkpoints.update({(write.id, number): None for number in kept.checkpoints.newest_first})
            kept = self._born(write)
        index, number, freed = kept.checkpoints.placed(write.step, len(write.data), self._terms.keep, write.spare)
        for unused in freed:
            self._changes.checkpoints[write.id, unused] = None
        self._changes.checkpoints[write.id, number] = write.data
        self._touch(write.id, kept, write.fence, awake=write.awake, index=index)
        return None

    def _born(self, write: Write) -> Kept:
        assert write.creation is not None, "else it is refused"
        creation = write.creation
        return Kept(
            creation.digest, creation.owner, creation.model, write.fence, self._time, write.awake, CheckpointIndex()
        )

    def _unclaimable(self, claim: Claim, asked: float) -> Gone | None:
        entry = self._of_all(claim.id)
        return fencing.gone(entry, claim.digest) or fencing.outrun(entry, asked, self._now)

    def _take(self, claim: Claim) -> int:
        kept = self._kept(claim.id)
        fence = fencing.next_fence(kept.fence, self._now)
        self._touch(claim.id, kept, fence, awake=True)
        return fence

    def _read(self, claim: Claim) -> Claimed | Gone:
        if refused := fencing.gone(self._of_all(claim.id), claim.digest):
            return refused
        kept, data = self._kept(claim.id), self._table.checkpoints(claim.id)
        numbers = kept.checkpoints.newest_first
        newest_first = tuple(data[number] for number in numbers if number in data)  # all of them, but after a rescue
        return Claimed(kept.fence, kept.owner, kept.model, newest_first)

    def _hold(self, hold: Hold) -> Refused | None:
        if refused := fencing.hold_refused(hold, self._of_owner(hold.id)):
            return refused
        kept = self._kept(hold.id)
        if hold.awake or kept.awake:
            self._touch(hold.id, kept, hold.fence, awake=hold.awake)
        return None

    def _end(self, end: End) -> Refused | None:
        entry = self._of_owner(end.id)
        if refused := fencing.end_refused(end, entry):
            return refused
        if isinstance(entry, Kept):
            self._bury(end.id, end.reason, end.fence)
        return None

    def _evict(self, id_: str) -> Evicted:
        kept = self._kept(id_)
        reason = Reason.EXPIRED if isinstance(self._of_all(id_), Tombstone) else Reason.EVICTED
        self._bury(id_, reason)
        return Evicted(id_, kept.owner, kept.checkpoints.bytes, reason)

    def _record(self, id_: str, entry: Kept | Tombstone) -> Record:
        who = id_, entry.digest, entry.owner, entry.model, entry.fence
        if isinstance(entry, Tombstone):
            last = () if entry.step is None else (entry.step,)
            return Record(*who, entry.until, entry.until - self._time, steps=last, reason=entry.reason)
        kept, data = entry.checkpoints, self._table.checkpoints(id_)
        numbers = [number for number in kept.newest_first if number in data]  # all of them, but after a rescue
        checkpoints, steps = tuple(data[number] for number in numbers), tuple(kept.steps[number] for number in numbers)
        return Record(*who, entry.touched, self._time - entry.touched, entry.awake, checkpoints, steps)

    def _put(self, record: Record) -> Outcome:
        entry = self._of_owner(record.id)
        if refused := fencing.put_refused(record, entry):
            return refused
        r, reason = record, record.reason
        if reason is not None and isinstance(entry, Kept):
            self._bury(r.id, reason, r.fence)
        elif reason is not None:
            until, step = self._time + r.seconds, max(r.steps, default=None)
            self._change(r.id, Tombstone(r.digest, r.fence, reason, r.owner, r.model, step, until))
        else:
            for number in entry.checkpoints.newest_first if isinstance(entry, Kept) else ():
                self._changes.checkpoints[r.id, number] = None
            self._changes.checkpoints |= {(r.id, number): data for number, data in enumerate(r.checkpoints)}
            index = CheckpointIndex(r.steps, tuple(map(len, r.checkpoints)))
            touched = self._time - (0.0 if r.awake else r.seconds)
            owner = entry.owner if isinstance(entry, Kept) else r.owner
            self._change(r.id, Kept(r.digest, owner, r.model, r.fence, touched, False, index))
        return Outcome.PUT

    # Entries ----------------------------------------------------------------------------------------------------------

    def _load(self, ids: Collection[str]) -> None:
        self._seen |= self._table.entries(ids)

    def _found(self, entries: Mapping[str, Kept] | Mapping[str, Tombstone]) -> list[str]:
        self._seen |= entries
        return list(entries)

    def _kept(self, id_: str) -> Kept:
        kept = self._seen[id_]
        assert isinstance(kept, Kept), "else it is refused"
        return kept

    def _of_owner(self, id_: str) -> Entry:
        return fencing.remembered(self._seen.get(id_), self._time)

    def _of_all(self, id_: str) -> Entry:
        return fencing.as_of(self._seen.get(id_), self._time, self._terms)

    def _touch(self, id_: str, kept: Kept, fence: int, *, awake: bool, index: CheckpointIndex | None = None) -> None:
        checkpoints = kept.checkpoints if index is None else index
        self._change(id_, Kept(kept.digest, kept.owner, kept.model, fence, self._time, awake, checkpoints))

    def _bury(self, id_: str, reason: Reason, fence: int = 0) -> None:
        kept = self._kept(id_)
        self._change(id_, fencing.buried(kept, reason, max(fence, kept.fence), self._time, self._terms))

    def _change(self, id_: str, entry: Entry) -> None:
        before = self._changes.entries.get(id_)
        self._changes.entries[id_] = (self._seen.get(id_) if before is None else before[0]), entry
        self._seen[id_] = entry

    # Counting ---------------------------------------------------------------------------------------------------------

    def _bound_tombstones(self) -> None:
        """Of no owner more are kept than may be: the oldest go."""
        new = Counter(after.owner for _, after in self._changes.entries.values() if isinstance(after, Tombstone))
        for owner, count in new.items():
            surplus = self._table.usage(owner).tombstones + count - self._terms.tombstones
            if surplus > 0:
                for id_ in self._oldest(owner, surplus):
                    self._change(id_, None)

    def _oldest(self, owner: str, count: int) -> list[str]:
        """Tombstones of an owner, those that stand already before the new ones."""
        stones = self._table.tombstones(count, owner=owner)
        old = self._found({id_: stone for id_, stone in stones.items() if id_ not in self._changes.entries})
        new = (id_ for id_, (_, t) in self._changes.entries.items() if isinstance(t, Tombstone) and t.owner == owner)
        return [*old, *islice(new, count - len(old))]

    def _count(self) -> None:
        tally = defaultdict(Tally, self._changes.tally)
        for before, after in self._changes.entries.values():
            if before is not None:
                _add(tally[before.owner], before, -1)
            if after is not None:
                _add(tally[after.owner], after, 1)
        self._changes.tally = dict(tally)


def _add(tally: Tally, entry: Kept | Tombstone, sign: int) -> None:
    if isinstance(entry, Tombstone):
        tally["tombstones"] += sign
    else:
        tally["sequences"] += sign
        tally["bytes"] += sign * entry.checkpoints.bytes
        tally["parked"] += sign * (not entry.awake)
