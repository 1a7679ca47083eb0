"""A store in memory, for tests and for those who want none: what it keeps ends with the process.

One may be shared by several servers of a process, each with a thread of its own.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from threading import Lock

from server.fencing import (
    Entry,
    Kept,
    Tombstone,
    as_of,
    buried,
    end_refused,
    gone,
    next_fence,
    outrun,
    superseded,
    write_refused,
)
from server.store import Claim, Claimed, End, Evicted, Gone, Reason, Refused, Swept, Terms, Usage, Write


class MemoryStore:
    """See `server.store.Store`."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self._lock = Lock()
        self._kept: OrderedDict[str, Kept] = OrderedDict()  # the longest untouched first
        self._of_owner: defaultdict[str, OrderedDict[str, None]] = defaultdict(OrderedDict)  # likewise
        self._checkpoints: dict[str, dict[int, bytes]] = {}
        self._bytes = 0
        self._bytes_of: defaultdict[str, int] = defaultdict(int)  # by owner
        self._tombstones: OrderedDict[str, Tombstone] = OrderedDict()  # the oldest first

    def write(self, writes: Sequence[Write], now: float) -> list[Refused]:
        """See `Store.write`."""
        with self._lock:
            return [refused for write in writes if (refused := self._write(write, now)) is not None]

    def claim(self, claims: Sequence[Claim], now: float) -> list[Claimed | Gone]:
        """See `Store.claim`."""
        with self._lock:
            refused = [self._unclaimable(claim, now) for claim in claims]
            take = not any(refused)
            return [why or self._claim(claim, now, take=take) for claim, why in zip(claims, refused, strict=True)]

    def read(self, claims: Sequence[Claim], now: float) -> list[Claimed | Gone]:
        """See `Store.read`."""
        with self._lock:
            return [self._claim(claim, now, take=False) for claim in claims]

    def end(self, ends: Sequence[End], now: float) -> list[Refused]:
        """See `Store.end`."""
        with self._lock:
            return [refused for end in ends if (refused := self._end(end, now)) is not None]

    def expire(self, now: float, limit: int = 1_000) -> Swept:
        """See `Store.expire`."""
        with self._lock:
            for id_, tombstone in list(islice(self._tombstones.items(), limit)):
                if tombstone.until <= now:
                    del self._tombstones[id_]
            oldest = list(islice(self._kept, limit + 1))
            expired = [id_ for id_ in oldest if isinstance(self._entry(id_, now), Tombstone)]
            for id_ in expired[:limit]:
                self._bury(id_, Reason.EXPIRED, now)
            return Swept(len(expired[:limit]), len(expired) > limit)

    def evict(self, count: int, now: float, *, owner: str | None = None, spare: Collection[str] = ()) -> list[Evicted]:
        """See `Store.evict`."""
        with self._lock:
            oldest: Iterable[str] = self._kept if owner is None else self._of_owner.get(owner, ())
            return [self._evict(id_, now) for id_ in list(islice((i for i in oldest if i not in spare), count))]

    def usage(self) -> Usage:
        """See `Store.usage`."""
        with self._lock:
            return Usage(len(self._kept), self._bytes)

    def usage_of(self, owner: str) -> Usage:
        """See `Store.usage_of`."""
        with self._lock:
            return Usage(len(self._of_owner.get(owner, ())), self._bytes_of.get(owner, 0))

    def close(self) -> None:
        """Nothing to let go of."""

    def _entry(self, id_: str, now: float) -> Entry:
        return as_of(self._kept.get(id_) or self._tombstones.get(id_), now, self.terms)

    def _write(self, write: Write, now: float) -> Refused | None:
        entry = self._entry(write.id, now)
        if refused := write_refused(write, entry):
            return refused
        if not isinstance(entry, Kept):
            assert write.birth is not None, "else it is refused"
            entry = Kept(write.birth.digest, write.birth.owner, write.birth.model, write.fence, now, None)
            self._tombstones.pop(write.id, None)
        kept = self._checkpoints.setdefault(write.id, {})
        for step in superseded(list(kept), write.step, self.terms.keep, write.spare):
            self._count(entry.owner, -len(kept.pop(step)))
        kept[write.step] = write.data
        self._count(entry.owner, len(write.data))
        self._touch(write.id, replace(entry, fence=write.fence, touched=now, step=write.step))
        return None

    def _count(self, owner: str, change: int) -> None:
        self._bytes += change
        self._bytes_of[owner] += change

    def _touch(self, id_: str, kept: Kept) -> None:
        self._kept[id_] = kept
        self._kept.move_to_end(id_)
        self._of_owner[kept.owner][id_] = None
        self._of_owner[kept.owner].move_to_end(id_)

    def _unclaimable(self, claim: Claim, now: float) -> Gone | None:
        entry = self._entry(claim.id, now)
        return gone(entry, claim.digest) or outrun(entry, now)

    def _claim(self, claim: Claim, now: float, *, take: bool) -> Claimed | Gone:
        entry = self._entry(claim.id, now)
        if refused := gone(entry, claim.digest):
            return refused
        assert isinstance(entry, Kept), "else it is gone"
        if take:
            entry = replace(entry, fence=next_fence(entry.fence, now), touched=now)
            self._touch(claim.id, entry)
        newest_first = sorted(self._checkpoints[claim.id].items(), reverse=True)
        return Claimed(entry.fence, entry.owner, entry.model, tuple(data for _, data in newest_first))

    def _end(self, end: End, now: float) -> Refused | None:
        entry = self._entry(end.id, now)
        if refused := end_refused(end, entry):
            return refused
        if isinstance(entry, Kept):
            self._bury(end.id, end.reason, now, end.fence)
        return None

    def _evict(self, id_: str, now: float) -> Evicted:
        owner, size = self._kept[id_].owner, sum(map(len, self._checkpoints[id_].values()))
        reason = Reason.EXPIRED if isinstance(self._entry(id_, now), Tombstone) else Reason.EVICTED
        self._bury(id_, reason, now)
        return Evicted(id_, owner, size, reason)

    def _bury(self, id_: str, reason: Reason, now: float, fence: int = 0) -> None:
        kept = self._kept.pop(id_)
        self._count(kept.owner, -sum(map(len, self._checkpoints.pop(id_).values())))
        del self._of_owner[kept.owner][id_]
        if not self._of_owner[kept.owner]:
            del self._of_owner[kept.owner], self._bytes_of[kept.owner]
        self._tombstones[id_] = buried(kept, reason, max(fence, kept.fence), now, self.terms)
