"""What a store has of a sequence as a value, for who looks after stores and moves what is in them."""

from dataclasses import dataclass
from enum import StrEnum

from server.stores.store import Reason


@dataclass(frozen=True, slots=True)
class Record:
    """All that a store has of one sequence, or with a `reason` its tombstone; who moves data reads and puts these.

    `checkpoints`: the newest first. `since` is in the time of the store that it comes from: when the owner last said
    whether it is awake, or until when the tombstone stands; `seconds` have passed since, or are left.
    """

    id: str
    digest: bytes
    owner: str
    model: str
    fence: int
    since: float
    seconds: float
    awake: bool = False
    checkpoints: tuple[bytes, ...] = ()
    steps: tuple[int, ...] = ()  # of these
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some of what a store has, and where to go on; None: that was all."""

    records: tuple[Record, ...]
    cursor: object | None


class Outcome(StrEnum):
    """What became of a record that was to be put into a store."""

    PUT = "put"
    KEPT = "kept"  # what is there is newer, or awake, or has another digest
    GONE = "gone"  # a tombstone is there
