"""A store in memory, for tests and for those who want none: what it keeps ends with the process.

One may be shared by several servers of a process, each with a thread of its own.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from threading import Lock

from server.stores.fencing import (
    Entry,
    Kept,
    Tombstone,
    as_of,
    buried,
    end_refused,
    gone,
    hold_refused,
    next_fence,
    outrun,
    remembered,
    superseded,
    write_refused,
)
from server.stores.store import Claim, Claimed, End, Evicted, Gone, Hold, Reason, Refused, Swept, Terms, Usage, Write


class MemoryStore:
    """See `server.store.Store`."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self._lock = Lock()
        self._kept: dict[str, Kept] = {}
        self._awake: OrderedDict[str, None] = OrderedDict()  # the longest untouched first
        self._parked: OrderedDict[str, None] = OrderedDict()  # likewise
        self._parked_of: defaultdict[str, OrderedDict[str, None]] = defaultdict(OrderedDict)  # likewise, by owner
        self._sequences_of: defaultdict[str, int] = defaultdict(int)  # by owner
        self._checkpoints: dict[str, dict[int, bytes]] = {}
        self._bytes = 0
        self._bytes_of: defaultdict[str, int] = defaultdict(int)  # by owner
        self._tombstones: OrderedDict[str, Tombstone] = OrderedDict()  # the oldest first

    def write(self, writes: Sequence[Write], now: float) -> list[Refused]:
        """See `Store.write`."""
        with self._lock:
            return [refused for write in writes if (refused := self._write(write, now)) is not None]

    def claim(self, claims: Sequence[Claim], now: float, asked: float | None = None) -> list[Claimed | Gone]:
        """See `Store.claim`."""
        with self._lock:
            asked = now if asked is None else asked
            refused = [self._unclaimable(claim, asked, now) for claim in claims]
            take = not any(refused)
            return [why or self._claim(claim, now, take=take) for claim, why in zip(claims, refused, strict=True)]

    def read(self, claims: Sequence[Claim], now: float) -> list[Claimed | Gone]:
        """See `Store.read`."""
        with self._lock:
            return [self._read(claim, now) for claim in claims]

    def hold(self, holds: Sequence[Hold], now: float) -> list[Refused]:
        """See `Store.hold`."""
        with self._lock:
            return [refused for hold in holds if (refused := self._hold(hold, now)) is not None]

    def end(self, ends: Sequence[End], now: float) -> list[Refused]:
        """See `Store.end`."""
        with self._lock:
            return [refused for end in ends if (refused := self._end(end, now)) is not None]

    def expire(self, now: float, limit: int = 1_000) -> Swept:
        """See `Store.expire`."""
        with self._lock:
            expired = list(islice(self._past(self._parked, now - self.terms.retention), limit + 1))
            for id_ in expired[:limit]:
                self._bury(id_, Reason.EXPIRED, now)
            lapsed = list(islice(self._past(self._awake, now - self.terms.lease), limit + 1))
            for id_ in sorted(lapsed[:limit]):
                self._touch(id_, replace(self._kept[id_], touched=now, awake=False))
            owners = frozenset(self._kept[id_].owner for id_ in lapsed[:limit])
            old = [id_ for id_, t in islice(self._tombstones.items(), limit + 1) if t.until <= now]
            for id_ in old[:limit]:
                del self._tombstones[id_]
            return Swept(tuple(expired[:limit]), max(map(len, (expired, lapsed, old))) > limit, owners)

    def evict(self, count: int, now: float, *, owner: str | None = None) -> list[Evicted]:
        """See `Store.evict`."""
        with self._lock:
            oldest: Iterable[str] = self._parked if owner is None else self._parked_of.get(owner, ())
            return [self._evict(id_, now) for id_ in list(islice(oldest, count))]

    def usage(self) -> Usage:
        """See `Store.usage`."""
        with self._lock:
            return Usage(len(self._kept), self._bytes, len(self._parked))

    def usage_of(self, owner: str) -> Usage:
        """See `Store.usage_of`."""
        with self._lock:
            parked = len(self._parked_of.get(owner, ()))
            return Usage(self._sequences_of.get(owner, 0), self._bytes_of.get(owner, 0), parked)

    def losses(self) -> int:
        """See `Store.losses`."""
        return 0

    def close(self) -> None:
        """Nothing to let go of."""

    def _entry(self, id_: str) -> Entry:
        return self._kept.get(id_) or self._tombstones.get(id_)

    def _past(self, ids: Iterable[str], time: float) -> Iterable[str]:
        return takewhile(lambda id_: self._kept[id_].touched <= time, ids)

    def _write(self, write: Write, now: float) -> Refused | None:
        entry = remembered(self._entry(write.id), now)
        if refused := write_refused(write, entry):
            return refused
        if not isinstance(entry, Kept):
            assert write.birth is not None, "else it is refused"
            born = write.birth
            entry = Kept(born.digest, born.owner, born.model, write.fence, now, write.awake, None)
            self._tombstones.pop(write.id, None)
            self._sequences_of[born.owner] += 1
        kept = self._checkpoints.setdefault(write.id, {})
        for step in superseded(list(kept), write.step, self.terms.keep, write.spare):
            self._count(entry.owner, -len(kept.pop(step)))
        kept[write.step] = write.data
        self._count(entry.owner, len(write.data))
        self._touch(write.id, replace(entry, fence=write.fence, touched=now, awake=write.awake, step=write.step))
        return None

    def _count(self, owner: str, change: int) -> None:
        self._bytes += change
        self._bytes_of[owner] += change

    def _touch(self, id_: str, kept: Kept) -> None:
        self._unlist(id_, kept.owner)
        self._kept[id_] = kept
        if kept.awake:
            self._awake[id_] = None
        else:
            self._parked[id_] = self._parked_of[kept.owner][id_] = None

    def _unlist(self, id_: str, owner: str) -> None:
        self._awake.pop(id_, None)
        self._parked.pop(id_, None)
        self._parked_of[owner].pop(id_, None)
        if not self._parked_of[owner]:
            del self._parked_of[owner]

    def _unclaimable(self, claim: Claim, asked: float, now: float) -> Gone | None:
        entry = as_of(self._entry(claim.id), now, self.terms)
        return gone(entry, claim.digest) or outrun(entry, asked, now)

    def _claim(self, claim: Claim, now: float, *, take: bool) -> Claimed | Gone:
        entry = as_of(self._entry(claim.id), now, self.terms)
        if take and isinstance(entry, Kept):
            self._touch(claim.id, replace(entry, fence=next_fence(entry.fence, now), touched=now, awake=True))
        return self._read(claim, now)

    def _read(self, claim: Claim, now: float) -> Claimed | Gone:
        entry = as_of(self._entry(claim.id), now, self.terms)
        if refused := gone(entry, claim.digest):
            return refused
        assert isinstance(entry, Kept), "else it is gone"
        newest_first = sorted(self._checkpoints[claim.id].items(), reverse=True)
        return Claimed(entry.fence, entry.owner, entry.model, tuple(data for _, data in newest_first))

    def _hold(self, hold: Hold, now: float) -> Refused | None:
        entry = remembered(self._entry(hold.id), now)
        if refused := hold_refused(hold, entry):
            return refused
        assert isinstance(entry, Kept), "else it is refused"
        if hold.awake or entry.awake:
            self._touch(hold.id, replace(entry, fence=hold.fence, touched=now, awake=hold.awake))
        return None

    def _end(self, end: End, now: float) -> Refused | None:
        entry = remembered(self._entry(end.id), now)
        if refused := end_refused(end, entry):
            return refused
        if isinstance(entry, Kept):
            self._bury(end.id, end.reason, now, end.fence)
        return None

    def _evict(self, id_: str, now: float) -> Evicted:
        owner, size = self._kept[id_].owner, sum(map(len, self._checkpoints[id_].values()))
        past = isinstance(as_of(self._kept[id_], now, self.terms), Tombstone)
        reason = Reason.EXPIRED if past else Reason.EVICTED
        self._bury(id_, reason, now)
        return Evicted(id_, owner, size, reason)

    def _bury(self, id_: str, reason: Reason, now: float, fence: int = 0) -> None:
        kept = self._kept.pop(id_)
        self._count(kept.owner, -sum(map(len, self._checkpoints.pop(id_).values())))
        self._unlist(id_, kept.owner)
        self._sequences_of[kept.owner] -= 1
        if not self._sequences_of[kept.owner]:
            del self._sequences_of[kept.owner], self._bytes_of[kept.owner]
        self._tombstones[id_] = buried(kept, reason, max(fence, kept.fence), now, self.terms)
