"""The answer to a step is written by hand, as bytes: here protobuf reads it, and says what it would have written."""

from __future__ import annotations

import asyncio
import gc
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.edge.exchanges.dialect import Large
from server.edge.native.responses import Writer, predicted
from server.edge.pieces import Pieces
from server.edge.prediction import Prediction
from server.streams.events import Answered, FleetAnswered, Form, Opened, SeveralAnswered
from stepgraph.rewriting.columns import Columns
from tidegate import wire
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1 import tensor_pb2, tidegate_pb2

DTYPES = ["<f4", "<f8", "<f2", "<i8", "<u1", "?"]
ROWS = [(), (1,), (3, 2), (0,), (300,)]
HANDLES = st.integers(0, 2**32 - 1)
STEPS = st.integers(0, 2**63 - 1)
MUCH = 20 * 2**20  # bytes of numbers that go through a writer
FORMS = {"single": (1, False), "chunk": (64, False), "values": (1, True)}


def by_protobuf(event: Answered) -> pb.StreamResponse:
    encoding = tensor_pb2.ENCODING_VALUES if event.form.values else tensor_pb2.ENCODING_RAW
    answers = pb.Answers(handle=event.handle, first_step=event.first_step, checkpointed=event.checkpointed)
    for name, array in zip(event.form.names, event.outputs, strict=True):
        answers.outputs.append(wire.encode(name, array, encoding))
    if event.trace is not None:
        answers.trace.CopyFrom(wire.encode("", event.trace, encoding))
    return pb.StreamResponse(answers=answers)


@given(
    st.lists(st.tuples(HANDLES, STEPS, STEPS), min_size=1, max_size=5),
    st.lists(st.tuples(st.sampled_from(DTYPES), st.sampled_from(ROWS)), min_size=1, max_size=3),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=100)
def test_each_answer_of_a_form_reads_as_what_protobuf_would_have_written(
    numbers: list[tuple[int, int, int]], outputs: list[tuple[str, tuple[int, ...]]], traced: bool, bundle: bool
) -> None:
    writer, random = Writer(1), np.random.default_rng(0)
    form = Form(tuple(f"y{i}" for i in range(len(outputs))), values=False, bundle=bundle)

    def answer(handle: int, step: int, checkpointed: int) -> Answered:
        arrays = [(random.normal(size=(1, *row)) * 9).astype(dtype) for dtype, row in outputs]
        trace = random.normal(size=(1, 7)).astype(np.float32) if traced else None
        return Answered(handle, step, form, arrays, trace, 1, checkpointed)

    events = [answer(*given) for given in numbers]
    heard: list[pb.StreamResponse] = []
    while len(heard) < len(events):
        (message,), count = writer.bundle(events[len(heard) :])
        response = pb.StreamResponse.FromString(message)
        assert len(response.more) == count - 1
        heard += response.more
        del response.more[:]
        heard.insert(len(heard) - count + 1, response)
    assert heard == [by_protobuf(event) for event in events]
    assert not bundle or count == len(events)


@pytest.mark.parametrize("bundle", [False, True], ids=["apart", "bundle"])
@pytest.mark.parametrize("values", [False, True], ids=["bytes", "values"])
@pytest.mark.parametrize("traced", [False, True], ids=["untraced", "traced"])
def test_answers_to_steps_that_came_together_read_as_if_each_had_come_by_itself(
    bundle: bool, values: bool, traced: bool
) -> None:
    random, form = np.random.default_rng(0), Form(("y", "z"), values, bundle)
    outputs = [random.normal(size=(3, *row)).astype(np.float32) for row in ((4,), ())]
    trace = random.normal(size=(3, 7)).astype(np.float32) if traced else None
    handles = np.array([3, 1, 2**20])
    event = SeveralAnswered(handles, handles + 2**40, form, outputs, trace, 300, handles)
    messages, count = Writer(1).bundle([event, b"another"])
    assert (len(messages), count) == (1 if bundle else 3, 1)
    responses = [pb.StreamResponse.FromString(bytes(message)) for message in messages]
    heard = [each for response in responses for each in (response, *response.more)]
    for response in responses:
        del response.more[:]
    assert heard == [by_protobuf(each) for each in event.apart()]


