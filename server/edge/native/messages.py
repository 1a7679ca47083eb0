"""Our words to and from the messages of the contract. Translates; decides nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from server.edge.native import descriptions
from server.errors import BadInput, OverLimit, Reason, Refusal, TidegateError, WrongState
from server.runtime.input_check import Named
from server.runtime.state_value import LATEST, Part
from server.streams.events import (
    Answered,
    Checkpointed,
    Closed,
    Event,
    Failed,
    FleetAnswered,
    Form,
    Moved,
    Opened,
    Released,
    Rewound,
    StateRead,
)
from server.streams.trace import CELL, GATES, HIDDEN, Manner, Selection
from tidegate import wire
from tidegate.v1 import error_pb2, sequence_pb2, tensor_pb2

_PARTS = {
    sequence_pb2.TraceSelection.PART_HIDDEN: HIDDEN,
    sequence_pb2.TraceSelection.PART_CELL: CELL,
    sequence_pb2.TraceSelection.PART_GATES: GATES,
}
_MAX_TENSORS = 64  # inputs of one message
_MAX_PARTS = 1_024  # of a state
_MAX_SELECTED = 1_024  # parts and layers that a trace selection may name
_MORE = bytes([sequence_pb2.StreamResponse.MORE_FIELD_NUMBER << 3 | 2])  # how protobuf begins an element of `more`
_BUNDLE_BYTES = 2**16  # past this a message gains nothing from being shared


def named_inputs(tensors: Sequence[tensor_pb2.Tensor]) -> Named:
    """The tensors of a request as arrays.

    Raises:
        BadInput: a tensor that contradicts itself.
        OverLimit: too many of them.
    """
    _check_count("tensors", len(tensors), _MAX_TENSORS)
    try:
        return [(tensor.name, wire.decode(tensor)) for tensor in tensors]
    except wire.WireError as error:
        raise BadInput(error.message, Reason(error.reason)) from error


def _check_count(what: str, count: int, limit: int) -> None:
    """Whether so many may come, before any of them is looked at. Raises OverLimit."""
    if count > limit:
        raise OverLimit(f"{count} {what} came; {limit} is the limit")


def numbers(data: bytes, dtype: str, what: str) -> np.ndarray:
    """An array of one number a sequence, written as little-endian bytes."""
    if len(data) % np.dtype(dtype).itemsize:
        raise BadInput(f"{what} hold {len(data)} bytes, which is no whole number of {dtype}", Reason.WRONG_SIZE)
    return np.frombuffer(data, dtype).astype(np.int64)


def manner(message: sequence_pb2.Open | sequence_pb2.Resume) -> Manner:
    """How a client wants to be answered."""
    return Manner(selection(message.trace), wants_values(message.encoding), message.bundle, message.announce)


@dataclass(frozen=True, eq=False)
class Beginning:
    """See stream.Beginning."""

    step: int
    parts: list[Part]


def beginning(message: sequence_pb2.State) -> Beginning:
    """The state that a new sequence begins from.

    Raises:
        BadInput: a tensor that contradicts itself.
        WrongState: a step beyond all that a sequence can take.
    """
    if message.step > LATEST:
        raise WrongState(f"the state is of step {message.step}; a sequence can begin up to step {LATEST}")
    _check_count("parts of a state", len(message.parts), _MAX_PARTS)
    given = [(part.layer, part.name, part.value) for part in message.parts]
    try:
        parts = [Part(None if layer < 0 else layer, name, wire.decode(value)) for layer, name, value in given]
    except wire.WireError as error:
        raise BadInput(error.message, Reason(error.reason)) from error
    return Beginning(message.step, parts)


def selection(message: sequence_pb2.TraceSelection) -> Selection:
    """What of the inside a client wants to see."""
    _check_count("parts and layers of a trace selection", len(message.parts) + len(message.layers), _MAX_SELECTED)
    unknown = [part for part in message.parts if part not in _PARTS]
    if unknown:
        raise BadInput(f"the trace selection names part {unknown[0]}, which is unknown", Reason.BAD_TRACE)
    parts = frozenset(_PARTS[part] for part in message.parts)
    return Selection(message.none, parts, frozenset(message.layers), max(1, message.every))


class Writer:
    """Serialises the events of one stream, several in a message where their sequences allow it.

    The answer to a single step is nearly all that a stream ever sends, and differs from the one before in three fields:
    its message is kept and filled again.

    Args:
        max_message: the largest request that is taken, in bytes, for the client to know.
    """

    def __init__(self, max_message: int) -> None:
        self._max_message = max_message
        self._single: dict[tuple[Form, bool], _Single] = {}

    def bundle(self, events: Sequence[Event]) -> tuple[bytes, int]:
        """The next message, and how many of the events, in their order, it tells the client of: at least one."""
        message = self._write(events[0])
        if len(events) == 1 or not _may_share(events[0]):
            return message, 1
        pieces, size = [message], len(message)
        for event in islice(events, 1, None):
            if size >= _BUNDLE_BYTES or not _may_share(event):
                break
            message = self._write(event)
            pieces += (_MORE, encode_length(len(message)), message)
            size += len(message)
        return b"".join(pieces), 1 + len(pieces) // 3

    def _write(self, event: Event) -> bytes:
        """The message that tells the client of one event."""
        match event:
            case Answered():
                return self._answers(event)
            case FleetAnswered():
                return _fleet(event)
            case Failed():
                return sequence_pb2.StreamResponse(failure=_failure(event)).SerializeToString()
            case Opened():
                return sequence_pb2.StreamResponse(opened=_opened(event, self._max_message)).SerializeToString()
            case Closed():
                closed = sequence_pb2.Closed(handle=event.handle, count=len(event.steps), steps=event.steps)
                return sequence_pb2.StreamResponse(closed=closed).SerializeToString()
            case _:
                return _rare(event).SerializeToString()

    def _answers(self, event: Answered) -> bytes:
        if event.form.values or len(event.outputs[0]) > 1:
            return _answers(event).SerializeToString()
        key = event.form, event.trace is not None
        single = self._single.get(key)
        if single is None:
            single = self._single[key] = _Single(_answers(event))
        return single.fill(event)


def _may_share(event: Event) -> bool:
    return isinstance(event, Answered | FleetAnswered) and event.form.bundle


def encode_length(length: int) -> bytes:
    """A length as protobuf writes it before the bytes of a field."""
    digits = bytearray()
    while length > 0x7F:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    digits.append(length)
    return bytes(digits)


class _Single:
    """The answer to one step, its numbers as bytes, to be filled again and again."""

    def __init__(self, message: sequence_pb2.StreamResponse) -> None:
        self._message = message
        self._answers = message.answers
        self._outputs = list(message.answers.outputs)

    def fill(self, event: Answered) -> bytes:
        """The message for another step of the same form."""
        self._answers.handle = event.handle
        self._answers.first_step = event.first_step
        self._answers.checkpointed = event.checkpointed
        for tensor, array in zip(self._outputs, event.outputs, strict=True):
            tensor.data = array.tobytes()
        if event.trace is not None:
            self._answers.trace.data = event.trace.tobytes()
        return self._message.SerializeToString()


def _answers(event: Answered) -> sequence_pb2.StreamResponse:
    message = sequence_pb2.StreamResponse()
    message.answers.handle = event.handle
    message.answers.first_step = event.first_step
    message.answers.checkpointed = event.checkpointed
    _fill(message.answers, event)
    return message


def _fleet(event: FleetAnswered) -> bytes:
    message = sequence_pb2.StreamResponse()
    answers = message.fleet
    answers.handles = event.handles.astype("<u4").tobytes()
    answers.steps = event.steps.astype("<u8").tobytes()
    if event.checkpointed.any():
        answers.checkpointed = event.checkpointed.astype("<u8").tobytes()
    _fill(answers, event)
    return message.SerializeToString()


def _fill(message: sequence_pb2.Answers | sequence_pb2.FleetAnswers, event: Answered | FleetAnswered) -> None:
    encoding = _encoding(event.form.values)
    for name, array in zip(event.form.names, event.outputs, strict=True):
        wire.encode_to(message.outputs.add(), name, array, encoding)
    if event.trace is not None:
        wire.encode_to(message.trace, "", event.trace, encoding)


def _encoding(values: bool) -> tensor_pb2.Encoding:
    return tensor_pb2.ENCODING_VALUES if values else tensor_pb2.ENCODING_RAW


def _rare(event: Checkpointed | Released | StateRead | Rewound | Moved) -> sequence_pb2.StreamResponse:
    """What is said of a sequence beside its answers."""
    message = sequence_pb2.StreamResponse()
    match event:
        case Checkpointed():
            message.checkpointed.handles = event.handles.astype("<u4").tobytes()
            message.checkpointed.steps = event.steps.astype("<u8").tobytes()
        case Released():
            message.released.handles.extend(event.handles)
            message.released.error.CopyFrom(_error(event.error))
        case StateRead():
            state = sequence_pb2.State(model=event.model, version=event.version, step=event.step)
            for part in event.parts:
                added = state.parts.add(layer=-1 if part.layer is None else part.layer, name=part.name)
                wire.encode_to(added.value, "", part.value)
            message.state.handle = event.handle
            message.state.state.CopyFrom(state)
        case Rewound():
            message.rewound.handle, message.rewound.next_step = event.handle, event.step
        case Moved():
            moved = sequence_pb2.Moved(handle=event.handle, version=event.version, next_step=event.step)
            moved.trace.extend(descriptions.columns(event.columns))
            message.moved.CopyFrom(moved)
    return message


def _error(error: TidegateError) -> error_pb2.Error:
    return error_pb2.Error(reason=error.reason, message=str(error))  # type: ignore[arg-type] # an enum's int


def _failure(event: Failed) -> sequence_pb2.Failure:
    return sequence_pb2.Failure(
        handles=event.handles,
        first_step=event.first_step,
        expected_steps=event.expected,
        error=_error(event.error),
        request=event.request,
    )


def _opened(event: Opened, max_message: int) -> sequence_pb2.Opened:
    return sequence_pb2.Opened(
        handle=event.handle,
        sequence_ids=event.ids,
        model=event.model,
        version=event.version,
        trace=descriptions.columns(event.columns),
        max_message_bytes=max_message,
        resume_token=event.token,
        next_steps=event.steps,
    )


def tensors(arrays: Mapping[str, np.ndarray], values: bool) -> list[tensor_pb2.Tensor]:
    """Outputs by name."""
    return [wire.encode(name, array, _encoding(values)) for name, array in arrays.items()]


def trace(array: np.ndarray | None, values: bool) -> tensor_pb2.Tensor | None:
    """A trace, or nothing."""
    return None if array is None else wire.encode("", array, _encoding(values))


def wants_values(encoding: int) -> bool:
    """Whether answers are to be written as numbers.

    Raises:
        Refusal: an encoding that is unknown.
    """
    if encoding not in (tensor_pb2.ENCODING_UNSPECIFIED, tensor_pb2.ENCODING_RAW, tensor_pb2.ENCODING_VALUES):
        raise Refusal(f"encoding {encoding} is unknown")
    return encoding == tensor_pb2.ENCODING_VALUES


def concerned(request: sequence_pb2.StreamRequest) -> tuple[tuple[int, ...], int]:
    """The handles that a request is about, and its first step."""
    match request.WhichOneof("request"):
        case "steps":
            return (request.steps.handle,), request.steps.first_step
        case "fleet":
            handles, steps = request.fleet.handles, request.fleet.steps
            first = int.from_bytes(steps[:8], "little")
            return tuple(np.frombuffer(handles[: len(handles) // 4 * 4], "<u4").tolist()), first
        case "open":
            return (request.open.handle,), 0
        case "close":
            return (request.close.handle,), 0
        case "resume":
            first = request.resume.handle
            return tuple(range(first, first + len(request.resume.sequence_ids))), 0
        case "read_state":
            return (request.read_state.handle,), 0
        case "rewind":
            return (request.rewind.handle,), request.rewind.step
        case "move":
            return (request.move.handle,), 0
    return (), 0
