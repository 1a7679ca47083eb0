"""Translates the events of a stream into the contract's messages. Decides nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from server.durability.pieces import pieces
from server.edge import status
from server.edge.exchanges.dialect import Large, Outgoing, Whole
from server.edge.native import descriptions
from server.edge.pieces import PIECE, Message, Numbers, Part, field, made_of
from server.edge.prediction import Prediction
from server.edge.varints import VARINT
from server.errors import TidegateError
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
    SeveralAnswered,
    StateRead,
)
from server.streams.replies import SHARED
from tidegate import wire
from tidegate.v1 import error_pb2, sequence_pb2, tensor_pb2, tidegate_pb2
from tidegate.varints import tag

Answer = Answered | FleetAnswered

_MANY = 4_096  # ids that are written without a break: half a millisecond
_U4, _U8, _F8 = np.dtype("<u4"), np.dtype("<u8"), np.dtype("<f8")


_ANSWERS, _MORE, _OPENED = (tag(sequence_pb2.StreamResponse, name, 2) for name in ("answers", "more", "opened"))
_HANDLE, _FIRST_STEP, _CHECKPOINTED = (
    tag(sequence_pb2.Answers, name, 0) for name in ("handle", "first_step", "checkpointed")
)
_OUTPUT, _TRACE = (tag(sequence_pb2.Answers, name, 2) for name in ("outputs", "trace"))  # others have the same
_FLEET = tag(sequence_pb2.StreamResponse, "fleet", 2)
_HANDLES, _STEPS, _SAFE = (tag(sequence_pb2.FleetAnswers, name, 2) for name in ("handles", "steps", "checkpointed"))
_CONCERNED, _EXPECTED = (tag(sequence_pb2.Failure, name, 2) for name in ("handles", "expected_steps"))
_GONE = tag(sequence_pb2.Released, "handles", 2)
_DATA, _VALUES = (tag(tensor_pb2.Tensor, name, 2) for name in ("data", "values"))


class Writer:
    """Serialises the events of one stream, several answers in a message where their sequences allow it.

    Most events are answers to a single step; the bytes that such answers have in common are kept.

    Args:
        max_message: the largest request that is taken, in bytes, for the client to know.
    """

    def __init__(self, max_message: int) -> None:
        self._max_message = max_message
        self._single: dict[tuple[Form, bool], _Single] = {}

    def bundle(self, events: Sequence[Outgoing]) -> tuple[Sequence[Message], int]:
        """See Dialect."""
        first = events[0]
        if len(events) == 1 and type(first) is Answered:  # nearly always
            return (self.answer(first),), 1
        if isinstance(first, bytes):
            return (first,), 1
        if isinstance(first, Whole):
            return (first.message,), 1
        if isinstance(first, SeveralAnswered):
            messages = self.several(first)
            return (_together(messages),) if first.form.bundle else messages, 1
        assert isinstance(first, Answer)
        message = self.answer(first)
        if len(events) == 1 or not first.form.bundle or not isinstance(message, bytes):
            return (message,), 1
        those, size = [message], len(message)
        for event in islice(events, 1, None):
            if size >= SHARED or not isinstance(event, Answer) or not event.form.bundle:
                break
            if isinstance(event, SeveralAnswered):
                break
            if not isinstance(message := self.answer(event), bytes):
                break
            those.append(message)
            size += len(message)
        return (_together(those),), len(those)

    def answer(self, event: Answer) -> Message:
        """The message for one answer."""
        if isinstance(event, FleetAnswered):
            return _fleet(event)
        if len(event.outputs[0]) > 1 or event.form.values or event.size > PIECE:
            return _answered(event)
        return self._template(event).write(event)

    def _template(self, event: Answer) -> "_Single":
        key = event.form, event.trace is not None
        single = self._single.get(key)
        if single is None:
            single = self._single[key] = _Single(event)
        return single

    def several(self, event: SeveralAnswered) -> list[bytes]:
        """The messages for its answers."""
        if event.form.values:
            return [bytes(_answered(each)) for each in event.apart()]
        return self._template(event).write_all(event)

    def write(self, event: Event) -> bytes | Large:
        """The message for one event that is no answer."""
        message = sequence_pb2.StreamResponse()
        if isinstance(event, Opened):
            message.opened.max_message_bytes = self._max_message
            if len(event.ids) > _MANY:
                return Large(len(event.ids) * (len(event.ids[0]) + 8), partial(_opened, message.opened, event))
        _fill(message, event)
        return message.SerializeToString()


async def _opened(opened: sequence_pb2.Opened, event: Opened) -> bytes:
    """The message of very many sequences that were opened: lists go on in what is appended to a message."""
    _fill_opened(opened, replace(event, ids=(), steps=()))
    parts = [opened.SerializeToString()]
    async for part in pieces(len(event.ids), _MANY):
        more = sequence_pb2.Opened(sequence_ids=event.ids[part], next_steps=event.steps[part])
        parts.append(more.SerializeToString())
    body = b"".join(parts)
    return _OPENED + VARINT[len(body)] + body


class _Single:
    """Writes answers to single steps of one form: keeps the bytes that they have in common, as protobuf writes them.

    No message is used again instead: protobuf keeps all bytes values that a message was ever given.
    """

    def __init__(self, event: Answer) -> None:
        named = zip(event.form.names, event.outputs, strict=True)
        self._outputs = [_OUTPUT + _tensor_head(name, array[:1], values=False) for name, array in named]
        self._trace = b"" if event.trace is None else _TRACE + _tensor_head("", event.trace[:1], values=False)

    def write(self, event: Answered) -> bytes:
        """The message for a step of this form."""
        parts = _numbers(event)
        for head, array in zip(self._outputs, event.outputs, strict=True):
            parts += (head, array.tobytes())
        if event.trace is not None:
            parts += (self._trace, event.trace.tobytes())
        body = b"".join(parts)
        return _ANSWERS + VARINT[len(body)] + body

    def write_all(self, event: SeveralAnswered) -> list[bytes]:
        """The messages for a step of this form of each of several sequences."""
        heads, arrays = self._outputs, list(event.outputs)
        if event.trace is not None:
            heads, arrays = [*heads, self._trace], [*arrays, event.trace]
        rows = [(head, x.tobytes(), x.nbytes // len(x)) for head, x in zip(heads, arrays, strict=True)]
        numbers = zip(event.handles.tolist(), event.steps.tolist(), event.checkpointed.tolist(), strict=True)
        messages = list[bytes]()
        for at, (handle, step, safe) in enumerate(numbers):
            parts = [_HANDLE, VARINT[handle], _FIRST_STEP, VARINT[step], _CHECKPOINTED, VARINT[safe]]
            for head, data, size in rows:
                parts += (head, data[at * size : (at + 1) * size])
            body = b"".join(parts)
            messages.append(_ANSWERS + VARINT[len(body)] + body)
        return messages


def _together(messages: Sequence[bytes]) -> bytes:
    """One message of several."""
    parts = [messages[0]]
    for each in messages[1:]:
        parts += (_MORE, VARINT[len(each)], each)
    return b"".join(parts)


def _numbers(event: Answered) -> list[bytes]:
    """The fields of an answer beside its tensors."""
    numbers = _HANDLE, VARINT[event.handle], _FIRST_STEP, VARINT[event.first_step]
    return [*numbers, _CHECKPOINTED, VARINT[event.checkpointed]]


def _answered(event: Answered) -> Message:
    return made_of(field(_ANSWERS, [*_numbers(event), *_results(event)]))


def _fleet(event: FleetAnswered) -> Message:
    parts = [*field(_HANDLES, [Numbers(event.handles, _U4)]), *field(_STEPS, [Numbers(event.steps, _U8)])]
    if event.checkpointed.any():
        parts += field(_SAFE, [Numbers(event.checkpointed, _U8)])
    return made_of(field(_FLEET, [*parts, *_results(event)]))


def _results(event: Answer) -> list[Part]:
    if event.size > PIECE:
        event.kept()
    return _tensors(zip(event.form.names, event.outputs, strict=True), event.trace, event.form.values)


def _tensors(outputs: Iterable[tuple[str, np.ndarray]], trace: np.ndarray | None, values: bool) -> list[Part]:
    """The fields `outputs` and `trace`, which have the same numbers in each message that has them."""
    given = [(_OUTPUT, name, array) for name, array in outputs]
    if trace is not None:
        given.append((_TRACE, "", trace))
    return [
        part
        for tag_, name, array in given
        for part in (tag_ + _tensor_head(name, array, values), Numbers(array, _F8 if values else None))
    ]


def _tensor_head(name: str, array: np.ndarray, values: bool) -> bytes:
    """A tensor's length and its bytes up to its numbers, which are the last of them."""
    tensor = tensor_pb2.Tensor(name=name, type=wire.data_type_of(array.dtype), shape=array.shape)
    size = array.size * (_F8.itemsize if values else array.itemsize)
    head = tensor.SerializeToString() + (_VALUES if values else _DATA) + VARINT[size]
    return VARINT[len(head) + size] + head


