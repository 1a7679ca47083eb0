"""What models say of themselves, and the forms in which answers come: traces, values, several messages."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import tidegate
from tests.raw_stream import NO_TRACE, RawStream, bits, close, fleet, open_, rows_of, selection, steps
from tests.zoo import repository
from tidegate import wire
from tidegate.v1.sequence_pb2 import Answers, TraceSelection
from tidegate.v1.tensor_pb2 import ENCODING_VALUES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.running_server import RunningServer
    from tests.zoo import Zoo

ROWS = np.random.default_rng(6).normal(size=(40, 3)).astype(np.float32)
HIDDEN, CELL, GATES = TraceSelection.PART_HIDDEN, TraceSelection.PART_CELL, TraceSelection.PART_GATES
LSTM_PARTS = ("hidden", "cell", "input", "forget", "candidate", "output")


def test_a_model_says_what_it_takes_gives_and_is_made_of(server: RunningServer, zoo: Zoo) -> None:
    with tidegate.connect(server.address) as client:
        model = client.describe("lstm")
    (x,), (y,) = model.inputs, model.outputs
    assert (x.name, x.shape, tuple(x.features), tuple(x.units)) == ("x", (3,), ("a", "b", "c"), ("degC", "hPa", ""))
    assert (y.name, y.shape, tuple(y.features)) == ("y", (2,), ())
    assert [(layer.index, layer.input_size, layer.hidden_size) for layer in model.layers] == [(0, 3, 8), (1, 8, 8)]
    assert [tuple(layer.gates) for layer in model.layers] == [("input", "forget", "candidate", "output")] * 2
    assert (model.name, model.version, model.status, model.reason) == ("lstm", 1, "ready", "")
    assert model.state_bytes == 2 * 2 * 8 * 4
    assert model.sha256 == hashlib.sha256((zoo.models / "lstm" / "1" / "model.onnx").read_bytes()).hexdigest()
    assert model.metadata["tidegate.description"] == "A test."
    assert model.proof.max_error <= model.proof.tolerance == 1e-5
    assert model.proof.steps > 0


@pytest.mark.parametrize(("name", "dtype", "shape"), [("tokens", "int64", ()), ("gru", "float32", (3,))])
def test_tokens_and_rows_are_told_apart(server: RunningServer, name: str, dtype: str, shape: tuple[int, ...]) -> None:
    with tidegate.connect(server.address) as client:
        (x,) = client.describe(name).inputs
    assert (np.dtype(x.dtype).name, x.shape) == (dtype, shape)


async def test_what_an_opened_sequence_shows_is_laid_out_without_gaps(server: RunningServer) -> None:
    async with RawStream(server.address) as stream:
        opened = await stream.ask(open_())
        assert [(c.layer, c.name) for c in opened.trace] == [(layer, part) for layer in (0, 1) for part in LSTM_PARTS]
        assert [c.offset for c in opened.trace] == [8 * i for i in range(12)]
        assert {c.size for c in opened.trace} == {8}
        answer = await stream.ask(steps(0, 0, ROWS))
        assert list(answer.trace.shape) == [40, 96]


SELECTIONS: dict[str, tuple[dict[str, Any], list[tuple[int, str]]]] = {
    "hidden": ({"parts": [HIDDEN]}, [(0, "hidden"), (1, "hidden")]),
    "cell": ({"parts": [CELL]}, [(0, "cell"), (1, "cell")]),
    "gates of one layer": (
        {"parts": [GATES], "layers": [1]},
        [(1, gate) for gate in ("input", "forget", "candidate", "output")],
    ),
    "two parts, asked for twice": ({"parts": [GATES, HIDDEN, GATES], "layers": [0]}, []),
    "a layer": ({"layers": [1]}, [(1, part) for part in LSTM_PARTS]),
}


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("every", [0, 1, 3, 7, 100])
async def test_a_selection_is_a_cut_of_the_whole_trace(server: RunningServer, name: str, every: int) -> None:
    fields, expected = SELECTIONS[name]
    async with RawStream(server.address) as stream:
        whole = {(c.layer, c.name): c for c in (await stream.ask(open_(0))).trace}
        everything = wire.decode((await stream.ask(steps(0, 0, ROWS))).trace)
        opened = await stream.ask(open_(1, trace=selection(every=every, **fields), count=2))
        if expected:
            assert [(c.layer, c.name) for c in opened.trace] == expected
        wanted = np.concatenate(
            [everything[:, (o := whole[c.layer, c.name].offset) : o + c.size] for c in opened.trace], 1
        )
        numbers = [i for i in range(len(ROWS)) if i % max(every, 1) == 0]
        first, second = await stream.ask(steps(1, 0, ROWS[:5])), await stream.ask(steps(1, 5, ROWS[5:]))
        got = [wire.decode(answer.trace) for answer in (first, second) if answer.HasField("trace")]
        np.testing.assert_array_equal(np.concatenate(got), wanted[numbers])
        for i in range(8):  # the other one step by step: a trace where the step's number is a multiple
            answer = await stream.ask(steps(2, i, ROWS[i]))
            assert answer.HasField("trace") == (i in numbers)
            if i in numbers:
                np.testing.assert_array_equal(wire.decode(answer.trace), wanted[[i]])


async def test_a_fleet_shows_those_whose_step_is_to_be_traced(server: RunningServer) -> None:
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0, count=5, trace=selection(every=2, layers=[0], parts=[HIDDEN])))
        await stream.ask(open_(9))
        for handle in (1, 3):
            await stream.run(handle, 0, ROWS[:1])
        answer = await stream.ask(fleet([4, 3, 2, 1, 0], [0, 1, 0, 1, 0], ROWS[[0, 1, 0, 1, 0]]))
        trace = wire.decode(answer.trace)
        alone = wire.decode((await stream.ask(steps(9, 0, ROWS[:1]))).trace)
        np.testing.assert_array_equal(trace, np.repeat(alone[:, :8], 3, 0))
        await stream.run(1, 2, ROWS[:1])
        untraced = await stream.ask(fleet([0, 2], [1, 1], ROWS[:2]))
        assert not untraced.HasField("trace")


async def test_who_wants_no_trace_gets_none_and_the_same_outputs(server: RunningServer) -> None:
    async with RawStream(server.address) as stream:
        opened = await stream.ask(open_(0, trace=NO_TRACE))
        await stream.ask(open_(1))
        assert list(opened.trace) == []
        silent, telling = await stream.ask(steps(0, 0, ROWS)), await stream.ask(steps(1, 0, ROWS))
        assert not silent.HasField("trace")
        assert silent.outputs == telling.outputs


async def test_numbers_can_come_as_values_that_a_person_reads(server: RunningServer) -> None:
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0, count=2))
        await stream.ask(open_(2, count=3, encoding=ENCODING_VALUES))
        for first, rows in ((0, ROWS[:1]), (1, ROWS[1:9])):
            raw, told = await stream.ask(steps(0, first, rows)), await stream.ask(steps(2, first, rows))
            for one, other in ((raw.outputs[0], told.outputs[0]), (raw.trace, told.trace)):
                assert not other.data
                assert (one.name, one.type, list(one.shape)) == (other.name, other.type, list(other.shape))
                np.testing.assert_array_equal(wire.decode(one), wire.decode(other))
        together = await stream.ask(fleet([3, 4], [0, 0], ROWS[[0, 0]]))
        assert len(together.outputs[0].values) == 4
        assert rows_of(together) == [bits(await stream.ask(steps(1, 0, ROWS[0])))] * 2


async def test_values_go_in_too(server: RunningServer) -> None:
    request = steps(0, 0, ROWS[0])
    tensor = request.steps.inputs[0]
    tensor.values.extend(ROWS[0].tolist())
    tensor.ClearField("data")
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0, count=2))
        assert bits(await stream.ask(request)) == bits(await stream.ask(steps(1, 0, ROWS[0])))


async def test_a_long_chunk_is_answered_in_several_messages(server: RunningServer, zoo: Zoo) -> None:
    rows = zoo.networks["wide"].rows(1_000).numpy()
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0, "wide", count=2))
        await stream.say(steps(0, 0, rows))
        answers: list[Answers] = []
        while sum(answer.outputs[0].shape[0] for answer in answers) < len(rows):
            answers.append(await stream.hear())
            assert answers[-1].ByteSize() < 2**21
        assert len(answers) > 1
        assert [a.first_step for a in answers] == np.cumsum(
            [0, *(a.outputs[0].shape[0] for a in answers[:-1])]
        ).tolist()
        heard = [row for answer in answers for row in rows_of(answer)]
        assert await stream.run(1, 0, rows[:50]) == heard[:50]
        assert (await stream.ask(close(0, 2))).steps == [1_000, 50]


async def test_a_large_fleet_is_answered_once_for_each_of_its_sequences(server: RunningServer) -> None:
    count = 3_000
    random = np.random.default_rng(0)
    rows = random.normal(size=(2, count, 3)).astype(np.float32)
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0, "wide", count=count + 1))
        order = random.permutation(count)
        await stream.say(fleet(order, [0] * count, rows[0, order]), fleet(range(count), [1] * count, rows[1]))
        heard: dict[tuple[int, int], bytes] = {}
        while len(heard) < 2 * count:
            answer = await stream.hear()
            handles = np.frombuffer(answer.handles, "<u4").tolist()
            numbers = np.frombuffer(answer.steps, "<u8").tolist()
            assert answer.ByteSize() < 2**21
            keys = list(zip(handles, numbers, strict=True))
            assert not heard.keys() & set(keys)
            heard |= dict(zip(keys, rows_of(answer), strict=True))
        for handle in (0, 1, count // 2, count - 1):
            await stream.ask(open_(count + 1 + handle, "wide"))
            alone = await stream.run(count + 1 + handle, 0, rows[:, handle])
            assert alone == [heard[handle, 0], heard[handle, 1]]


async def test_sequence_ids_are_never_the_same(server: RunningServer) -> None:
    ids: list[str] = []
    for _ in range(3):
        async with RawStream(server.address) as stream:
            for handle in (0, 50):
                ids += (await stream.ask(open_(handle, count=50))).sequence_ids
            await stream.ask(close(0, 100))
            ids += (await stream.ask(open_(0, count=50))).sequence_ids
    assert len(ids) == len(set(ids)) == 450


async def test_sequence_ids_begin_with_the_route_that_their_stream_came_by(server: RunningServer) -> None:
    ids: list[str] = []
    for _ in range(2):
        async with RawStream(server.address, route="0tide9") as stream:
            ids += (await stream.ask(open_(0, count=3))).sequence_ids
            ids += (await stream.ask(open_(3))).sequence_ids
    assert [id_.split("-")[0] for id_ in ids] == ["0tide9"] * 8
    assert len(set(ids)) == 8


async def test_a_stream_without_a_route_that_fits_gets_one_of_its_own(server: RunningServer) -> None:
    routes: list[str] = []
    for given in (None, None, "", "Tide", "a-b", "0" * 33):
        async with RawStream(server.address, route=given) as stream:
            opened = [await stream.ask(open_(handle)) for handle in range(2)]
        first, second = (one.sequence_ids[0].split("-")[0] for one in opened)
        assert first == second
        routes.append(first)
    assert len(set(routes)) == len(routes)
    assert all(re.fullmatch("[0-9a-z]{1,32}", route) for route in routes)


async def test_a_handle_can_be_used_again_and_starts_anew(server: RunningServer) -> None:
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0))
        first = await stream.run(0, 0, ROWS[:5])
        assert list((await stream.ask(close(0))).steps) == [5]
        await stream.ask(open_(0))
        assert await stream.run(0, 0, ROWS[:5]) == first


async def test_a_long_chunk_takes_turns_with_the_steps_of_the_other_sequences_of_its_client(
    start: Callable[..., RunningServer], zoo: Zoo, tmp_path: Path
) -> None:
    server = start(repository(zoo, tmp_path, "wide"), "--window-mib", "1").ready()
    rows = np.random.default_rng(0).normal(size=(8_000, 3)).astype(np.float32)  # answers of 48 MB
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0, "wide", count=2))
        await stream.say(steps(0, 0, rows), *[steps(1, i, row) for i, row in enumerate(rows[:3])])
        chunk, others, before = 0, [], []
        while chunk < len(rows) or len(others) < 3:
            answer = await stream.hear()
            if answer.handle:
                others.append(bits(answer))
                before.append(chunk)
            else:
                assert answer.first_step == chunk
                chunk += len(wire.decode(answer.trace))
        assert before[-1] < len(rows) / 2
        async with RawStream(server.address) as alone:
            await alone.ask(open_(0, "wide"))
            assert others == await alone.run(0, 0, rows[:3])
