"""A sequence as it is shown to who runs the server, and which ones were asked for; pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from server.caller import TOKEN, account_of
from server.durability import checkpoint
from server.durability.sequence import ServedSequence
from server.errors import CheckpointRefused
from server.stores.records import Record


class Where(StrEnum):
    """Where a sequence is."""

    OPEN = "open"  # on a stream
    ASLEEP = "asleep"  # on a stream of this server, without a step for long; other servers count it as parked
    PARKED = "parked"  # on no stream


@dataclass(frozen=True, slots=True)
class Listed:
    """One sequence. Of one that is open at another server, the steps are those of its newest checkpoint."""

    id: str
    owner: str  # the account, and the label within it
    model: str
    version: int  # 0: its newest checkpoint cannot be read
    steps: int
    where: Where
    idle: float  # seconds since the last step, as far as is known, or since it was parked
    checkpointed: int | None = None  # the step of the newest checkpoint
    bytes: int = 0  # of all checkpoints
    here: bool = False  # open on this server
    fence: int = 0

    @property
    def label(self) -> str:
        """The owner's name that the client gave."""
        return self.owner.partition(" ")[2]

    @property
    def token(self) -> str:
        """The name of the token that it belongs to; "" for none."""
        account = account_of(self.owner)
        return account.removeprefix(TOKEN) if account.startswith(TOKEN) else ""

    @property
    def address(self) -> str:
        """Where its client came from, if it belongs to no token."""
        account = account_of(self.owner)
        return "" if account.startswith(TOKEN) else account


@dataclass(frozen=True, slots=True)
class Filter:
    """Which sequences: all that is given has to be true of one. `sees` says of which models."""

    ids: frozenset[str] = frozenset()
    model: str = ""
    version: int = 0
    owner: str = ""  # the label, or the name of the token
    wheres: frozenset[Where] = frozenset()
    idle: float = 0.0
    sees: Callable[[str], bool] = lambda _: True
    stranded: Callable[[Listed], bool] | None = None

    def may_match(self, record: Record) -> bool:
        """Whether it is worth reading: quick."""
        return record.reason is None and (not self.ids or record.id in self.ids) and self._is_of(record.model)

    def matches(self, one: Listed) -> bool:
        return (
            (not self.ids or one.id in self.ids)
            and self._is_of(one.model)
            and self.version in (0, one.version)
            and self.owner in ("", one.label, one.token)
            and (not self.wheres or one.where in self.wheres)
            and one.idle >= self.idle
            and (self.stranded is None or self.stranded(one))
        )

    def _is_of(self, model: str) -> bool:
        return self.model in ("", model) and self.sees(model)


def seen(sequence: ServedSequence, now: float) -> Listed:
    """A sequence that is open here, at a time of the monotonic clock."""
    model, slot = sequence.model, sequence.slot
    if slot < 0:
        steps, where, idle = sequence.steps, Where.ASLEEP, 0.0
    else:
        steps, where, idle = model.slots.done.item(slot), Where.OPEN, now - model.watermarks.seen.item(slot)
    who = sequence.id, sequence.owner, model.name, model.version
    return Listed(*who, steps, where, max(0.0, idle), here=True, fence=sequence.fence)


def listed(record: Record, here: Listed | None) -> Listed:
    """A record of the store; what is open here is known better."""
    size = sum(map(len, record.checkpoints))
    if here is not None:
        idle = max(0.0, record.seconds) if here.where is Where.ASLEEP else here.idle
        return replace(here, bytes=size, idle=idle, checkpointed=record.steps[0] if record.steps else None)
    version, step = 0, max(record.steps, default=0)
    for data in record.checkpoints[:1]:
        try:
            version = checkpoint.version_of(data)
        except CheckpointRefused:
            version = 0
    return Listed(
        record.id,
        record.owner,
        record.model,
        version,
        step,
        Where.OPEN if record.awake else Where.PARKED,
        max(0.0, record.seconds),
        step if record.steps else None,
        size,
        fence=record.fence,
    )
