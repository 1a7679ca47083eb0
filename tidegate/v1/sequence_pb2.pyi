from tidegate.v1 import error_pb2 as _error_pb2
from tidegate.v1 import model_pb2 as _model_pb2
from tidegate.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TraceSelection(_message.Message):
    __slots__ = ("none", "parts", "layers", "every")
    class Part(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PART_UNSPECIFIED: _ClassVar[TraceSelection.Part]
        PART_HIDDEN: _ClassVar[TraceSelection.Part]
        PART_CELL: _ClassVar[TraceSelection.Part]
        PART_GATES: _ClassVar[TraceSelection.Part]
    PART_UNSPECIFIED: TraceSelection.Part
    PART_HIDDEN: TraceSelection.Part
    PART_CELL: TraceSelection.Part
    PART_GATES: TraceSelection.Part
    NONE_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    EVERY_FIELD_NUMBER: _ClassVar[int]
    none: bool
    parts: _containers.RepeatedScalarFieldContainer[TraceSelection.Part]
    layers: _containers.RepeatedScalarFieldContainer[int]
    every: int
    def __init__(self, none: bool = ..., parts: _Optional[_Iterable[_Union[TraceSelection.Part, str]]] = ..., layers: _Optional[_Iterable[int]] = ..., every: _Optional[int] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("handle", "count", "model", "version", "trace", "encoding", "bundle", "state", "owner", "announce", "seed")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    handle: int
    count: int
    model: str
    version: int
    trace: TraceSelection
    encoding: _tensor_pb2.Encoding
    bundle: bool
    state: State
    owner: str
    announce: bool
    seed: int
    def __init__(self, handle: _Optional[int] = ..., count: _Optional[int] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., trace: _Optional[_Union[TraceSelection, _Mapping]] = ..., encoding: _Optional[_Union[_tensor_pb2.Encoding, str]] = ..., bundle: bool = ..., state: _Optional[_Union[State, _Mapping]] = ..., owner: _Optional[str] = ..., announce: bool = ..., seed: _Optional[int] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("handle", "sequence_ids", "resume_token", "answered", "trace", "encoding", "bundle", "announce")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_IDS_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCE_FIELD_NUMBER: _ClassVar[int]
    handle: int
    sequence_ids: _containers.RepeatedScalarFieldContainer[str]
    resume_token: str
    answered: _containers.RepeatedScalarFieldContainer[int]
    trace: TraceSelection
    encoding: _tensor_pb2.Encoding
    bundle: bool
    announce: bool
    def __init__(self, handle: _Optional[int] = ..., sequence_ids: _Optional[_Iterable[str]] = ..., resume_token: _Optional[str] = ..., answered: _Optional[_Iterable[int]] = ..., trace: _Optional[_Union[TraceSelection, _Mapping]] = ..., encoding: _Optional[_Union[_tensor_pb2.Encoding, str]] = ..., bundle: bool = ..., announce: bool = ...) -> None: ...

class Steps(_message.Message):
    __slots__ = ("handle", "first_step", "inputs", "answered")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    handle: int
    first_step: int
    inputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    answered: int
    def __init__(self, handle: _Optional[int] = ..., first_step: _Optional[int] = ..., inputs: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., answered: _Optional[int] = ...) -> None: ...

class FleetSteps(_message.Message):
    __slots__ = ("handles", "steps", "inputs", "answered")
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    handles: bytes
    steps: bytes
    inputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    answered: bytes
    def __init__(self, handles: _Optional[bytes] = ..., steps: _Optional[bytes] = ..., inputs: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., answered: _Optional[bytes] = ...) -> None: ...

class Close(_message.Message):
    __slots__ = ("handle", "count", "park")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    PARK_FIELD_NUMBER: _ClassVar[int]
    handle: int
    count: int
    park: bool
    def __init__(self, handle: _Optional[int] = ..., count: _Optional[int] = ..., park: bool = ...) -> None: ...

class ReadState(_message.Message):
    __slots__ = ("handle",)
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    handle: int
    def __init__(self, handle: _Optional[int] = ...) -> None: ...

class Rewind(_message.Message):
    __slots__ = ("handle", "step")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    handle: int
    step: int
    def __init__(self, handle: _Optional[int] = ..., step: _Optional[int] = ...) -> None: ...

class Move(_message.Message):
    __slots__ = ("handle", "version")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    handle: int
    version: int
    def __init__(self, handle: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...

class StreamRequest(_message.Message):
    __slots__ = ("open", "steps", "fleet", "close", "resume", "read_state", "rewind", "move", "more")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    FLEET_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    READ_STATE_FIELD_NUMBER: _ClassVar[int]
    REWIND_FIELD_NUMBER: _ClassVar[int]
    MOVE_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    open: Open
    steps: Steps
    fleet: FleetSteps
    close: Close
    resume: Resume
    read_state: ReadState
    rewind: Rewind
    move: Move
    more: _containers.RepeatedCompositeFieldContainer[StreamRequest]
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., steps: _Optional[_Union[Steps, _Mapping]] = ..., fleet: _Optional[_Union[FleetSteps, _Mapping]] = ..., close: _Optional[_Union[Close, _Mapping]] = ..., resume: _Optional[_Union[Resume, _Mapping]] = ..., read_state: _Optional[_Union[ReadState, _Mapping]] = ..., rewind: _Optional[_Union[Rewind, _Mapping]] = ..., move: _Optional[_Union[Move, _Mapping]] = ..., more: _Optional[_Iterable[_Union[StreamRequest, _Mapping]]] = ...) -> None: ...

class State(_message.Message):
    __slots__ = ("model", "version", "step", "parts")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    step: int
    parts: _containers.RepeatedCompositeFieldContainer[StatePart]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., step: _Optional[int] = ..., parts: _Optional[_Iterable[_Union[StatePart, _Mapping]]] = ...) -> None: ...

class StatePart(_message.Message):
    __slots__ = ("layer", "name", "value")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    layer: int
    name: str
    value: _tensor_pb2.Tensor
    def __init__(self, layer: _Optional[int] = ..., name: _Optional[str] = ..., value: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("handle", "sequence_ids", "model", "version", "trace", "max_message_bytes", "resume_token", "next_steps")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEPS_FIELD_NUMBER: _ClassVar[int]
    handle: int
    sequence_ids: _containers.RepeatedScalarFieldContainer[str]
    model: str
    version: int
    trace: _containers.RepeatedCompositeFieldContainer[_model_pb2.TraceColumns]
    max_message_bytes: int
    resume_token: str
    next_steps: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, handle: _Optional[int] = ..., sequence_ids: _Optional[_Iterable[str]] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., trace: _Optional[_Iterable[_Union[_model_pb2.TraceColumns, _Mapping]]] = ..., max_message_bytes: _Optional[int] = ..., resume_token: _Optional[str] = ..., next_steps: _Optional[_Iterable[int]] = ...) -> None: ...

class Answers(_message.Message):
    __slots__ = ("handle", "first_step", "outputs", "trace", "checkpointed")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTED_FIELD_NUMBER: _ClassVar[int]
    handle: int
    first_step: int
    outputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    trace: _tensor_pb2.Tensor
    checkpointed: int
    def __init__(self, handle: _Optional[int] = ..., first_step: _Optional[int] = ..., outputs: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., trace: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., checkpointed: _Optional[int] = ...) -> None: ...

class FleetAnswers(_message.Message):
    __slots__ = ("handles", "steps", "outputs", "trace", "checkpointed")
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTED_FIELD_NUMBER: _ClassVar[int]
    handles: bytes
    steps: bytes
    outputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    trace: _tensor_pb2.Tensor
    checkpointed: bytes
    def __init__(self, handles: _Optional[bytes] = ..., steps: _Optional[bytes] = ..., outputs: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., trace: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., checkpointed: _Optional[bytes] = ...) -> None: ...

class Closed(_message.Message):
    __slots__ = ("handle", "count", "steps")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    handle: int
    count: int
    steps: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, handle: _Optional[int] = ..., count: _Optional[int] = ..., steps: _Optional[_Iterable[int]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("handles", "first_step", "expected_steps", "error", "request")
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_STEPS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    handles: _containers.RepeatedScalarFieldContainer[int]
    first_step: int
    expected_steps: _containers.RepeatedScalarFieldContainer[int]
    error: _error_pb2.Error
    request: str
    def __init__(self, handles: _Optional[_Iterable[int]] = ..., first_step: _Optional[int] = ..., expected_steps: _Optional[_Iterable[int]] = ..., error: _Optional[_Union[_error_pb2.Error, _Mapping]] = ..., request: _Optional[str] = ...) -> None: ...

class Checkpointed(_message.Message):
    __slots__ = ("handles", "steps")
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    handles: bytes
    steps: bytes
    def __init__(self, handles: _Optional[bytes] = ..., steps: _Optional[bytes] = ...) -> None: ...

class Released(_message.Message):
    __slots__ = ("handles", "error")
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    handles: _containers.RepeatedScalarFieldContainer[int]
    error: _error_pb2.Error
    def __init__(self, handles: _Optional[_Iterable[int]] = ..., error: _Optional[_Union[_error_pb2.Error, _Mapping]] = ...) -> None: ...

class SequenceState(_message.Message):
    __slots__ = ("handle", "state")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    handle: int
    state: State
    def __init__(self, handle: _Optional[int] = ..., state: _Optional[_Union[State, _Mapping]] = ...) -> None: ...

class Rewound(_message.Message):
    __slots__ = ("handle", "next_step")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEP_FIELD_NUMBER: _ClassVar[int]
    handle: int
    next_step: int
    def __init__(self, handle: _Optional[int] = ..., next_step: _Optional[int] = ...) -> None: ...

class Moved(_message.Message):
    __slots__ = ("handle", "version", "next_step", "trace")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEP_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    handle: int
    version: int
    next_step: int
    trace: _containers.RepeatedCompositeFieldContainer[_model_pb2.TraceColumns]
    def __init__(self, handle: _Optional[int] = ..., version: _Optional[int] = ..., next_step: _Optional[int] = ..., trace: _Optional[_Iterable[_Union[_model_pb2.TraceColumns, _Mapping]]] = ...) -> None: ...

class StreamResponse(_message.Message):
    __slots__ = ("opened", "answers", "fleet", "closed", "failure", "checkpointed", "released", "state", "rewound", "moved", "more")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    FLEET_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTED_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REWOUND_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    answers: Answers
    fleet: FleetAnswers
    closed: Closed
    failure: Failure
    checkpointed: Checkpointed
    released: Released
    state: SequenceState
    rewound: Rewound
    moved: Moved
    more: _containers.RepeatedCompositeFieldContainer[StreamResponse]
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., answers: _Optional[_Union[Answers, _Mapping]] = ..., fleet: _Optional[_Union[FleetAnswers, _Mapping]] = ..., closed: _Optional[_Union[Closed, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., checkpointed: _Optional[_Union[Checkpointed, _Mapping]] = ..., released: _Optional[_Union[Released, _Mapping]] = ..., state: _Optional[_Union[SequenceState, _Mapping]] = ..., rewound: _Optional[_Union[Rewound, _Mapping]] = ..., moved: _Optional[_Union[Moved, _Mapping]] = ..., more: _Optional[_Iterable[_Union[StreamResponse, _Mapping]]] = ...) -> None: ...
