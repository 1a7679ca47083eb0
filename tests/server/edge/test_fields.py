"""What protobuf would take long to read is refused before it reads it, and honest messages of any size are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.edge import fields
from server.edge.exchanges.dialect import Bundle
from server.edge.fields import Beside, Cut, check_fields, cut
from server.edge.native import requests
from server.edge.oip.requests import asked
from server.edge.oip.stubs import grpc_service_pb2 as pb
from server.errors import OverLimit, Reason, Refusal
from tests.raw_stream import fleet, open_, steps
from tidegate import wire
from tidegate.v1.sequence_pb2 import FleetSteps, Open, Resume, State, StatePart, Steps, StreamRequest
from tidegate.v1.tensor_pb2 import Tensor
from tidegate.v1.tidegate_pb2 import PredictRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from server.runtime.input_check import Named

SIZE = 2 * 2**20  # bytes
IDS = [f"route-{number:026}" for number in range(65_536)]


def within(number: int, body: bytes) -> bytes:
    """A field that has a length."""
    head = bytearray([number << 3 | 2])
    size = len(body)
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*head, size]) + body


def again(field: bytes) -> bytes:
    return field * (SIZE // len(field))


HOSTILE = {
    "empty requests": again(within(15, b"")),
    "requests that open nothing": again(within(15, within(1, b""))),
    "one request that is overwritten": again(within(1, b"")),
    "two requests in turn": again(within(1, b"") + within(2, b"")),
    "tensors": within(2, again(within(3, b""))),
    "parts of a state": within(1, within(8, again(within(4, b"")))),
    "axes, each by itself": within(2, within(3, again(b"\x18\x01"))),
    "axes together": within(2, within(3, within(3, again(b"\x01")))),
    "layers of a trace": within(1, within(5, within(3, again(b"\x01")))),
    "ids": within(5, again(within(2, b""))),
    "ids of two lengths": within(5, again(within(2, b"") + within(2, b"a"))),
    "fields that mean nothing": again(b"\xf8\x7f\x01"),
}
STATE = State(
    parts=[{"layer": n, "name": "hidden", "value": Tensor(type=1, shape=[1], data=bytes(4))} for n in range(20)]
)
HONEST = {
    "ids of all sequences": StreamRequest(resume=Resume(sequence_ids=IDS, answered=[1] * len(IDS))),
    "a fleet": fleet(range(50_000), [0] * 50_000, np.ones((50_000, 3), np.float32)),
    "a chunk": steps(0, 0, np.ones((100_000, 3), np.float32)),
    "a chunk written by hand": StreamRequest(steps=Steps(inputs=[Tensor(values=[0.5] * 100_000)])),
    "a bundle": StreamRequest(more=[steps(n, 2**40, np.ones((1, 30), np.float32)) for n in range(1_023)]),
    "states": StreamRequest(more=[open_(n, state=STATE) for n in range(1_023)]),
    "a state": open_(state=State(parts=[{"name": "hidden", "value": Tensor(data=bytes(1_000))}] * 1_000)),
}


def read(data: bytes) -> list[StreamRequest | Refusal]:
    """The requests of a message, each with its large values in their places."""
    received = requests.reader(2**24)(data)
    return [whole(one) for one in (received.requests if isinstance(received, Bundle) else [received])]


def whole(request: Cut[StreamRequest] | StreamRequest | Refusal) -> StreamRequest | Refusal:
    if isinstance(request, Cut):
        put_back(request.message, request.beside)
        return request.message
    return request


def put_back(message: Message, beside: Beside) -> None:
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if field.is_repeated else [value]:
                put_back(one, beside)
        elif field.type == field.TYPE_BYTES:
            setattr(message, field.name, bytes(beside.get(value, value)))


LARGE = np.arange(2**19, dtype=np.float32).reshape(-1, 4)  # 2 MiB
TENSOR = wire.encode("x", LARGE)
MANY = {
    "a chunk": StreamRequest(steps=Steps(handle=7, first_step=2**40, inputs=[TENSOR])),
    "a fleet": StreamRequest(fleet=FleetSteps(handles=bytes(2**19), steps=bytes(2**20), inputs=[TENSOR])),
    "a state": StreamRequest(open=Open(model="m", state=State(parts=[StatePart(name="hidden", value=TENSOR)] * 2))),
}


@pytest.mark.parametrize("kind", MANY)
@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview])
def test_large_values_stay_where_they_came_and_the_message_is_what_it_was(
    kind: str, buffer: Callable[..., Any]
) -> None:
    data = buffer(MANY[kind].SerializeToString())
    read = cut(StreamRequest, data)
    assert read.message.ByteSize() < 1_000
    there = np.frombuffer(data, np.uint8)
    assert all(np.shares_memory(there, np.frombuffer(value, np.uint8)) for value in read.beside.values())
    assert whole(read) == MANY[kind]


def test_numbers_of_a_large_request_are_not_copied_in_either_protocol() -> None:
    native = PredictRequest(model="m", inputs=[TENSOR])
    oip = pb.ModelInferRequest(model_name="m", raw_input_contents=[LARGE.tobytes()])
    oip.inputs.add(name="x", datatype="FP32", shape=LARGE.shape)
    taken: list[tuple[Any, Callable[[Any], Named]]] = [
        (native, lambda come: requests.named_inputs(come.message.inputs, come.beside)),
        (oip, lambda come: asked(come).inputs),
    ]
    for message, inputs in taken:
        data = message.SerializeToString()
        ((name, x),) = inputs(cut(type(message), data))
        assert name == "x"
        assert np.array_equal(x, LARGE)
        assert np.shares_memory(x, np.frombuffer(data, np.uint8))
        assert not x.flags.writeable


def test_what_a_client_writes_in_place_of_a_large_value_is_its_value() -> None:
    mark = next(iter(cut(StreamRequest, MANY["a chunk"].SerializeToString()).beside))
    forged = StreamRequest(steps=Steps(inputs=[TENSOR, Tensor(name="y", type=8, shape=[16], data=mark)]))
    read = cut(StreamRequest, forged.SerializeToString())
    assert mark not in read.beside
    assert whole(read) == forged


@pytest.mark.parametrize("message", HOSTILE.values(), ids=HOSTILE)
def test_a_message_of_very_many_fields_is_refused_before_it_is_read(message: bytes) -> None:
    for refusal in read(message):
        assert isinstance(refusal, OverLimit)
        assert refusal.reason is Reason.TOO_LARGE
        assert "too many fields" in str(refusal)


@pytest.mark.parametrize("message", HONEST.values(), ids=HONEST)
def test_a_large_message_of_an_honest_client_is_read(message: StreamRequest) -> None:
    more = list(message.more)
    message.ClearField("more")
    assert read(StreamRequest(more=more).SerializeToString() + message.SerializeToString()) == [message, *more]


def test_a_prediction_of_very_many_fields_is_refused_before_it_is_read() -> None:
    with pytest.raises(OverLimit, match="too many fields"):
        requests.cut(PredictRequest, again(within(3, b"")))


def test_requests_in_requests_without_end_are_no_message() -> None:
    message = b""
    while len(message) < 100_000:
        message = within(15, message)
    assert any(isinstance(request, Refusal) for request in read(message))


@given(st.binary(max_size=60), st.sampled_from(sorted(HONEST)), st.floats(0, 1), st.floats(0, 1))
def test_what_is_damaged_anywhere_is_refused_or_read_and_breaks_nothing(
    damage: bytes, name: str, length: float, at: float
) -> None:
    message = HONEST[name].SerializeToString()
    place = int(at * len(message))
    spoilt = (message[:place] + damage + message[place + len(damage) :])[: int(length * len(message)) + 1]
    assert all(isinstance(request, StreamRequest | Refusal) for request in read(spoilt))


def test_what_is_looked_at_is_in_proportion_to_a_message_whose_fields_change_their_length_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[int] = []
    frombuffer = np.frombuffer

    def noted(data: bytes, kind: type[np.uint8], count: int = -1, offset: int = 0) -> np.ndarray:
        looked.append(count)
        return frombuffer(data, kind, count, offset)

    monkeypatch.setattr(np, "frombuffer", noted)
    ids = [f"route-{number:0{20 + number // 2 % 2}}" for number in range(10_000)]
    message = StreamRequest(resume=Resume(sequence_ids=ids, answered=bytes(10_000)))
    data = message.SerializeToString()
    check_fields(data, StreamRequest)
    assert sum(looked) < 64 * len(data)


@pytest.mark.parametrize("kind", ["inputs", "outputs", "parameters"])
def test_a_few_thousand_fields_are_looked_at_one_by_one_and_no_more(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    field = fields._field
    monkeypatch.setattr(fields, "_field", lambda data, at: looked.append(at) or field(data, at))
    message = pb.ModelInferRequest()
    for number in range(20_000):
        if kind == "parameters":
            message.parameters[f"{number}"].bool_param = True
        else:
            getattr(message, kind).add(name="a" * (number % 7))
    with pytest.raises(OverLimit, match="too many fields"):
        check_fields(message.SerializeToString(), pb.ModelInferRequest)
    assert len(looked) < 6_000
