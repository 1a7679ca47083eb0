"""Translates a client's messages of the contract into the types of the rooms below. Decides nothing."""

from collections.abc import Callable, Sequence

import numpy as np

from server.edge.exchanges.dialect import Bundle
from server.edge.fields import NOTHING, SMALL, Beside, Buffer, Cut, cut, parsed, split
from server.edge.native.plain_steps import Layouts, PlainSteps
from server.errors import BadInput, OverLimit, Reason, Refusal, WrongState
from server.runtime.input_check import Named
from server.runtime.state_value import LATEST, Part
from server.streams.opening import Beginning
from server.streams.trace import CELL, EVERY, GATES, HIDDEN, Manner, Selection
from tidegate import wire
from tidegate.v1 import sequence_pb2, tensor_pb2, tidegate_pb2

_PARTS = {
    sequence_pb2.TraceSelection.PART_HIDDEN: HIDDEN,
    sequence_pb2.TraceSelection.PART_CELL: CELL,
    sequence_pb2.TraceSelection.PART_GATES: GATES,
}
_MAX_REQUESTS = 1_024  # of a bundle
_LARGE = 2**19  # bytes that gRPC copies in half a millisecond or more
_MAX_TENSORS = 64  # inputs of one message
_MAX_PARTS = 1_024  # of a state
_MAX_SELECTED = 1_024  # parts and layers that a trace selection may name
_MORE = sequence_pb2.StreamRequest.MORE_FIELD_NUMBER
_LAST_HANDLE = 2**32 - 1  # as an answer can name it


Read = PlainSteps | sequence_pb2.StreamRequest | Cut[sequence_pb2.StreamRequest] | Refusal


def reader(limit: int) -> Callable[[Buffer], Read | Bundle]:
    """A deserialiser. For a message that cannot be taken it returns the refusal, so that the stream goes on."""
    layouts = Layouts()

    def read(data: Buffer) -> Read | Bundle:
        size = len(data)
        try:
            if isinstance(data, bytes) and size <= min(SMALL, limit):
                plain = layouts.read(data)
                if plain and len(plain) <= _MAX_REQUESTS:
                    return plain[0] if len(plain) == 1 else Bundle(plain)
            if size > limit:
                raise OverLimit(f"a message of {size} bytes came; {limit} is the limit. Send smaller chunks or fleets")
            if size <= SMALL:
                request = parsed(sequence_pb2.StreamRequest, data)
                layouts.learn(request)
                return _bundle(request) if request.more else request
            parts = split(data, _MORE, _MAX_REQUESTS)
            if len(parts) > 1 or size > _LARGE:
                return Bundle(map(_single, parts), size > _LARGE, apart=True)
            further = _cut(data)
            return _bundle(further) if isinstance(further, sequence_pb2.StreamRequest) and further.more else further
        except Refusal as refusal:
            return refusal

    return read


def _cut(data: Buffer) -> sequence_pb2.StreamRequest | Cut[sequence_pb2.StreamRequest]:
    """Without what it has not."""
    request = cut(sequence_pb2.StreamRequest, data)
    return request if request.beside else request.message


def _bundle(request: sequence_pb2.StreamRequest) -> Bundle:
    if len(request.more) >= _MAX_REQUESTS:
        raise OverLimit(f"a bundle of {len(request.more) + 1} requests came; {_MAX_REQUESTS} may")
    for further in request.more:
        _check_single(further)
    return Bundle((request, *request.more))


def _single(data: Buffer) -> Read:
    try:
        request = _cut(data)
        _check_single(request.message if isinstance(request, Cut) else request)
    except Refusal as refusal:
        return refusal
    return request


def _check_single(request: sequence_pb2.StreamRequest) -> None:
    if request.more:
        raise BadInput("a bundle came in a bundle", Reason.MALFORMED)


def named_inputs(tensors: Sequence[tensor_pb2.Tensor], beside: Beside = NOTHING) -> Named:
    """The tensors of a request as arrays; the numbers of large ones lie beside it.

    Raises:
        BadInput: a tensor that contradicts itself.
        OverLimit: too many of them.
    """
    if len(tensors) > _MAX_TENSORS:
        check_count("tensors", len(tensors), _MAX_TENSORS)
    named = []
    try:
        for tensor in tensors:
            data = beside.get(tensor.data) if beside else None
            named.append((tensor.name, wire.decode(tensor, data)))  # a comprehension is one more call a step
    except wire.WireError as error:
        raise BadInput(error.message, Reason(error.reason)) from error
    return named


def single_steps(requests: Sequence[Read]) -> tuple[list[int], list[int], Named, list[int]] | None:
    """Handles, steps, inputs [N, ...] and numbers of answers of requests that are all steps with one input, and alike.

    None: they are not.
    """
    if type(first_of := requests[0]) is PlainSteps:
        layout = first_of.layout
        plain = [each for each in requests if type(each) is PlainSteps and each.layout is layout]
        if len(plain) < len(requests):
            return None
        handles, steps, answered = [x.handle for x in plain], [x.first_step for x in plain], [x.answered for x in plain]
        return handles, steps, [(layout.name, joined(plain))], answered
    return _single_steps(requests)


def joined(plain: Sequence[PlainSteps]) -> np.ndarray:
    """The inputs [N, ...] of requests of one layout."""
    layout = plain[0].layout
    return np.ndarray((len(plain), *layout.shape), layout.dtype, b"".join([each.data for each in plain]))


