"""What a store of checkpoints is: its calls, and what goes in and comes out. Knows no implementation, and no state.

Every call is synchronous, takes a whole batch, and is made from one thread. Two servers may have a store each on the
same data: whoever claimed a sequence last owns it, and the fencing number says so. A call that raised `StoreFailed` has
changed nothing if that is `definite`. Otherwise it may have been carried out, in part or whole, or may still be, but
never after a later one of the same store: the same call again does no harm, and is how one recovers.

A sequence is awake while its owner has it open and steps it, and parked otherwise; the owner says which. That it is
awake is a lease: those of an owner that has been silent for `Terms.lease` count as parked. Only parked ones make room,
and only parked ones expire.

`now` is seconds since 1970, from the caller's clock. The clocks of servers that share data may differ, and jump: ages
count in the store's own time, which moves on by what each server saw pass between two of its calls, at most by
`Terms.gap`. While no server runs nothing ages.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from server.stores.records import Outcome, Page, Record

from server.stores.terms import Terms


class Reason(StrEnum):
    """Why a store does not do what was asked with a sequence."""

    UNKNOWN = "unknown"  # never written, or gone so long that nothing is known of it any more
    NOT_YOURS = "not yours"  # the digest is another one
    FENCED = "fenced"  # claimed since by another, who owns it now
    ENDED = "ended"  # by its client
    EXPIRED = "expired"  # parked for as long as sequences are kept
    EVICTED = "evicted"  # to make room
    REMOVED = "removed"  # by who runs the server

    @classmethod
    def _missing_(cls, _value: object) -> Reason:
        return cls.EXPIRED  # of a later release


@dataclass(frozen=True, slots=True)
class Creation:
    """What is kept of a sequence from its first write on."""

    digest: bytes  # SHA-256 of its secret resume token, 32 bytes
    owner: str  # the limits count it for this one
    model: str  # by name
    anew: bool = False  # it begins anew where there was one of the same digest under an older fence, kept or gone


@dataclass(frozen=True, slots=True)
class Write:
    """One checkpoint of one sequence, after `step` steps; a store does not look into its `data`.

    A `creation` creates the sequence if it is unknown, with the fence as given, so that its server fills a store that
    has lost its data; it changes none that exists, unless it is `anew`. `spare` are earlier steps whose checkpoints
    stay, if they are kept, beside the newest: with these no more than 256.
    """

    id: str
    fence: int  # the number under which the writer owns it; 1 for who opened it
    step: int
    data: bytes
    creation: Creation | None = None
    spare: tuple[int, ...] = ()
    awake: bool = True  # from now on, or parked


@dataclass(frozen=True, slots=True)
class Claim:
    """Who holds the token that `digest` (SHA-256, 32 bytes) is of says that the sequence is theirs."""

    id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Hold:
    """The owner under this fence has the sequence open, awake or not."""

    id: str
    fence: int
    awake: bool


@dataclass(frozen=True, slots=True)
class End:
    """Ends a sequence, under the fence of its owner; the reason is ENDED, EXPIRED or EVICTED."""

    id: str
    fence: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Refused:
    """A write, a hold or an end that changed nothing. `fence`: what the sequence has or had; 0 if it is unknown."""

    id: str
    reason: Reason
    fence: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """A sequence and its kept checkpoints, the newest first. `fence`: its number, which the last claimant has."""

    fence: int
    owner: str
    model: str
    checkpoints: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Gone:
    """Why there is nothing to go on with; of which model and after which checkpointed step, if that may be known."""

    reason: Reason
    model: str = ""
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Evicted:
    """A sequence that had to make room, and the bytes of its checkpoints; EXPIRED if it was past its retention."""

    id: str
    owner: str
    bytes: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Swept:
    """Which sequences have just expired, whether more is left to do, and the owners of those that were just parked."""

    expired: tuple[str, ...]
    more: bool
    owners: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Usage:
    """What is kept; expired sequences count until they are swept."""

    sequences: int
    bytes: int  # of their checkpoints
    parked: int = 0  # of the sequences
    tombstones: int = field(default=0, compare=False)  # sequences that are gone, and why
    taken: int = field(default=0, compare=False)  # bytes of all that, with what the store needs for it, about


class Store(Protocol):
    """Checkpoints that outlive a server. Each call may raise `StoreFailed`; the next one tries again by itself.

    What owns a sequence no more is refused a write, a hold and an end: FENCED, where the fence is older than the
    sequence's, and ENDED, EVICTED or EXPIRED, where it is gone; the time alone takes nothing from its owner, before it
    was swept. So is UNKNOWN.
    """

    terms: Terms

    def write(self, writes: Sequence[Write], now: float) -> list[Refused]:
        """Keeps checkpoints, in the order given. Returns what was refused; all else is kept, safe from a power cut.

        The step of a write becomes the newest: kept checkpoints of later steps are gone (a rewind), one of the same
        step is replaced, and of the earlier ones the newest stay, `terms.keep` in all, and those to spare. The
        sequence's lease or retention begins anew. UNKNOWN is a write without a creation, NOT_YOURS one whose creation
        has another digest than the sequence.
        """

    def claim(self, claims: Sequence[Claim], now: float, asked: float | None = None) -> list[int | Gone]:
        """Makes the caller the owner of sequences, which are awake then, all or none: the fence of each, in order.

        If one of them is gone, none has changed, and the fences of the others are their owners'. What is kept of them
        is read after that, in portions: of a crowd only this takes long.
        The fence rises above every earlier one: to the milliseconds of `now`, or by one if that is more, so that a
        claim that a store has lost in a crash is not given to a second claimant. FENCED is a claim that came late:
        another was carried out since, or between a second after `asked`, by the same clock as `now`, and now. Where
        clocks differ that may be wrong; the next claim, which is asked for later, gets the sequence.
        """

    def read(self, claims: Sequence[Claim], now: float) -> list[Claimed | Gone]:
        """What is kept of sequences, or why there is nothing: one answer for each, in order."""

    def hold(self, holds: Sequence[Hold], now: float) -> list[Refused]:
        """Keeps sequences awake, or parks them. Returns those that are not the caller's any more.

        The lease of one that is awake begins anew, the retention of one that falls asleep begins, and one that is
        parked already stays as it is.
        """

    def end(self, ends: Sequence[End], now: float) -> list[Refused]:
        """Deletes the checkpoints of sequences, and remembers the reason for `terms.tombstone` seconds.

        The same end again is not refused.
        """

    def expire(self, now: float, limit: int = 1_000) -> Swept:
        """Makes up to `limit` sequences past their retention EXPIRED, and clears up as much of what else is due.

        Those past their lease are parked, and their retention begins now; old reasons are forgotten. Nobody who reads
        or claims needs to wait for this: to them a sequence past its retention is EXPIRED, swept or not.
        """

    def evict(self, count: int, now: float, *, owner: str | None = None) -> list[Evicted]:
        """Ends up to `count` parked sequences as EVICTED, of each owner those parked for longest.

        Whose they are, of an `owner` or of all, see `eviction.py`.
        """

    def forget(self, count: int, now: float) -> int:
        """Forgets why up to `count` sequences are gone, the oldest reasons first. Returns how many it forgot."""

    def page(self, cursor: object | None, limit: int, now: float) -> Page:
        """Reads about `limit` records, in no order; the cursor is that of the page before, None for the first.

        What is there during all pages comes once, or seldom twice; each record is as it was at one moment.
        """

    def records(self, ids: Collection[str], now: float) -> tuple[Record, ...]:
        """Those of these ids that are there."""

    def put(self, records: Sequence[Record], now: float) -> list[Outcome]:
        """Keeps records of this or another store under their fences, parked, and says what became of each.

        Of two states of a sequence that with the higher fence is newer, or else the one that was touched later.
        """

    def usage(self, owner: str | None = None) -> Usage:
        """What everything takes, or one owner's sequences; counters, no scan."""

    def parked_by(self, account: str) -> Sequence[tuple[str, int]]:
        """The owners of an account with the most parked sequences, and how many."""

    def shrink(self) -> bool:
        """Gives a little of the space that is free back to the system. Whether there is more to give back."""

    def losses(self) -> int:
        """How many times this store was found to have lost what it had answered for: asks it in one round trip.

        It rises with the first call, of any kind that changes something or of this one, after the data was wiped or put
        back to what it was before: whatever is alive has to be written again.
        """

    def close(self) -> None:
        """Lets go of files and connections."""
