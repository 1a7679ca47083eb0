from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_MALFORMED: _ClassVar[Reason]
    REASON_WRONG_NAME: _ClassVar[Reason]
    REASON_WRONG_SHAPE: _ClassVar[Reason]
    REASON_WRONG_TYPE: _ClassVar[Reason]
    REASON_WRONG_SIZE: _ClassVar[Reason]
    REASON_NOT_FINITE: _ClassVar[Reason]
    REASON_WRONG_STEP: _ClassVar[Reason]
    REASON_TOO_LARGE: _ClassVar[Reason]
    REASON_BAD_TRACE: _ClassVar[Reason]
    REASON_STEP_FAILED: _ClassVar[Reason]
    REASON_OUT_OF_RANGE: _ClassVar[Reason]
    REASON_UNKNOWN_MODEL: _ClassVar[Reason]
    REASON_UNKNOWN_VERSION: _ClassVar[Reason]
    REASON_MODEL_NOT_READY: _ClassVar[Reason]
    REASON_MODEL_REFUSED: _ClassVar[Reason]
    REASON_UNKNOWN_HANDLE: _ClassVar[Reason]
    REASON_HANDLE_IN_USE: _ClassVar[Reason]
    REASON_UNKNOWN_SEQUENCE: _ClassVar[Reason]
    REASON_WRONG_TOKEN: _ClassVar[Reason]
    REASON_SEQUENCE_ENDED: _ClassVar[Reason]
    REASON_SEQUENCE_EXPIRED: _ClassVar[Reason]
    REASON_SEQUENCE_EVICTED: _ClassVar[Reason]
    REASON_TAKEN_OVER: _ClassVar[Reason]
    REASON_CHECKPOINT_GONE: _ClassVar[Reason]
    REASON_WRONG_STATE: _ClassVar[Reason]
    REASON_TOO_MANY_SEQUENCES: _ClassVar[Reason]
    REASON_TOO_MANY_STREAMS: _ClassVar[Reason]
    REASON_DRAINING: _ClassVar[Reason]
    REASON_INTERNAL: _ClassVar[Reason]
    REASON_TOO_MANY_OF_OWNER: _ClassVar[Reason]
    REASON_STORE_FULL: _ClassVar[Reason]
    REASON_STORE_UNAVAILABLE: _ClassVar[Reason]
    REASON_SEQUENCE_RUNNING: _ClassVar[Reason]
    REASON_UNAUTHENTICATED: _ClassVar[Reason]
    REASON_PERMISSION_DENIED: _ClassVar[Reason]
    REASON_TOO_FAST: _ClassVar[Reason]
REASON_UNSPECIFIED: Reason
REASON_MALFORMED: Reason
REASON_WRONG_NAME: Reason
REASON_WRONG_SHAPE: Reason
REASON_WRONG_TYPE: Reason
REASON_WRONG_SIZE: Reason
REASON_NOT_FINITE: Reason
REASON_WRONG_STEP: Reason
REASON_TOO_LARGE: Reason
REASON_BAD_TRACE: Reason
REASON_STEP_FAILED: Reason
REASON_OUT_OF_RANGE: Reason
REASON_UNKNOWN_MODEL: Reason
REASON_UNKNOWN_VERSION: Reason
REASON_MODEL_NOT_READY: Reason
REASON_MODEL_REFUSED: Reason
REASON_UNKNOWN_HANDLE: Reason
REASON_HANDLE_IN_USE: Reason
REASON_UNKNOWN_SEQUENCE: Reason
REASON_WRONG_TOKEN: Reason
REASON_SEQUENCE_ENDED: Reason
REASON_SEQUENCE_EXPIRED: Reason
REASON_SEQUENCE_EVICTED: Reason
REASON_TAKEN_OVER: Reason
REASON_CHECKPOINT_GONE: Reason
REASON_WRONG_STATE: Reason
REASON_TOO_MANY_SEQUENCES: Reason
REASON_TOO_MANY_STREAMS: Reason
REASON_DRAINING: Reason
REASON_INTERNAL: Reason
REASON_TOO_MANY_OF_OWNER: Reason
REASON_STORE_FULL: Reason
REASON_STORE_UNAVAILABLE: Reason
REASON_SEQUENCE_RUNNING: Reason
REASON_UNAUTHENTICATED: Reason
REASON_PERMISSION_DENIED: Reason
REASON_TOO_FAST: Reason

class Error(_message.Message):
    __slots__ = ("reason", "message", "retry_after_ms")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    reason: Reason
    message: str
    retry_after_ms: int
    def __init__(self, reason: _Optional[_Union[Reason, str]] = ..., message: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...