@pytest.mark.parametrize("rows", [2, 5_000], ids=["small", "large"])
@pytest.mark.parametrize("values", [False, True], ids=["bytes", "values"])
@pytest.mark.parametrize("dtype", [*DTYPES, ">f4"])
def test_the_answer_to_a_chunk_or_fleet_and_a_prediction_read_as_what_protobuf_would_have_written(
    rows: int, values: bool, dtype: str
) -> None:
    random, form = np.random.default_rng(0), Form(("y", "z"), values, bundle=True)
    y = (random.normal(size=(rows, 2, 3)) * 9).astype(dtype)
    outputs, trace = [y, y[:, 1, ::2]], random.normal(size=(rows, 14)).astype(np.float32)[:, 3:9]
    chunk = Answered(7, 9, form, outputs, trace, rows * 60, 8)
    (message,), _ = Writer(1).bundle([chunk])
    assert isinstance(message, Pieces) == (rows > 2)
    assert pb.StreamResponse.FromString(bytes(message)) == by_protobuf(chunk)
    handles = np.arange(rows)
    fleet = FleetAnswered(handles, handles + 2**40, form, outputs, trace, rows * 60, handles)
    expected = pb.FleetAnswers(
        handles=handles.astype("<u4").tobytes(),
        steps=(handles + 2**40).astype("<u8").tobytes(),
        checkpointed=handles.astype("<u8").tobytes(),
        outputs=by_protobuf(chunk).answers.outputs,
        trace=by_protobuf(chunk).answers.trace,
    )
    assert pb.StreamResponse.FromString(bytes(Writer(1).answer(fleet))) == pb.StreamResponse(fleet=expected)
    opened = Opened(0, ("a",), "m", 3, (Columns(0, "hidden", 0, 6),))
    made = predicted(Prediction(opened, dict(zip(form.names, outputs, strict=True)), trace), values)
    answer = tidegate_pb2.PredictResponse.FromString(bytes(made))
    assert (answer.model, answer.version, len(answer.columns)) == ("m", 3, 1)
    assert (list(answer.outputs), answer.trace) == (list(expected.outputs), expected.trace)


@pytest.mark.parametrize("kind", [*FORMS, "bundle", "fleet"])
@pytest.mark.parametrize("traced", [True, False], ids=["traced", "untraced"])
def test_what_was_written_is_not_kept(kind: str, traced: bool) -> None:
    writer = Writer(1)
    rows, values = FORMS.get(kind, (64, False))
    form = Form(("y",), values, bundle=kind == "bundle")
    size, much = (64, MUCH // 5) if values else (2_048, MUCH)

    def numbers(count: int) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(count, size)).astype(np.float32)

    def write() -> None:
        trace = numbers(rows) if traced else None
        if kind == "fleet":
            event = FleetAnswered(np.arange(rows), np.arange(rows), form, [numbers(rows)], trace, 1, np.arange(rows))
            writer.answer(event)
        elif kind == "bundle":
            singles = [(numbers(1), numbers(1) if traced else None) for _ in range(rows)]
            writer.bundle([Answered(0, 0, form, [outputs], each, 1, 0) for outputs, each in singles])
        else:
            writer.answer(Answered(0, 0, form, [numbers(rows)], trace, 1, 0))

    for _ in range(20):
        write()
    before = resident()
    for _ in range(much // (rows * size * 4)):
        write()
    gc.collect()
    assert resident() - before < much / 4 + 2**20


async def test_the_message_of_ten_thousand_that_were_opened_is_made_in_pieces_and_reads_as_any_other() -> None:
    ids, steps = [f"a-{n}" for n in range(10_000)], list(range(10_000))
    opened = Opened(3, ids, "m", 7, (Columns(0, "hidden", 0, 4),), "token", steps)
    large = Writer(99).write(opened)
    assert isinstance(large, Large)
    turns, over = 0, False

    async def others() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.ensure_future(others())
    message = await large.make()
    over = True
    await beside
    assert turns >= 2
    assert large.size / 2 < len(message) < 2 * large.size
    few = Writer(99).write(replace(opened, ids=ids[:1], steps=steps[:1]))
    assert isinstance(few, bytes)
    expected = pb.StreamResponse.FromString(few)
    expected.opened.sequence_ids.extend(ids[1:])
    expected.opened.next_steps.extend(steps[1:])
    assert pb.StreamResponse.FromString(message) == expected


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
