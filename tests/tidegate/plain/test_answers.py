"""Answers that are read without protobuf are what protobuf reads; whatever else there is, is left to it."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.edge.native.responses import Writer
from server.streams.events import Answered, Form
from tests.server.edge.native.test_plain_steps import LONG, NUMBERS, damaged
from tidegate import wire
from tidegate.answers import TraceLayout
from tidegate.plain.answers import PlainAnswer, Reader, SomeAnswers
from tidegate.protocol.assembly import read_chunk, read_step, rows_of
from tidegate.protocol.in_flight import StepsPromise
from tidegate.v1 import sequence_pb2 as pb

SHAPES = [((3,),), ((1,),), ((),), ((2, 2), (5,))]
Shapes = Sequence[Sequence[int]]


def event(
    handle: int, step: int, checkpointed: int = 0, shapes: Shapes = ((3,),), traced: int = 0, rows: int = 1
) -> Answered:
    """An answer as the server has it."""
    outputs = [np.full((rows, *shape), handle % 97 + at, np.float32) for at, shape in enumerate(shapes)]
    form = Form(tuple(f"y{at}" for at in range(len(outputs))), values=False, bundle=True)
    trace = np.full((rows, traced), step % 89, np.float32) if traced else None
    return Answered(handle, step, form, outputs, trace, 100, checkpointed)


def message(*events: Answered) -> bytes:
    """What the server writes."""
    messages, count = Writer(2**20).bundle(events)
    assert count == len(events)
    return b"".join(map(bytes, messages))


def knowing(*messages: bytes) -> Reader:
    reader = Reader()
    for each in messages:
        assert isinstance(reader.read(each), pb.StreamResponse)
    return reader


def step_of(answers: SomeAnswers) -> tuple[object, ...]:
    """What a caller reads."""
    promise = StepsPromise(answers.first_step, 1, 1)
    promise.layout = TraceLayout({})
    promise.resolve([answers])
    one, many = read_step(promise), read_chunk(promise)
    parts = []
    for answer in (one, many):
        arrays = [*answer.outputs.items(), ("", np.zeros(0) if answer.trace is None else answer.trace)]
        parts.append([(name, array.tobytes(), array.shape, array.dtype) for name, array in arrays])
    return answers.handle, one.step, one.checkpointed, many.checkpointed, rows_of(answers), *parts


def assert_same(plain: Sequence[PlainAnswer], data: bytes) -> None:
    whole = pb.StreamResponse.FromString(data)
    for one, by_protobuf in zip(plain, (whole, *whole.more), strict=True):
        assert step_of(one) == step_of(by_protobuf.answers)


@given(NUMBERS, LONG, LONG, st.sampled_from(SHAPES), st.sampled_from([0, 7, 2000]))
def test_an_answer_is_read_as_protobuf_reads_it(
    handle: int, step: int, checkpointed: int, shapes: Shapes, traced: int
) -> None:
    data = message(event(handle, step, checkpointed, shapes, traced))
    reader = knowing(message(event(0, 0)), message(event(0, 0, 0, ((4, 4),), 3)))
    reader.read(message(event(0, 0, 0, shapes, traced)))
    read = reader.read(data)
    long = handle >= 2**28 or max(step, checkpointed) >= 2**56
    assert isinstance(read, list) is not long
    if isinstance(read, list):
        assert_same(read, data)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, st.sampled_from([0, 7])), min_size=2, max_size=40))
def test_a_bundle_is_read_as_protobuf_reads_it(those: list[tuple[int, int, int, int]]) -> None:
    data = message(*[event(handle, step, safe, traced=traced) for handle, step, safe, traced in those])
    read = knowing(message(event(0, 0), event(1, 0, traced=7))).read(data)
    assert isinstance(read, list) is (max(handle for handle, *_ in those) < 2**28)
    if isinstance(read, list):
        assert_same(read, data)


@given(st.data())
def test_a_damaged_message_is_never_read_otherwise_than_protobuf_does(data: st.DataObject) -> None:
    sound = message(*[event(at, 200 + at, at, traced=3) for at in range(data.draw(st.integers(1, 3)))])
    whole = damaged(sound, data)
    plain = knowing(message(event(0, 0, traced=3)))._plain(whole)
    if plain:
        assert_same(plain, whole)


def _by_values(answers: pb.Answers) -> None:
    tensor = answers.outputs[0]
    tensor.values.extend([1.0, 2.0, 3.0])
    tensor.ClearField("data")


def _truth(answers: pb.Answers) -> None:
    answers.outputs[0].CopyFrom(wire.encode("y0", np.ones((1, 3), bool)))


def _several_steps(answers: pb.Answers) -> None:
    answers.outputs[0].CopyFrom(wire.encode("y0", np.ones((2, 3), np.float32)))


def _cut_short(answers: pb.Answers) -> None:
    answers.outputs[0].data = b"\0" * 8


def _large(answers: pb.Answers) -> None:
    answers.outputs[0].CopyFrom(wire.encode("y0", np.ones((1, 2**14), np.float32)))


@pytest.mark.parametrize("change", [_by_values, _truth, _several_steps, _cut_short, _large])
def test_what_is_not_plain_is_not_learned(change: Callable[[pb.Answers], None]) -> None:
    response = pb.StreamResponse.FromString(message(event(1, 5)))
    change(response.answers)
    reader = knowing(message(event(0, 0)))
    assert reader.read(response.SerializeToString()) == response
    assert reader.read(response.SerializeToString()) == response
    assert len(reader._layouts.all) == 1


@pytest.mark.parametrize("kind", ["closed", "failure", "fleet", "opened"])
def test_other_messages_are_read_by_protobuf(kind: str) -> None:
    response = pb.StreamResponse()
    getattr(response, kind).SetInParent()
    assert knowing(message(event(0, 0))).read(response.SerializeToString()) == response


def test_a_bundle_with_another_message_in_it_is_read_by_protobuf() -> None:
    response = pb.StreamResponse.FromString(message(event(1, 5), event(2, 5)))
    response.more.add().closed.handle = 3
    assert knowing(message(event(0, 0))).read(response.SerializeToString()) == response


def test_of_layouts_without_end_a_few_are_known() -> None:
    reader = knowing(*[message(event(0, 0, 0, ((axes,),))) for axes in range(1, 100)])
    assert len(reader._layouts.all) == 16
    assert isinstance(reader.read(message(event(0, 1, 0, ((1,),)))), list)
