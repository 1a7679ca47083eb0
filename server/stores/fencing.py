"""Who may do what with a kept sequence, and how old it is; pure. `valkey/store.lua` says the same.

`time` is the store's own: seconds that were seen to pass, comparable with `touched` and `until` (see `observed.py`).
"""

from hmac import compare_digest
from typing import NamedTuple

from server.stores.checkpoint_index import CheckpointIndex
from server.stores.records import Outcome, Record
from server.stores.store import End, Gone, Hold, Reason, Refused, Write
from server.stores.terms import Terms

LATE = 1_000  # milliseconds; `valkey/store.lua` knows it too


class Tombstone(NamedTuple):
    """What is remembered of a sequence that is gone, until `until`."""

    digest: bytes
    fence: int
    reason: Reason
    owner: str
    model: str
    step: int | None
    until: float


class Kept(NamedTuple):
    """What is known of a sequence that is there. `awake`: as its owner said last, which was at `touched`."""

    digest: bytes
    owner: str
    model: str
    fence: int
    touched: float
    awake: bool
    checkpoints: CheckpointIndex


Entry = Kept | Tombstone | None


def remembered(entry: Entry, time: float) -> Entry:
    """An entry as its owner finds it: a tombstone counts until its time is over, even if no sweep has deleted it."""
    return None if isinstance(entry, Tombstone) and entry.until <= time else entry


def as_of(entry: Entry, time: float, terms: Terms) -> Entry:
    """An entry as others find it: what is past its retention is gone, even if no sweep has deleted it."""
    if isinstance(entry, Kept) and not entry.awake and entry.touched <= time - terms.retention:
        return buried(entry, Reason.EXPIRED, entry.fence, time, terms)
    return remembered(entry, time)


def buried(kept: Kept, reason: Reason, fence: int, time: float, terms: Terms) -> Tombstone:
    """What is remembered of a sequence that goes now, under the fence of who ends it."""
    step, until = kept.checkpoints.newest, time + terms.tombstone
    return Tombstone(kept.digest, fence, reason, kept.owner, kept.model, step, until)


def begins_anew(write: Write, entry: Kept | Tombstone) -> bool:
    """Whether the owner of a sequence, kept or gone, begins another under its id."""
    creation = write.creation
    return (
        creation is not None
        and creation.anew
        and write.fence > entry.fence
        and compare_digest(creation.digest, entry.digest)
    )


def write_refused(write: Write, entry: Entry) -> Refused | None:
    match entry:
        case Kept() | Tombstone() if begins_anew(write, entry):
            return None
        case None if write.creation is not None:
            return None
        case Kept() if write.creation is not None and not compare_digest(write.creation.digest, entry.digest):
            return Refused(write.id, Reason.NOT_YOURS, entry.fence)
    return hold_refused(write, entry)


def hold_refused(hold: Hold | Write | End, entry: Entry) -> Refused | None:
    """Why a hold changes nothing, if it is not the caller's any more."""
    match entry:
        case None:
            return Refused(hold.id, Reason.UNKNOWN, 0)
        case Tombstone():
            return Refused(hold.id, entry.reason, entry.fence)
        case Kept() if hold.fence < entry.fence:
            return Refused(hold.id, Reason.FENCED, entry.fence)
    return None


def end_refused(end: End, entry: Entry) -> Refused | None:
    """Why an end changes nothing, if it is not because that very end has been carried out before."""
    if isinstance(entry, Tombstone) and (entry.fence, entry.reason) == (end.fence, end.reason):
        return None
    return hold_refused(end, entry)


def put_refused(record: Record, entry: Entry) -> Outcome | None:
    """Why a record of another moment, or of another store, is not put in the place of what is there."""
    match entry:
        case Tombstone() if record.reason is None and record.fence > entry.fence and record.digest == entry.digest:
            return None  # it began anew
        case Tombstone():
            return Outcome.GONE
        case Kept() if entry.awake or not compare_digest(record.digest, entry.digest) or entry.fence > record.fence:
            return Outcome.KEPT
        case Kept() if record.reason is None and entry.fence == record.fence and entry.touched > record.since:
            return Outcome.KEPT
    return None


def gone(entry: Entry, digest: bytes) -> Gone | None:
    """Why a sequence cannot be had by who proves `digest`, if so. To a stranger it says nothing else."""
    if entry is None:
        return Gone(Reason.UNKNOWN)
    if not compare_digest(entry.digest, digest):
        return Gone(Reason.NOT_YOURS)
    if isinstance(entry, Tombstone):
        return Gone(entry.reason, entry.model, entry.step)
    return None


def outrun(entry: Entry, asked: float, now: float) -> Gone | None:
    """That the claim which holds now came between when another was asked for and now, when that is carried out, if so.

    Who asked for it has given up long since: a store that hangs carries out late what it was sent. A second is left to
    clocks that differ. A clock that differs by more, or jumps, may be wrong about one claim, not about the next.
    """
    if isinstance(entry, Kept) and int(asked * 1_000) + LATE < entry.fence <= int(now * 1_000):
        return Gone(Reason.FENCED, entry.model, entry.checkpoints.newest)
    return None


def next_fence(fence: int, now: float) -> int:
    """Above every fence that was ever given, also one that a crash has made the store forget."""
    return max(fence + 1, int(now * 1_000))