def _fill(message: sequence_pb2.StreamResponse, event: Event) -> None:
    """Fills the message for an event in place: a message that is given to another is copied."""
    match event:
        case Failed():
            failure = message.failure
            failure.MergeFromString(_list(_CONCERNED, event.handles, _U4) + _list(_EXPECTED, event.expected, _U8))
            failure.first_step, failure.request = event.first_step, event.request
            _fill_error(failure.error, event.error)
        case Opened():
            _fill_opened(message.opened, event)
        case Closed():
            message.closed.handle, message.closed.count = event.handle, len(event.steps)
            message.closed.steps.extend(event.steps)
        case Checkpointed():
            message.checkpointed.handles, message.checkpointed.steps = _handles(event.handles), _steps(event.steps)
        case Released():
            message.released.MergeFromString(_list(_GONE, event.handles, _U4))
            _fill_error(message.released.error, event.error)
        case StateRead():
            message.state.handle = event.handle
            _fill_state(message.state.state, event)
        case Rewound():
            message.rewound.handle, message.rewound.next_step = event.handle, event.step
        case Moved():
            moved = message.moved
            moved.handle, moved.version, moved.next_step = event.handle, event.version, event.step
            moved.trace.extend(descriptions.columns(event.columns))


def _fill_opened(opened: sequence_pb2.Opened, event: Opened) -> None:
    opened.handle, opened.resume_token = event.handle, event.token
    opened.model, opened.version = event.model, event.version
    opened.sequence_ids.extend(event.ids)
    opened.next_steps.extend(event.steps)
    opened.trace.extend(descriptions.columns(event.columns))


