from tidegate.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CellKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CELL_KIND_UNSPECIFIED: _ClassVar[CellKind]
    CELL_KIND_RNN: _ClassVar[CellKind]
    CELL_KIND_LSTM: _ClassVar[CellKind]
    CELL_KIND_GRU: _ClassVar[CellKind]

class StateHome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_HOME_UNSPECIFIED: _ClassVar[StateHome]
    STATE_HOME_SERVER: _ClassVar[StateHome]
    STATE_HOME_INTERFACE: _ClassVar[StateHome]
    STATE_HOME_LOOP: _ClassVar[StateHome]
    STATE_HOME_RESET: _ClassVar[StateHome]
    STATE_HOME_RING: _ClassVar[StateHome]

class ModelStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATUS_UNSPECIFIED: _ClassVar[ModelStatus]
    MODEL_STATUS_LOADING: _ClassVar[ModelStatus]
    MODEL_STATUS_READY: _ClassVar[ModelStatus]
    MODEL_STATUS_REFUSED: _ClassVar[ModelStatus]
CELL_KIND_UNSPECIFIED: CellKind
CELL_KIND_RNN: CellKind
CELL_KIND_LSTM: CellKind
CELL_KIND_GRU: CellKind
STATE_HOME_UNSPECIFIED: StateHome
STATE_HOME_SERVER: StateHome
STATE_HOME_INTERFACE: StateHome
STATE_HOME_LOOP: StateHome
STATE_HOME_RESET: StateHome
STATE_HOME_RING: StateHome
MODEL_STATUS_UNSPECIFIED: ModelStatus
MODEL_STATUS_LOADING: ModelStatus
MODEL_STATUS_READY: ModelStatus
MODEL_STATUS_REFUSED: ModelStatus

