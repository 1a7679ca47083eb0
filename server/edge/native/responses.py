"""Translates the events of a stream into the contract's messages. Decides nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np

from server.durability.pieces import pieces
from server.edge import status
from server.edge.dialect import Large, Outgoing
from server.edge.native import descriptions
from server.edge.prediction import Prediction
from server.edge.varints import VARINT, tag
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
    StateRead,
)
from tidegate import wire
from tidegate.v1 import error_pb2, sequence_pb2, tensor_pb2, tidegate_pb2

Answer = Answered | FleetAnswered

_MANY = 4_096  # ids that are written without a break: half a millisecond
_BUNDLE_BYTES = 2**16  # past this a message gains nothing from being shared


_ANSWERS, _MORE, _OPENED = (tag(sequence_pb2.StreamResponse, field, 2) for field in ("answers", "more", "opened"))
_HANDLE, _FIRST_STEP, _CHECKPOINTED = (
    tag(sequence_pb2.Answers, field, 0) for field in ("handle", "first_step", "checkpointed")
)
_OUTPUT, _TRACE = (tag(sequence_pb2.Answers, field, 2) for field in ("outputs", "trace"))


class Writer:
    """Serialises the events of one stream, several answers in a message where their sequences allow it.

    Most events are answers to a single step; the bytes that such answers have in common are kept.

    Args:
        max_message: the largest request that is taken, in bytes, for the client to know.
    """

    def __init__(self, max_message: int) -> None:
        self._max_message = max_message
        self._single: dict[tuple[Form, bool], _Single] = {}

    def bundle(self, events: Sequence[Outgoing]) -> tuple[bytes, int]:
        """See Dialect."""
        first = events[0]
        if isinstance(first, bytes):
            return first, 1
        assert isinstance(first, Answer)
        message = self.answer(first)
        if len(events) == 1 or not first.form.bundle:
            return message, 1
        pieces, size = [message], len(message)
        for event in islice(events, 1, None):
            if size >= _BUNDLE_BYTES or not isinstance(event, Answer) or not event.form.bundle:
                break
            message = self.answer(event)
            pieces += (_MORE, VARINT[len(message)], message)
            size += len(message)
        return b"".join(pieces), 1 + len(pieces) // 3

    def answer(self, event: Answer) -> bytes:
        """The message for one answer."""
        if isinstance(event, Answered) and len(event.outputs[0]) == 1 and not event.form.values:
            key = event.form, event.trace is not None
            single = self._single.get(key)
            if single is None:
                message = sequence_pb2.StreamResponse()
                _fill(message, event)
                single = self._single[key] = _Single(message.answers)
            return single.write(event)
        message = sequence_pb2.StreamResponse()
        _fill(message, event)
        return message.SerializeToString()

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

    def __init__(self, answers: sequence_pb2.Answers) -> None:
        self._outputs = [_head(_OUTPUT, tensor) for tensor in answers.outputs]
        self._trace = _head(_TRACE, answers.trace)

    def write(self, event: Answered) -> bytes:
        """The message for a step of this form."""
        numbers = _HANDLE, VARINT[event.handle], _FIRST_STEP, VARINT[event.first_step]
        parts = [*numbers, _CHECKPOINTED, VARINT[event.checkpointed]]
        for head, array in zip(self._outputs, event.outputs, strict=True):
            parts += (head, array.tobytes())
        if event.trace is not None:
            parts += (self._trace, event.trace.tobytes())
        body = b"".join(parts)
        return _ANSWERS + VARINT[len(body)] + body


def _head(tag: bytes, tensor: tensor_pb2.Tensor) -> bytes:
    """The bytes of a tensor as a field up to its data, which are the last of them."""
    written = tensor.SerializeToString()
    return tag + VARINT[len(written)] + written[: len(written) - len(tensor.data)]


def _fill(message: sequence_pb2.StreamResponse, event: Event) -> None:
    """Fills the message for an event in place: a message that is given to another is copied."""
    match event:
        case Answered() | FleetAnswered():
            _fill_answers(message, event)
        case Failed():
            failure = message.failure
            failure.handles.extend(event.handles)
            failure.first_step, failure.request = event.first_step, event.request
            failure.expected_steps.extend(event.expected)
            _fill_error(failure.error, event.error)
        case Opened():
            _fill_opened(message.opened, event)
        case Closed():
            message.closed.handle, message.closed.count = event.handle, len(event.steps)
            message.closed.steps.extend(event.steps)
        case Checkpointed():
            message.checkpointed.handles, message.checkpointed.steps = _handles(event.handles), _steps(event.steps)
        case Released():
            message.released.handles.extend(event.handles)
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


def _fill_answers(message: sequence_pb2.StreamResponse, event: Answered | FleetAnswered) -> None:
    outputs, trace, values = zip(event.form.names, event.outputs, strict=True), event.trace, event.form.values
    if isinstance(event, Answered):
        answers = message.answers
        answers.handle, answers.first_step = event.handle, event.first_step
        answers.checkpointed = event.checkpointed
        _fill_values(answers, outputs, trace, values)
        return
    fleet = message.fleet
    fleet.handles, fleet.steps = _handles(event.handles), _steps(event.steps)
    if event.checkpointed.any():
        fleet.checkpointed = _steps(event.checkpointed)
    _fill_values(fleet, outputs, trace, values)


def _fill_state(state: sequence_pb2.State, event: StateRead) -> None:
    state.model, state.version, state.step = event.model, event.version, event.step
    for part in event.parts:
        added = state.parts.add(layer=-1 if part.layer is None else part.layer, name=part.name)
        wire.encode_to(added.value, "", part.value)


def _handles(handles: np.ndarray) -> bytes:
    return handles.astype("<u4").tobytes()


def _steps(steps: np.ndarray) -> bytes:
    return steps.astype("<u8").tobytes()


def _fill_error(message: error_pb2.Error, error: TidegateError) -> None:
    message.reason, message.message = error.reason, str(error)  # type: ignore[assignment] # an enum's int
    message.retry_after_ms = status.retry_after_ms(error)


def _fill_values(
    message: sequence_pb2.Answers | sequence_pb2.FleetAnswers | tidegate_pb2.PredictResponse,
    outputs: Iterable[tuple[str, np.ndarray]],
    trace: np.ndarray | None,
    values: bool,
) -> None:
    encoding = tensor_pb2.ENCODING_VALUES if values else tensor_pb2.ENCODING_RAW
    for name, array in outputs:
        wire.encode_to(message.outputs.add(), name, array, encoding)
    if trace is not None:
        wire.encode_to(message.trace, "", trace, encoding)


def predicted(made: Prediction, values: bool) -> bytes:
    message = tidegate_pb2.PredictResponse(model=made.opened.model, version=made.opened.version)
    _fill_values(message, made.outputs.items(), made.trace, values)
    message.columns.extend(descriptions.columns(made.opened.columns))
    return message.SerializeToString()
