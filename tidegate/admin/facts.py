"""What a server says of its sequences, its store and the versions of its models. See proto/tidegate/v1/admin.proto."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any

from google.protobuf.message import Message

from tidegate.v1 import admin_pb2 as pb
from tidegate.v1 import model_pb2


@dataclass(frozen=True, slots=True)
class SequenceInfo:
    """One sequence. `life` is "open", "asleep" (open, and without a step for long) or "parked"."""

    id: str
    model: str
    version: int
    steps: int
    life: str
    owner: str
    token: str  # the name of the token that it belongs to
    address: str  # where its client came from, if it belongs to no token
    idle_seconds: float
    checkpointed: int | None  # the step of the newest checkpoint
    checkpoint_bytes: int
    here: bool  # open on the server that answers
    moves_to: int  # the version that it goes on with once it is resumed; 0: its own
    stranded: bool  # its version is gone, and no rule moves it

    @classmethod
    def read(cls, message: pb.SequenceInfo) -> "SequenceInfo":
        checkpointed = message.checkpointed if message.HasField("checkpointed") else None
        life = _word(pb.SequenceLife, message.life)
        return cls(**values(cls, message, life=life, checkpointed=checkpointed))


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """The store of checkpoints, by its counters."""

    kind: str
    place: str
    answers: bool  # it can be read
    sequences: int
    parked: int
    tombstones: int  # sequences that are gone, of which it is known why
    checkpoint_bytes: int
    taken_bytes: int
    most_bytes: int
    fault: str  # why calls of it failed within the last seconds; if it answers nevertheless: why writes failed


@dataclass(frozen=True, slots=True)
class StoreCheck:
    """What was counted, all faults, and the sequences of each model and version; `stranded` of those that are gone."""

    sequences: int
    parked: int
    tombstones: int
    checkpoints: int
    checkpoint_bytes: int
    faults: tuple[str, ...]
    versions: dict[tuple[str, int], int]
    stranded: frozenset[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Restored:
    """How many records of a backup were put into the store, and how many not: what is there is newer, or has ended."""

    restored: int
    kept: int
    gone: int


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version of a model. `status` is "loading", "ready", "refused", or "" if it is not served."""

    version: int
    status: str
    reason: str
    open: int
    withdrawn: bool
    here: bool


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of a model, and the rules for them. `moves` has 0 for every version that is withdrawn or gone."""

    model: str
    versions: tuple[VersionInfo, ...]
    pinned: int
    aliases: dict[str, int]
    canary: tuple[int, float] | None  # a version, and its share in percent
    moves: dict[int, int]
    unloaded: bool
    fault: str

    @classmethod
    def read(cls, message: pb.Versions) -> "Versions":
        return cls(
            model=message.model,
            versions=tuple(map(_version, message.versions)),
            pinned=message.pinned,
            aliases={alias.name: alias.version for alias in message.aliases},
            canary=(message.canary.version, message.canary.share) if message.HasField("canary") else None,
            moves={getattr(move, "from"): move.to for move in message.moves},
            unloaded=message.unloaded,
            fault=message.fault,
        )


def chosen(
    ids: Collection[str] = (),
    *,
    model: str = "",
    version: int = 0,
    owner: str = "",
    life: Collection[str] = (),
    idle_seconds: float = 0.0,
    stranded: bool = False,
) -> pb.SequenceFilter:
    """Which sequences: all that is given has to be true of one. `owner` is its label or its token's name."""
    lives = [getattr(pb, f"SEQUENCE_LIFE_{word.upper()}") for word in life]
    return pb.SequenceFilter(
        ids=ids, model=model, version=version, owner=owner, lives=lives, idle_seconds=idle_seconds, stranded=stranded
    )


def _version(message: pb.VersionInfo) -> VersionInfo:
    status = _word(model_pb2.ModelStatus, message.status) if message.status else ""
    return VersionInfo(**values(VersionInfo, message, status=status))


def _word(enum: Any, number: int) -> str:  # noqa: ANN401 - of generated code
    """The last word of an enum's value: a number newer than this client stays a number."""
    known = enum.DESCRIPTOR.values_by_number.get(number)
    return known.name.rpartition("_")[2].lower() if known else str(number)


def values(kind: type, message: Message, **others: Any) -> dict[str, Any]:  # noqa: ANN401 - of all types
    """The values of a dataclass that a message has under the same names, and the others."""
    names = [field.name for field in fields(kind) if field.name not in others]
    return others | {name: getattr(message, name) for name in names}
