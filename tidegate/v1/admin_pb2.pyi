from tidegate.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SequenceLife(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEQUENCE_LIFE_UNSPECIFIED: _ClassVar[SequenceLife]
    SEQUENCE_LIFE_OPEN: _ClassVar[SequenceLife]
    SEQUENCE_LIFE_ASLEEP: _ClassVar[SequenceLife]
    SEQUENCE_LIFE_PARKED: _ClassVar[SequenceLife]
SEQUENCE_LIFE_UNSPECIFIED: SequenceLife
SEQUENCE_LIFE_OPEN: SequenceLife
SEQUENCE_LIFE_ASLEEP: SequenceLife
SEQUENCE_LIFE_PARKED: SequenceLife

class SequenceFilter(_message.Message):
    __slots__ = ("ids", "model", "version", "owner", "lives", "idle_seconds", "stranded")
    IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    LIVES_FIELD_NUMBER: _ClassVar[int]
    IDLE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STRANDED_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    model: str
    version: int
    owner: str
    lives: _containers.RepeatedScalarFieldContainer[SequenceLife]
    idle_seconds: float
    stranded: bool
    def __init__(self, ids: _Optional[_Iterable[str]] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., owner: _Optional[str] = ..., lives: _Optional[_Iterable[_Union[SequenceLife, str]]] = ..., idle_seconds: _Optional[float] = ..., stranded: bool = ...) -> None: ...

class SequenceInfo(_message.Message):
    __slots__ = ("id", "model", "version", "steps", "life", "owner", "token", "address", "idle_seconds", "checkpointed", "checkpoint_bytes", "here", "moves_to", "stranded")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LIFE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    IDLE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTED_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_BYTES_FIELD_NUMBER: _ClassVar[int]
    HERE_FIELD_NUMBER: _ClassVar[int]
    MOVES_TO_FIELD_NUMBER: _ClassVar[int]
    STRANDED_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    version: int
    steps: int
    life: SequenceLife
    owner: str
    token: str
    address: str
    idle_seconds: float
    checkpointed: int
    checkpoint_bytes: int
    here: bool
    moves_to: int
    stranded: bool
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., steps: _Optional[int] = ..., life: _Optional[_Union[SequenceLife, str]] = ..., owner: _Optional[str] = ..., token: _Optional[str] = ..., address: _Optional[str] = ..., idle_seconds: _Optional[float] = ..., checkpointed: _Optional[int] = ..., checkpoint_bytes: _Optional[int] = ..., here: bool = ..., moves_to: _Optional[int] = ..., stranded: bool = ...) -> None: ...

class ListSequencesRequest(_message.Message):
    __slots__ = ("filter",)
    FILTER_FIELD_NUMBER: _ClassVar[int]
    filter: SequenceFilter
    def __init__(self, filter: _Optional[_Union[SequenceFilter, _Mapping]] = ...) -> None: ...

class ListSequencesResponse(_message.Message):
    __slots__ = ("sequences",)
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    sequences: _containers.RepeatedCompositeFieldContainer[SequenceInfo]
    def __init__(self, sequences: _Optional[_Iterable[_Union[SequenceInfo, _Mapping]]] = ...) -> None: ...

class EndSequencesRequest(_message.Message):
    __slots__ = ("filter",)
    FILTER_FIELD_NUMBER: _ClassVar[int]
    filter: SequenceFilter
    def __init__(self, filter: _Optional[_Union[SequenceFilter, _Mapping]] = ...) -> None: ...

class EndSequencesResponse(_message.Message):
    __slots__ = ("ended", "kept")
    ENDED_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    ended: _containers.RepeatedScalarFieldContainer[str]
    kept: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ended: _Optional[_Iterable[str]] = ..., kept: _Optional[_Iterable[str]] = ...) -> None: ...

class DescribeStoreRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeStoreResponse(_message.Message):
    __slots__ = ("kind", "place", "answers", "sequences", "parked", "tombstones", "checkpoint_bytes", "taken_bytes", "most_bytes", "fault")
    KIND_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    PARKED_FIELD_NUMBER: _ClassVar[int]
    TOMBSTONES_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_BYTES_FIELD_NUMBER: _ClassVar[int]
    TAKEN_BYTES_FIELD_NUMBER: _ClassVar[int]
    MOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    place: str
    answers: bool
    sequences: int
    parked: int
    tombstones: int
    checkpoint_bytes: int
    taken_bytes: int
    most_bytes: int
    fault: str
    def __init__(self, kind: _Optional[str] = ..., place: _Optional[str] = ..., answers: bool = ..., sequences: _Optional[int] = ..., parked: _Optional[int] = ..., tombstones: _Optional[int] = ..., checkpoint_bytes: _Optional[int] = ..., taken_bytes: _Optional[int] = ..., most_bytes: _Optional[int] = ..., fault: _Optional[str] = ...) -> None: ...

class CheckStoreRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckStoreResponse(_message.Message):
    __slots__ = ("done", "sequences", "parked", "tombstones", "checkpoints", "checkpoint_bytes", "faults", "versions")
    DONE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    PARKED_FIELD_NUMBER: _ClassVar[int]
    TOMBSTONES_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_BYTES_FIELD_NUMBER: _ClassVar[int]
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    done: bool
    sequences: int
    parked: int
    tombstones: int
    checkpoints: int
    checkpoint_bytes: int
    faults: _containers.RepeatedScalarFieldContainer[str]
    versions: _containers.RepeatedCompositeFieldContainer[VersionCount]
    def __init__(self, done: bool = ..., sequences: _Optional[int] = ..., parked: _Optional[int] = ..., tombstones: _Optional[int] = ..., checkpoints: _Optional[int] = ..., checkpoint_bytes: _Optional[int] = ..., faults: _Optional[_Iterable[str]] = ..., versions: _Optional[_Iterable[_Union[VersionCount, _Mapping]]] = ...) -> None: ...

class VersionCount(_message.Message):
    __slots__ = ("model", "version", "sequences", "stranded")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    STRANDED_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    sequences: int
    stranded: bool
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., sequences: _Optional[int] = ..., stranded: bool = ...) -> None: ...

class BackUpStoreRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BackUpStoreResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class RestoreStoreRequest(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class RestoreStoreResponse(_message.Message):
    __slots__ = ("restored", "kept", "gone")
    RESTORED_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    restored: int
    kept: int
    gone: int
    def __init__(self, restored: _Optional[int] = ..., kept: _Optional[int] = ..., gone: _Optional[int] = ...) -> None: ...

class ListVersionsRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class Versions(_message.Message):
    __slots__ = ("model", "versions", "pinned", "aliases", "canary", "moves", "unloaded", "fault")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    MOVES_FIELD_NUMBER: _ClassVar[int]
    UNLOADED_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    model: str
    versions: _containers.RepeatedCompositeFieldContainer[VersionInfo]
    pinned: int
    aliases: _containers.RepeatedCompositeFieldContainer[VersionAlias]
    canary: VersionCanary
    moves: _containers.RepeatedCompositeFieldContainer[VersionMove]
    unloaded: bool
    fault: str
    def __init__(self, model: _Optional[str] = ..., versions: _Optional[_Iterable[_Union[VersionInfo, _Mapping]]] = ..., pinned: _Optional[int] = ..., aliases: _Optional[_Iterable[_Union[VersionAlias, _Mapping]]] = ..., canary: _Optional[_Union[VersionCanary, _Mapping]] = ..., moves: _Optional[_Iterable[_Union[VersionMove, _Mapping]]] = ..., unloaded: bool = ..., fault: _Optional[str] = ...) -> None: ...

class VersionInfo(_message.Message):
    __slots__ = ("version", "status", "reason", "open", "withdrawn", "here")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    HERE_FIELD_NUMBER: _ClassVar[int]
    version: int
    status: _model_pb2.ModelStatus
    reason: str
    open: int
    withdrawn: bool
    here: bool
    def __init__(self, version: _Optional[int] = ..., status: _Optional[_Union[_model_pb2.ModelStatus, str]] = ..., reason: _Optional[str] = ..., open: _Optional[int] = ..., withdrawn: bool = ..., here: bool = ...) -> None: ...

class VersionAlias(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class VersionCanary(_message.Message):
    __slots__ = ("version", "share")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    version: int
    share: float
    def __init__(self, version: _Optional[int] = ..., share: _Optional[float] = ...) -> None: ...

class VersionMove(_message.Message):
    __slots__ = ("to",)
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    to: int
    def __init__(self, to: _Optional[int] = ..., **kwargs) -> None: ...

class ChangeVersionsRequest(_message.Message):
    __slots__ = ("model", "pin", "alias", "canary", "load", "unload", "move")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PIN_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    UNLOAD_FIELD_NUMBER: _ClassVar[int]
    MOVE_FIELD_NUMBER: _ClassVar[int]
    model: str
    pin: int
    alias: VersionAlias
    canary: VersionCanary
    load: int
    unload: int
    move: VersionMove
    def __init__(self, model: _Optional[str] = ..., pin: _Optional[int] = ..., alias: _Optional[_Union[VersionAlias, _Mapping]] = ..., canary: _Optional[_Union[VersionCanary, _Mapping]] = ..., load: _Optional[int] = ..., unload: _Optional[int] = ..., move: _Optional[_Union[VersionMove, _Mapping]] = ...) -> None: ...