def _fill_state(state: sequence_pb2.State, event: StateRead) -> None:
    state.model, state.version, state.step = event.model, event.version, event.step
    for part in event.parts:
        added = state.parts.add(layer=-1 if part.layer is None else part.layer, name=part.name)
        wire.encode_to(added.value, "", part.value)


def _list(tag_: bytes, numbers: Sequence[int] | np.ndarray, dtype: np.dtype[Any]) -> bytes:
    """A field of numbers of a fixed size: a hundred times quicker than one by one."""
    data = np.asarray(numbers, dtype).tobytes()
    return tag_ + VARINT[len(data)] + data


def _handles(handles: np.ndarray) -> bytes:
    return handles.astype("<u4").tobytes()


def _steps(steps: np.ndarray) -> bytes:
    return steps.astype("<u8").tobytes()


def _fill_error(message: error_pb2.Error, error: TidegateError) -> None:
    message.reason, message.message = error.reason, str(error)  # type: ignore[assignment] # an enum's int
    message.retry_after_ms = status.retry_after_ms(error)


def predicted(made: Prediction, values: bool) -> Message:
    head = tidegate_pb2.PredictResponse(model=made.opened.model, version=made.opened.version)
    head.columns.extend(descriptions.columns(made.opened.columns))
    return made_of([head.SerializeToString(), *_tensors(made.outputs.items(), made.trace, values)])
