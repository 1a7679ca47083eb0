"""Sequences outlive their stream, their connection and their server, to the last bit."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import tidegate
from tests.end_to_end.test_life import add
from tests.raw_stream import RawStream, bits, close, fleet, open_, pace, reason, rows_of, steps
from tests.running_server import RunningServer
from tests.torch_models import Spec, write
from tidegate import wire
from tidegate.v1 import sequence_pb2
from tidegate.v1.sequence_pb2 import StreamRequest

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = np.random.default_rng(5).standard_normal((120, 3), dtype=np.float32)


def resume(ids: list[str], token: str, answered: list[int], handle: int = 0) -> StreamRequest:
    message = sequence_pb2.Resume(handle=handle, sequence_ids=ids, resume_token=token, answered=answered)
    return StreamRequest(resume=message)


def acked(handle: int, first: int, array: np.ndarray) -> StreamRequest:
    request = steps(handle, first, array)
    request.steps.answered = first
    return request


async def undisturbed(server: RunningServer, count: int = len(ROWS)) -> list[bytes]:
    async with RawStream(server.address) as stream:
        await stream.ask(open_())
        return await stream.run(0, 0, ROWS[:count])


async def checkpointed(stream: RawStream, handle: int, step: int, at_least: int) -> int:
    """Takes steps until so many are told to be safe; the number of the next step."""
    while True:
        answer = await stream.ask(acked(handle, step, ROWS[step]))
        step += 1
        if answer.checkpointed >= at_least:
            return step
        await pace(step)


async def told_of(stream: RawStream, step: int) -> None:
    """Waits until it is announced that sequence 0 is safe up to a step; it may be so up to earlier ones before."""
    while True:
        if isinstance(told := await stream.hear(), sequence_pb2.Checkpointed):
            assert np.frombuffer(told.handles, "<u4").tolist() == [0]
            if (safe := np.frombuffer(told.steps, "<u8").tolist()) == [step]:
                return
            assert safe[0] < step


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'sequences.sqlite'}"


async def test_a_sequence_goes_on_after_a_cut_with_the_bits_that_it_would_have_had(server: RunningServer) -> None:
    expected = await undisturbed(server)
    async with RawStream(server.address) as stream:
        opened = await stream.ask(open_())
        heard = await stream.run(0, 0, ROWS[:50])
    async with RawStream(server.address) as stream:
        again = await stream.ask(resume(list(opened.sequence_ids), opened.resume_token, [50], handle=7))
        assert list(again.sequence_ids) == list(opened.sequence_ids)
        assert again.resume_token == opened.resume_token
        assert again.next_steps[0] <= 50
        heard = heard[: again.next_steps[0]] + await stream.run(7, again.next_steps[0], ROWS[again.next_steps[0] :])
    assert heard == expected


async def test_a_sequence_that_is_closed_to_be_parked_goes_on_later_on_the_same_stream_or_another(
    server: RunningServer,
) -> None:
    expected = await undisturbed(server, 12)
    async with RawStream(server.address) as stream:
        opened = await stream.ask(open_(count=2))
        heard = await stream.run(1, 0, ROWS[:5])
        closed = await stream.ask(StreamRequest(close=sequence_pb2.Close(handle=0, count=2, park=True)))
        assert list(closed.steps) == [0, 5]
        assert reason(await stream.ask(steps(1, 5, ROWS[5]))) == "UNKNOWN_HANDLE"
        again = await stream.ask(resume(list(opened.sequence_ids[1:]), opened.resume_token, [5], handle=4))
        assert list(again.next_steps) == [5]
        heard += await stream.run(4, 5, ROWS[5:9])
        closed = await stream.ask(StreamRequest(close=sequence_pb2.Close(handle=3, count=2, park=True)))
        assert list(closed.steps) == [0, 9]  # nothing was open under the first
        endless = StreamRequest(close=sequence_pb2.Close(handle=3, count=2**32 - 1, park=True))
        assert reason(await stream.ask(endless)) == "TOO_MANY_SEQUENCES"
        async with RawStream(server.address) as other:
            await other.ask(resume(list(opened.sequence_ids[1:]), opened.resume_token, [9]))
            heard += await other.run(0, 9, ROWS[9:12])
    assert heard == expected


async def test_a_sequence_goes_back_as_far_as_checkpoints_are_kept(
    start: Callable[..., RunningServer], lstm_only: Path, store: str
) -> None:
    server = start(lstm_only, "--store", store, "--checkpoint-ms", "10", "--keep-checkpoints", "200").ready()
    expected = await undisturbed(server)
    async with RawStream(server.address) as stream:
        await stream.ask(open_())
        step = first = await checkpointed(stream, 0, 0, 1)
        for _ in range(6):  # without the setting, the oldest of so many is gone
            step = await checkpointed(stream, 0, step, step)
        rewound = await stream.ask(StreamRequest(rewind=sequence_pb2.Rewind(handle=0, step=first)))
        assert 1 <= rewound.next_step <= first
        begin = rewound.next_step
        assert await stream.run(0, begin, ROWS[begin : begin + 9]) == expected[begin : begin + 9]


async def test_a_sequence_goes_on_after_its_server_was_killed(
    start: Callable[..., RunningServer], lstm_only: Path, store: str
) -> None:
    first = start(lstm_only, "--store", store, "--checkpoint-ms", "20").ready()
    expected = await undisturbed(first)
    async with RawStream(first.address) as stream:
        opened = await stream.ask(open_())
        done = await checkpointed(stream, 0, 0, 1)
        first.process.kill()
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.hear()
    second = start(lstm_only, "--store", store).ready()
    async with RawStream(second.address) as stream:
        again = await stream.ask(resume(list(opened.sequence_ids), opened.resume_token, [done]))
        begin = again.next_steps[0]
        assert 1 <= begin <= done
        assert await stream.run(0, begin, ROWS[begin:]) == expected[begin:]


async def test_what_a_file_looks_back_at_is_kept_with_its_other_states_when_a_server_is_killed(
    start: Callable[..., RunningServer], tmp_path: Path, store: str
) -> None:
    folder = tmp_path / "looking-back" / "lstm" / "1"
    folder.mkdir(parents=True)
    shutil.copy(Path(__file__).parents[1] / "models" / "made" / "torch-dynamo" / "tcn.onnx", folder / "model.onnx")
    first = start(folder.parents[1], "--store", store, "--checkpoint-ms", "20").ready()
    expected = await undisturbed(first)
    async with tidegate.AsyncClient(first.address) as client:
        (model,) = await client.models()
        assert [state.home for state in model.states] == ["server", "ring", "ring"]
    async with RawStream(first.address) as stream:
        opened = await stream.ask(open_())
        done = await checkpointed(stream, 0, 0, 1)
        first.process.kill()
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.hear()
    second = start(folder.parents[1], "--store", store).ready()
    async with RawStream(second.address) as stream:
        again = await stream.ask(resume(list(opened.sequence_ids), opened.resume_token, [done]))
        assert await stream.run(0, again.next_steps[0], ROWS[again.next_steps[0] :]) == expected[again.next_steps[0] :]


async def test_a_sequence_of_a_version_that_was_overwritten_in_place_goes_on_with_its_content_after_a_kill(
    start: Callable[..., RunningServer], lstm_only: Path, store: str
) -> None:
    first = start(lstm_only, "--store", store, "--checkpoint-ms", "20", "--poll-seconds", "0.05").ready()
    expected = await undisturbed(first)
    async with RawStream(first.address) as stream:
        opened = await stream.ask(open_())
        done = await checkpointed(stream, 0, 0, 1)
        write(Spec(seed=52), lstm_only.parent / "other.onnx")
        (lstm_only.parent / "other.onnx").replace(lstm_only / "lstm" / "1" / "model.onnx")
        await asyncio.to_thread(first.line, "1 open sequences go on with the content .* also after a restart")
        first.process.kill()
    second = start(lstm_only, "--store", store).ready()
    asked = resume(list(opened.sequence_ids), opened.resume_token, [done])
    async with RawStream(second.address) as stream:
        assert reason(await stream.ask(asked)) == "MODEL_NOT_READY"
        await asyncio.to_thread(second.line, "lstm version 1 is served with its former content")
        again = await stream.ask(asked)
        begin = again.next_steps[0]
        assert await stream.run(0, begin, ROWS[begin:]) == expected[begin:]
        await stream.ask(open_(1))
        assert await stream.run(1, 0, ROWS) != expected


async def test_a_server_that_is_asked_to_stop_writes_every_state_before_it_lets_go(
    start: Callable[..., RunningServer], lstm_only: Path, store: str
) -> None:
    first = start(lstm_only, "--store", store, "--checkpoint-ms", "100000", "--checkpoint-steps", "100000").ready()
    expected = await undisturbed(first)
    async with RawStream(first.address) as stream:
        opened = await stream.ask(open_(count=3))
        await stream.run(1, 0, ROWS[:33])
        first.terminate()
        released = await stream.hear()
        assert isinstance(released, sequence_pb2.Released)
        assert list(released.handles) == [0, 1, 2]
        assert await stream.rest() == []
    assert await asyncio.to_thread(first.wait) == 0
    second = start(lstm_only, "--store", store).ready()
    async with RawStream(second.address) as stream:
        again = await stream.ask(resume(list(opened.sequence_ids), opened.resume_token, [0, 33, 0]))
        assert list(again.next_steps) == [0, 33, 0]
        assert await stream.run(1, 33, ROWS[33:]) == expected[33:]


async def test_who_has_no_answer_yet_goes_back_to_where_the_sequence_began(
    start: Callable[..., RunningServer], lstm_only: Path, store: str
) -> None:
    """Its first checkpoint is of a later step, because the whole chunk ran before anything was written."""
    first = start(lstm_only, "--store", store, "--checkpoint-ms", "100000", "--checkpoint-steps", "100000").ready()
    expected = await undisturbed(first)
    async with RawStream(first.address) as stream:
        await stream.ask(open_(7))
        await stream.say(steps(7, 0, ROWS[:10]))
        await stream.hear()
        state = (await stream.ask(StreamRequest(read_state=sequence_pb2.ReadState(handle=7)))).state
        fresh = await stream.ask(open_(0))
        begun = await stream.ask(open_(1, state=state))
        await stream.say(steps(0, 0, ROWS), steps(1, 10, ROWS[10:]))
        await stream.hear()
        await stream.hear()
    first.terminate()
    assert await asyncio.to_thread(first.wait) == 0
    second = start(lstm_only, "--store", store).ready()
    async with RawStream(second.address) as stream:
        again = await stream.ask(resume(list(fresh.sequence_ids), fresh.resume_token, [0], handle=0))
        assert list(again.next_steps) == [0]
        assert await stream.run(0, 0, ROWS) == expected
        again = await stream.ask(resume(list(begun.sequence_ids), begun.resume_token, [12], handle=1))
        assert list(again.next_steps) == [10]
        assert await stream.run(1, 10, ROWS[10:]) == expected[10:]


async def test_a_fleet_is_resumed_in_one_message(server: RunningServer) -> None:
    rows = np.random.default_rng(1).standard_normal((4, 300, 3), dtype=np.float32)
    async with RawStream(server.address) as stream:
        await stream.ask(open_(count=300))
        expected = []
        for step in range(4):
            await stream.say(fleet(range(300), [step] * 300, rows[step]))
            expected.append(await stream.rows(300))
    async with RawStream(server.address) as stream:
        opened = await stream.ask(open_(count=300))
        for step in range(2):
            await stream.say(fleet(range(300), [step] * 300, rows[step]))
            await stream.rows(300)
    async with RawStream(server.address) as stream:
        again = await stream.ask(resume(list(opened.sequence_ids), opened.resume_token, [2] * 300))
        assert len(again.next_steps) == 300
        start = again.next_steps[0]
        assert set(again.next_steps) == {start}
        for step in range(start, 4):
            await stream.say(fleet(range(300), [step] * 300, rows[step]))
            assert await stream.rows(300) == expected[step]


async def test_a_resume_takes_the_sequence_from_a_stream_that_has_not_noticed_its_cut(server: RunningServer) -> None:
    expected = await undisturbed(server, 20)
    async with RawStream(server.address) as old, RawStream(server.address) as new:
        opened = await old.ask(open_())
        await old.run(0, 0, ROWS[:10])
        again = await new.ask(resume(list(opened.sequence_ids), opened.resume_token, [10]))
        released = await old.hear()
        assert isinstance(released, sequence_pb2.Released)
        assert reason_of(released) == "TAKEN_OVER"
        begin = again.next_steps[0]
        assert await new.run(0, begin, ROWS[begin:20]) == expected[begin:]
        assert reason(await old.ask(steps(0, 10, ROWS[10]))) == "UNKNOWN_HANDLE"


@pytest.mark.parametrize(
    ("ids", "token", "expected"),
    [("own", "wrong", "WRONG_TOKEN"), ("none", "own", "UNKNOWN_SEQUENCE"), ("twice", "own", "MALFORMED")],
)
async def test_a_resume_that_cannot_be_is_refused_and_changes_nothing(
    server: RunningServer, ids: str, token: str, expected: str
) -> None:
    async with RawStream(server.address) as stream, RawStream(server.address) as other:
        opened = await stream.ask(open_())
        own = opened.sequence_ids[0]
        given = {"own": [own], "none": ["nobody-1"], "twice": [own, own]}[ids]
        tokens = {"own": opened.resume_token, "wrong": "guess"}
        failure = await other.ask(resume(given, tokens[token], [0] * len(given)))
        assert reason(failure) == expected
        assert len(await stream.run(0, 0, ROWS[:3])) == 3
        assert isinstance(await other.ask(open_()), sequence_pb2.Opened)


async def test_a_closed_sequence_cannot_be_resumed_and_says_why(server: RunningServer) -> None:
    async with RawStream(server.address) as stream:
        opened = await stream.ask(open_(announce=True))
        await stream.say(steps(0, 0, ROWS[:3]))
        while not isinstance(await stream.hear(), sequence_pb2.Checkpointed):
            pass  # one that ends before its first checkpoint was never known to the store
        await stream.ask(close())
        for _ in range(200):
            failure = await stream.ask(resume(list(opened.sequence_ids), opened.resume_token, [3]))
            if reason(failure) == "SEQUENCE_ENDED":
                return
    pytest.fail("the store never heard of the end")


async def test_a_checkpoint_is_announced_to_who_asked_and_has_nothing_under_way(server: RunningServer) -> None:
    async with RawStream(server.address) as stream:
        await stream.ask(open_(announce=True))
        await stream.say(steps(0, 0, ROWS[:5]))
        await told_of(stream, 5)


async def test_an_idle_sequence_is_parked_and_comes_back_on_its_next_step(
    start: Callable[..., RunningServer], lstm_only: Path, store: str
) -> None:
    server = start(
        lstm_only, "--store", store, "--checkpoint-ms", "10", "--idle-seconds", "0.001", "--max-sequences", "2"
    ).ready()
    expected = await undisturbed(server, 12)
    async with RawStream(server.address) as stream, RawStream(server.address) as other:
        await stream.ask(open_(0, announce=True))
        await stream.say(steps(0, 0, ROWS[:6]))
        heard = rows_of(await stream.hear())
        await told_of(stream, 6)
        # two slots: the idle one gives up its own for the second of these
        assert isinstance(await other.ask(open_(0, count=2)), sequence_pb2.Opened)
        assert reason(await other.ask(open_(5))) == "TOO_MANY_SEQUENCES"
        await other.ask(close(0, 2))
        for step in range(6, 12):
            await stream.say(steps(0, step, ROWS[step]))
            while not isinstance(answer := await stream.hear(), sequence_pb2.Answers):
                pass  # checkpoints
            heard.append(bits(answer))
    assert heard == expected


async def test_a_state_is_a_value_from_which_others_begin(server: RunningServer) -> None:
    expected = await undisturbed(server, 30)
    async with RawStream(server.address) as stream:
        await stream.ask(open_())
        await stream.run(0, 0, ROWS[:10])
        read = (await stream.ask(StreamRequest(read_state=sequence_pb2.ReadState(handle=0)))).state
        assert read.step == 10
        assert {(part.layer, part.name) for part in read.parts} == {(i, n) for i in (0, 1) for n in ("hidden", "cell")}
        opened = await stream.ask(open_(1, count=2, state=read))
        assert list(opened.next_steps) == [10, 10]
        assert await stream.run(1, 10, ROWS[10:30]) == expected[10:]
        assert await stream.run(0, 10, ROWS[10:30]) == expected[10:]
        assert await stream.run(2, 10, ROWS[10:30]) == expected[10:]


async def test_a_state_that_does_not_fit_is_refused_with_what_was_expected(server: RunningServer) -> None:
    async with RawStream(server.address) as stream:
        await stream.ask(open_())
        read = (await stream.ask(StreamRequest(read_state=sequence_pb2.ReadState(handle=0)))).state
        for spoil in ("name", "size", "missing", "twice", "infinite"):
            bad = sequence_pb2.State()
            bad.CopyFrom(read)
            part = bad.parts[0]
            match spoil:
                case "name":
                    part.name = "gate"
                case "size":
                    part.value.CopyFrom(wire.encode("", wire.decode(part.value)[:-1]))
                case "missing":
                    del bad.parts[0]
                case "twice":
                    bad.parts.append(part)
                case "infinite":
                    part.value.CopyFrom(wire.encode("", wire.decode(part.value) * np.float32("nan")))
            failure = await stream.ask(open_(1, state=bad))
            assert reason(failure) == "WRONG_STATE", spoil
            assert "layer 0" in failure.error.message
        assert isinstance(await stream.ask(open_(1)), sequence_pb2.Opened)


async def test_a_sequence_rewinds_to_a_checkpoint_and_goes_on_from_there(server: RunningServer) -> None:
    expected = await undisturbed(server, 60)
    async with RawStream(server.address) as stream:
        await stream.ask(open_())
        told = 0
        step = await checkpointed(stream, 0, 0, 1)
        told = (await stream.ask(acked(0, step, ROWS[step]))).checkpointed
        rewound = await stream.ask(StreamRequest(rewind=sequence_pb2.Rewind(handle=0, step=told)))
        assert isinstance(rewound, sequence_pb2.Rewound)
        assert rewound.next_step == told
        assert await stream.run(0, told, ROWS[told:60]) == expected[told:]
        failure = await stream.ask(StreamRequest(rewind=sequence_pb2.Rewind(handle=3, step=0)))
        assert reason(failure) == "UNKNOWN_HANDLE"


def reason_of(released: sequence_pb2.Released) -> str:
    return reason(sequence_pb2.Failure(error=released.error))


@pytest.fixture
def two_versions(tmp_path: Path, lstm_only: Path) -> Path:
    """The same network twice, the second with another output layer."""
    folder = tmp_path / "versions"
    original = next(lstm_only.glob("*/1/model.onnx"))
    for version in ("1", "2"):
        (folder / "lstm" / version).mkdir(parents=True)
    model = onnx.load(original)
    onnx.save(model, folder / "lstm" / "1" / "model.onnx")
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    last = next(name for node in reversed(model.graph.node) for name in node.input if name in weights)
    weights[last].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights[last]) * 2, last))
    onnx.save(model, folder / "lstm" / "2" / "model.onnx")
    return folder


async def test_a_sequence_moves_to_another_version_with_its_memory(
    start: Callable[..., RunningServer], two_versions: Path, store: str
) -> None:
    server = start(two_versions, "--store", store, "--keep-versions", "2").ready()
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0, version=1))
        await stream.ask(open_(1, version=2))
        old = await stream.run(0, 0, ROWS[:20])
        new = await stream.run(1, 0, ROWS)
        assert old != new[:20]
        moved = await stream.ask(StreamRequest(move=sequence_pb2.Move(handle=0, version=2)))
        assert isinstance(moved, sequence_pb2.Moved)
        assert (moved.version, moved.next_step) == (2, 20)
        assert await stream.run(0, 20, ROWS[20:60]) == new[20:60]
    server.process.kill()
    server.wait()


async def test_a_sequence_that_moved_is_resumed_with_its_new_version(
    start: Callable[..., RunningServer], two_versions: Path, store: str
) -> None:
    first = start(two_versions, "--store", store, "--keep-versions", "2").ready()
    async with RawStream(first.address) as stream:
        await stream.ask(open_(1, version=2))
        expected = await stream.run(1, 0, ROWS)
        opened = await stream.ask(open_(0, version=1))
        await stream.run(0, 0, ROWS[:20])
        await stream.ask(StreamRequest(move=sequence_pb2.Move(handle=0)))
        first.process.kill()
    second = start(two_versions, "--store", store, "--keep-versions", "2").ready()
    async with RawStream(second.address) as stream:
        again = await stream.ask(resume(list(opened.sequence_ids), opened.resume_token, [20]))
        assert (again.version, list(again.next_steps)) == (2, [20])
        assert await stream.run(0, 20, ROWS[20:]) == expected[20:]


async def test_a_parked_sequence_of_a_superseded_version_comes_back_to_it_and_takes_it_along_when_it_ends(
    start: Callable[..., RunningServer], lstm_only: Path, store: str
) -> None:
    server = start(lstm_only, "--store", store, "--poll-seconds", "0.05").ready()
    expected = await undisturbed(server)
    async with RawStream(server.address) as stream:
        opened = await stream.ask(open_())
        heard = await stream.run(0, 0, ROWS[:20])
        add(Spec(hidden=5, layers=2, seed=77), lstm_only, "lstm", 2)  # a state of another size
        await asyncio.to_thread(server.line, "serving lstm version 2")
        heard += await stream.run(0, 20, ROWS[20:40])
        failure = await stream.ask(StreamRequest(move=sequence_pb2.Move(handle=0)))
        assert reason(failure) == "WRONG_STATE"
        heard += await stream.run(0, 40, ROWS[40:50])
    await asyncio.to_thread(server.line, "unloading lstm version 1")
    seen = len(server.lines)
    async with RawStream(server.address) as stream:
        assert (await stream.ask(open_(5))).version == 2
        again = await stream.ask(resume(list(opened.sequence_ids), opened.resume_token, [50]))
        assert reason(again) == "MODEL_NOT_READY"
        await asyncio.to_thread(server.line, "serving lstm version 1", seen)
        again = await stream.ask(resume(list(opened.sequence_ids), opened.resume_token, [50]))
        assert (again.version, list(again.next_steps)) == (1, [50])
        assert heard + await stream.run(0, 50, ROWS[50:]) == expected
        assert (await stream.ask(open_(6))).version == 2
        await stream.ask(close(0))
        await asyncio.to_thread(server.line, "unloading lstm version 1", seen)