class TensorSpec(_message.Message):
    __slots__ = ("name", "type", "shape", "features", "units", "columns", "classes", "timestamp", "time_format", "time_step", "series")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    TIME_FORMAT_FIELD_NUMBER: _ClassVar[int]
    TIME_STEP_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: _tensor_pb2.DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    features: _containers.RepeatedScalarFieldContainer[str]
    units: _containers.RepeatedScalarFieldContainer[str]
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    classes: _containers.RepeatedScalarFieldContainer[str]
    timestamp: _containers.RepeatedScalarFieldContainer[str]
    time_format: str
    time_step: str
    series: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., type: _Optional[_Union[_tensor_pb2.DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., features: _Optional[_Iterable[str]] = ..., units: _Optional[_Iterable[str]] = ..., columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ..., classes: _Optional[_Iterable[str]] = ..., timestamp: _Optional[_Iterable[str]] = ..., time_format: _Optional[str] = ..., time_step: _Optional[str] = ..., series: _Optional[_Iterable[str]] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("missing", "categories", "lowest", "highest", "calendar", "source", "ahead")
    MISSING_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    LOWEST_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_FIELD_NUMBER: _ClassVar[int]
    CALENDAR_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    missing: bool
    categories: _containers.RepeatedScalarFieldContainer[str]
    lowest: float
    highest: float
    calendar: str
    source: str
    ahead: int
    def __init__(self, missing: bool = ..., categories: _Optional[_Iterable[str]] = ..., lowest: _Optional[float] = ..., highest: _Optional[float] = ..., calendar: _Optional[str] = ..., source: _Optional[str] = ..., ahead: _Optional[int] = ...) -> None: ...

class Layer(_message.Message):
    __slots__ = ("index", "kind", "node", "input_size", "hidden_size", "gates", "activations", "quantised", "cell")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    INPUT_SIZE_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_SIZE_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    QUANTISED_FIELD_NUMBER: _ClassVar[int]
    CELL_FIELD_NUMBER: _ClassVar[int]
    index: int
    kind: CellKind
    node: str
    input_size: int
    hidden_size: int
    gates: _containers.RepeatedScalarFieldContainer[str]
    activations: _containers.RepeatedScalarFieldContainer[str]
    quantised: bool
    cell: str
    def __init__(self, index: _Optional[int] = ..., kind: _Optional[_Union[CellKind, str]] = ..., node: _Optional[str] = ..., input_size: _Optional[int] = ..., hidden_size: _Optional[int] = ..., gates: _Optional[_Iterable[str]] = ..., activations: _Optional[_Iterable[str]] = ..., quantised: bool = ..., cell: _Optional[str] = ...) -> None: ...

class StateSpec(_message.Message):
    __slots__ = ("layer", "name", "shape", "home", "loop", "unseen")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    HOME_FIELD_NUMBER: _ClassVar[int]
    LOOP_FIELD_NUMBER: _ClassVar[int]
    UNSEEN_FIELD_NUMBER: _ClassVar[int]
    layer: int
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    home: StateHome
    loop: str
    unseen: str
    def __init__(self, layer: _Optional[int] = ..., name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., home: _Optional[_Union[StateHome, str]] = ..., loop: _Optional[str] = ..., unseen: _Optional[str] = ...) -> None: ...

class TraceColumns(_message.Message):
    __slots__ = ("layer", "name", "offset", "size")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    layer: int
    name: str
    offset: int
    size: int
    def __init__(self, layer: _Optional[int] = ..., name: _Optional[str] = ..., offset: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class Proof(_message.Message):
    __slots__ = ("max_error", "tolerance", "steps", "rounding", "unread", "narrowed")
    MAX_ERROR_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    ROUNDING_FIELD_NUMBER: _ClassVar[int]
    UNREAD_FIELD_NUMBER: _ClassVar[int]
    NARROWED_FIELD_NUMBER: _ClassVar[int]
    max_error: float
    tolerance: float
    steps: int
    rounding: float
    unread: str
    narrowed: Narrowed
    def __init__(self, max_error: _Optional[float] = ..., tolerance: _Optional[float] = ..., steps: _Optional[int] = ..., rounding: _Optional[float] = ..., unread: _Optional[str] = ..., narrowed: _Optional[_Union[Narrowed, _Mapping]] = ...) -> None: ...

class Narrowed(_message.Message):
    __slots__ = ("weights", "error", "share", "steps")
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    weights: str
    error: float
    share: float
    steps: int
    def __init__(self, weights: _Optional[str] = ..., error: _Optional[float] = ..., share: _Optional[float] = ..., steps: _Optional[int] = ...) -> None: ...

class Window(_message.Message):
    __slots__ = ("steps", "last")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    steps: int
    last: bool
    def __init__(self, steps: _Optional[int] = ..., last: bool = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "status", "reason", "inputs", "outputs", "layers", "trace", "state_bytes", "sha256", "proof", "metadata", "states", "remarks", "window")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    REMARKS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    status: ModelStatus
    reason: str
    inputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    layers: _containers.RepeatedCompositeFieldContainer[Layer]
    trace: _containers.RepeatedCompositeFieldContainer[TraceColumns]
    state_bytes: int
    sha256: str
    proof: Proof
    metadata: _containers.ScalarMap[str, str]
    states: _containers.RepeatedCompositeFieldContainer[StateSpec]
    remarks: _containers.RepeatedScalarFieldContainer[str]
    window: Window
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., status: _Optional[_Union[ModelStatus, str]] = ..., reason: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., layers: _Optional[_Iterable[_Union[Layer, _Mapping]]] = ..., trace: _Optional[_Iterable[_Union[TraceColumns, _Mapping]]] = ..., state_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., proof: _Optional[_Union[Proof, _Mapping]] = ..., metadata: _Optional[_Mapping[str, str]] = ..., states: _Optional[_Iterable[_Union[StateSpec, _Mapping]]] = ..., remarks: _Optional[_Iterable[str]] = ..., window: _Optional[_Union[Window, _Mapping]] = ...) -> None: ...