def _single_steps(requests: Sequence[Read]) -> tuple[list[int], list[int], Named, list[int]] | None:
    handles, steps, answered, data = list[int](), list[int](), list[int](), list[bytes]()
    first: tensor_pb2.Tensor | None = None
    for request in requests:
        if type(request) is not sequence_pb2.StreamRequest or not request.HasField("steps"):
            return None
        taken = request.steps
        if len(taken.inputs) != 1:
            return None
        tensor = taken.inputs[0]
        if first is None:
            first, name, type_, shape = tensor, tensor.name, tensor.type, tensor.shape
        elif tensor.shape != shape or tensor.type != type_ or tensor.name != name or tensor.values:
            return None
        handles.append(taken.handle)
        steps.append(taken.first_step)
        answered.append(taken.answered)
        data.append(tensor.data)
    try:
        row = wire.decode(first) if first is not None else None
    except wire.WireError:
        return None
    if row is None or not row.size or row.dtype.kind == "b" or set(map(len, data)) != {row.nbytes}:
        return None
    x = np.frombuffer(b"".join(data), row.dtype).reshape(len(data), *row.shape)
    return handles, steps, [(name, x)], answered


def check_count(what: str, count: int, limit: int) -> None:
    """Whether there may be so many. Raises OverLimit."""
    if count > limit:
        raise OverLimit(f"{count} {what} came; {limit} is the limit")


def numbers(data: Buffer, dtype: str, what: str) -> np.ndarray:
    """An array with one number for each sequence, from little-endian bytes."""
    if len(data) % np.dtype(dtype).itemsize:
        raise BadInput(f"{what} hold {len(data)} bytes, which is no whole number of {dtype}", Reason.WRONG_SIZE)
    return np.frombuffer(data, dtype).astype(np.int64)


def manner(message: sequence_pb2.Open | sequence_pb2.Resume) -> Manner:
    """How a client wants to be answered."""
    return Manner(selection(message.trace), wants_values(message.encoding), message.bundle, message.announce)


def beginning(message: sequence_pb2.Open, beside: Beside = NOTHING) -> Beginning:
    """What a new sequence begins from.

    Raises:
        BadInput: a tensor that contradicts itself.
        WrongState: the step is beyond the last that a sequence can have.
    """
    seed, state = seed_of(message), message.state
    if not message.HasField("state"):
        return Beginning(seed=seed)
    if state.step > LATEST:
        raise WrongState(f"the state is of step {state.step}; a sequence can begin up to step {LATEST}")
    check_count("parts of a state", len(state.parts), _MAX_PARTS)
    given = [(part.layer, part.name, part.value) for part in state.parts]
    try:
        parts = [
            Part(None if layer < 0 else layer, name, wire.decode(value, beside.get(value.data)))
            for layer, name, value in given
        ]
    except wire.WireError as error:
        raise BadInput(error.message, Reason(error.reason)) from error
    return Beginning(state.step, parts)


def seed_of(message: sequence_pb2.Open | tidegate_pb2.PredictRequest) -> int | None:
    return message.seed if message.HasField("seed") else None


def selection(message: sequence_pb2.TraceSelection) -> Selection:
    """The part of the trace that a client asks for."""
    check_count("parts and layers of a trace selection", len(message.parts) + len(message.layers), _MAX_SELECTED)
    unknown = [part for part in message.parts if part not in _PARTS]
    if unknown:
        raise BadInput(f"the trace selection names part {unknown[0]}, which is unknown", Reason.BAD_TRACE)
    parts = frozenset(_PARTS[part] for part in message.parts) or EVERY
    return Selection(message.none, parts, frozenset(message.layers) or EVERY, max(1, message.every))


def wants_values(encoding: int) -> bool:
    """Whether answers are to be written as numbers. Raises Refusal: the encoding is unknown."""
    if encoding not in (tensor_pb2.ENCODING_UNSPECIFIED, tensor_pb2.ENCODING_RAW, tensor_pb2.ENCODING_VALUES):
        raise Refusal(f"encoding {encoding} is unknown")
    return encoding == tensor_pb2.ENCODING_VALUES


def concerned(
    request: PlainSteps | sequence_pb2.StreamRequest, most: int, beside: Beside = NOTHING
) -> tuple[np.ndarray, int]:
    """The handles that a request is about, or the first of them if there are more than `most`, and its first step."""
    if isinstance(request, PlainSteps):
        return np.array([request.handle]), request.first_step
    kind = request.WhichOneof("request")
    match kind:
        case "steps":
            return np.array([request.steps.handle]), request.steps.first_step
        case "fleet":
            handles, steps = (beside.get(x, x) for x in (request.fleet.handles, request.fleet.steps))
            count = _named(len(handles) // 4, most)
            return np.frombuffer(handles, "<u4", count), int.from_bytes(steps[:8], "little")
        case "resume":
            first, count = request.resume.handle, _named(len(request.resume.sequence_ids), most)
            return np.arange(first, min(first + count, _LAST_HANDLE + 1)), 0
        case "rewind":
            return np.array([request.rewind.handle]), request.rewind.step
        case None:
            return np.zeros(0, np.int64), 0
    return np.array([getattr(request, kind).handle]), 0


def _named(count: int, most: int) -> int:
    return count if count <= most else 1
