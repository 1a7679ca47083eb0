"""Steps that are read without protobuf are what protobuf reads; whatever else there is, is left to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.edge.exchanges.dialect import Bundle
from server.edge.fields import Cut
from server.edge.native import plain_steps
from server.edge.native.plain_steps import Layouts, PlainSteps
from server.edge.native.requests import reader
from server.edge.varints import VARINT
from tidegate import wire
from tidegate.v1 import sequence_pb2 as pb
from tidegate.varints import NUMBER

if TYPE_CHECKING:
    from collections.abc import Sequence

NUMBERS = st.one_of(
    st.integers(0, 300), st.sampled_from([127, 128, 2**14 - 1, 2**14, 2**21, 2**28 - 1, 2**28, 2**32 - 1])
)
LONG = st.one_of(NUMBERS, st.sampled_from([2**32, 2**52, 2**56 - 1, 2**56, 2**63, 2**64 - 1]))


def request(handle: int, step: int, answered: int, shape: Sequence[int] = (3,), name: str = "x") -> pb.StreamRequest:
    array = np.arange(handle % 97, handle % 97 + int(np.prod(shape)), dtype=np.float32).reshape(shape)
    steps = pb.Steps(handle=handle, first_step=step, answered=answered, inputs=[wire.encode(name, array)])
    return pb.StreamRequest(steps=steps)


def knowing(*requests: pb.StreamRequest) -> Layouts:
    layouts = Layouts()
    for each in requests:
        layouts.learn(each)
    return layouts


def assert_same(plain: PlainSteps, message: pb.StreamRequest, *, damaged: bool = False) -> None:
    """What is damaged may have numbers that are longer on the wire than protobuf writes them; the wire counts."""
    steps = message.steps
    assert plain.size >= message.ByteSize() if damaged else plain.size == message.ByteSize()
    assert (plain.handle, plain.first_step, plain.answered) == (steps.handle, steps.first_step, steps.answered)
    (tensor,) = steps.inputs
    array = wire.decode(tensor)
    assert plain.layout.name == tensor.name
    assert (plain.input.tobytes(), plain.input.shape, plain.input.dtype) == (array.tobytes(), array.shape, array.dtype)


@given(handle=NUMBERS, step=LONG, answered=LONG, shape=st.sampled_from([(3,), (1, 3), (5, 3), (34,), (200, 8)]))
def test_a_message_is_read_as_protobuf_reads_it(handle: int, step: int, answered: int, shape: tuple[int, ...]) -> None:
    message = request(handle, step, answered, shape)
    read = knowing(request(1, 1, 1), request(0, 0, 0, shape)).read(message.SerializeToString())
    long = handle >= 2**28 or max(step, answered) >= 2**56
    assert bool(read) is not long
    for plain in read:
        assert_same(plain, message)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=2, max_size=40))
def test_a_bundle_is_read_as_protobuf_reads_it(numbers: list[tuple[int, int, int]]) -> None:
    first, *more = (request(*each) for each in numbers)
    first.more.extend(more)
    read = knowing(request(0, 0, 0)).read(first.SerializeToString())
    assert bool(read) is (max(handle for handle, _, _ in numbers) < 2**28)
    for plain, message in zip(read, (first, *more) if read else (), strict=True):
        assert_same(plain, message)


def damaged(message: bytes, data: st.DataObject) -> bytes:
    """A message of which some bytes are others, missing, added, or there twice."""
    whole = bytearray(message)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(whole) - 1))
        match data.draw(st.sampled_from(["change", "cut", "add", "twice"])):
            case "change":
                whole[at] = data.draw(st.integers(0, 255))
            case "cut":
                del whole[at : at + data.draw(st.integers(1, 4))]
            case "add":
                whole[at:at] = data.draw(st.binary(min_size=1, max_size=4))
            case "twice":
                whole += whole[at:]
        if not whole:
            break
    return bytes(whole)


@given(st.data())
def test_a_damaged_message_is_never_read_otherwise_than_protobuf_does(data: st.DataObject) -> None:
    first, *more = (request(at, 200 + at, at) for at in range(data.draw(st.integers(1, 3))))
    first.more.extend(more)
    whole = damaged(first.SerializeToString(), data)
    read = knowing(request(0, 0, 0)).read(whole)
    if read:
        message = pb.StreamRequest.FromString(whole)
        assert len(read) == 1 + len(message.more)
        assert read[0].size == len(whole)
        for plain, one in zip(read, (message, *message.more), strict=True):
            assert_same(plain, one, damaged=True)


def _two_inputs(message: pb.StreamRequest) -> None:
    message.steps.inputs.append(message.steps.inputs[0])


def _by_values(message: pb.StreamRequest) -> None:
    tensor = message.steps.inputs[0]
    tensor.values.extend([1.0, 2.0, 3.0])
    tensor.ClearField("data")


def _other_type(message: pb.StreamRequest) -> None:
    message.steps.inputs[0].CopyFrom(wire.encode("x", np.ones(3, np.int32)))


def _truth(message: pb.StreamRequest) -> None:
    message.steps.inputs[0].CopyFrom(wire.encode("x", np.ones(3, bool)))


def _short(message: pb.StreamRequest) -> None:
    message.steps.inputs[0].data = b"\0" * 8


@pytest.mark.parametrize("change", [_two_inputs, _by_values, _truth, _short])
def test_what_is_not_plain_is_not_learned(change: Any) -> None:  # noqa: ANN401 - one of these
    message = request(0, 3, 2)
    change(message)
    layouts = knowing(message)
    assert layouts.read(message.SerializeToString()) == []
    assert knowing(request(0, 0, 0)).read(message.SerializeToString()) == []


def test_another_layout_is_read_once_it_came() -> None:
    message = request(7, 3, 2)
    _other_type(message)
    layouts = knowing(request(0, 0, 0))
    assert layouts.read(message.SerializeToString()) == []
    layouts.learn(message)
    (plain,) = layouts.read(message.SerializeToString())
    assert_same(plain, message)


def test_who_sends_ever_new_layouts_has_few_of_them_made_and_none_that_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Mock(wraps=plain_steps.Layout)
    monkeypatch.setattr(plain_steps, "Layout", made)
    layouts = knowing(request(0, 0, 0, name="x" * 300))
    assert made.call_count == 0
    for axes in range(1, 2_000):
        layouts.learn(request(0, 0, 0, (axes,)))
    assert made.call_count == 16
    assert layouts.read(request(0, 0, 0, (1,)).SerializeToString())


def test_large_inputs_are_left_to_protobuf() -> None:
    message = request(0, 0, 0, (2**14,))
    assert knowing(message).read(message.SerializeToString()) == []


@pytest.mark.parametrize("count", [1, 3])
def test_the_reader_reads_by_itself_what_protobuf_has_read_once(count: int) -> None:
    first, *more = (request(at, 5, 4) for at in range(count))
    first.more.extend(more)
    data, read = first.SerializeToString(), reader(2**20)
    before, after = read(data), read(data)
    if count == 1:
        assert isinstance(before, pb.StreamRequest)
        assert isinstance(after, PlainSteps)
    else:
        assert isinstance(before, Bundle)
        assert isinstance(after, Bundle)
        assert [type(one) for one in before.requests] == [pb.StreamRequest] * 3
        assert [type(one) for one in after.requests] == [PlainSteps] * 3
    assert not isinstance(after, Cut)


@given(st.integers(0, 2**63))
def test_numbers_are_read_as_they_are_written(number: int) -> None:
    assert NUMBER[VARINT[number]] == number
    assert len(NUMBER) <= 2**14 + 2**7
