"""A bad request changes nothing: it gets its own reason, the sequence goes on as it was, and so does everyone else."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.end_to_end.bystander import bystander
from tests.raw_stream import RawStream, bits, close, fleet, open_, reason, rows_of, selection, steps
from tidegate import wire
from tidegate.v1 import sequence_pb2, tidegate_pb2
from tidegate.v1.sequence_pb2 import StreamRequest
from tidegate.v1.tensor_pb2 import DATA_TYPE_FLOAT32, DATA_TYPE_INT64, Tensor
from tidegate.v1.tidegate_pb2_grpc import TidegateStub

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.running_server import RunningServer

ROWS = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
NAN, INF = float("nan"), float("inf")
AT = 5  # the step that is expected when the bad request comes


def row(*values: float, dtype: type = np.float32) -> np.ndarray:
    return np.array(values, dtype)


def spoilt(value: float, steps: int = 8) -> np.ndarray:
    """A chunk that is good but for one element."""
    rows = ROWS[AT : AT + steps].copy()
    rows[steps // 2, 1] = value
    return rows


def tensors(*inputs: Tensor, handle: int = 0, first: int = AT) -> StreamRequest:
    return StreamRequest(steps=sequence_pb2.Steps(handle=handle, first_step=first, inputs=inputs))


def tensor(**fields: object) -> Tensor:
    return Tensor(**{"type": DATA_TYPE_FLOAT32, "shape": [3]} | fields)


def fleet_message(**fields: object) -> StreamRequest:
    return StreamRequest(fleet=sequence_pb2.FleetSteps(**fields))


def resume_of(*ids: str) -> StreamRequest:
    return StreamRequest(resume=sequence_pb2.Resume(handle=9, sequence_ids=ids, answered=[0] * len(ids)))


@dataclass(frozen=True)
class Bad:
    what: str
    request: StreamRequest | bytes
    reason: str
    handles: tuple[int, ...] = (0,)
    expected: tuple[int, ...] = (AT,)


GOOD = wire.encode("", ROWS[AT])
PART = sequence_pb2.TraceSelection
BAD = [
    Bad("a row that is too long", steps(0, AT, row(1, 2, 3, 4)), "WRONG_SHAPE"),
    Bad("rows that are too short", steps(0, AT, np.zeros((4, 2), np.float32)), "WRONG_SHAPE"),
    Bad("an axis too many", steps(0, AT, np.zeros((1, 1, 3), np.float32)), "WRONG_SHAPE"),
    Bad("no steps at all", steps(0, AT, np.zeros((0, 3), np.float32)), "WRONG_SHAPE"),
    Bad("a scalar", steps(0, AT, np.float32(1)[...]), "WRONG_SHAPE"),
    Bad("a negative axis", tensors(tensor(shape=[-1, 3], data=b"")), "WRONG_SHAPE"),
    Bad("more axes than an array has", tensors(tensor(shape=[1] * 70 + [3], data=bytes(12))), "WRONG_SHAPE"),
    Bad("five thousand axes of the largest size", tensors(tensor(shape=[2**62] * 5_000)), "WRONG_SHAPE"),
    Bad("a hundred thousand axes of the largest size", tensors(tensor(shape=[2**62] * 100_000)), "TOO_LARGE", (), ()),
    Bad("five thousand empty tensors", tensors(*[tensor(shape=[0])] * 5_000), "TOO_LARGE"),
    Bad("a hundred thousand empty tensors", tensors(*[tensor(shape=[0])] * 100_000), "TOO_LARGE", (), ()),
    Bad("doubles", steps(0, AT, row(1, 2, 3, dtype=np.float64)), "WRONG_TYPE"),
    Bad("integers", steps(0, AT, row(1, 2, 3, dtype=np.int64)), "WRONG_TYPE"),
    Bad("a type that there is not", tensors(tensor(type=99, data=bytes(12))), "WRONG_TYPE"),
    Bad("no type", tensors(tensor(type=0, data=bytes(12))), "WRONG_TYPE"),
    Bad("a fraction as an integer", tensors(tensor(type=DATA_TYPE_INT64, values=[1, 2, 0.5])), "WRONG_TYPE"),
    Bad("a byte too few", tensors(tensor(data=bytes(11))), "WRONG_SIZE"),
    Bad("a value too many", tensors(tensor(values=[1, 2, 3, 4])), "WRONG_SIZE"),
    Bad("a shape beyond all memory", tensors(tensor(shape=[2**62, 3], data=bytes(12))), "WRONG_SIZE"),
    Bad("data and values at once", tensors(tensor(data=bytes(12), values=[1, 2, 3])), "MALFORMED"),
    Bad("NaN", steps(0, AT, row(1, NAN, 3)), "NOT_FINITE"),
    Bad("Inf", steps(0, AT, row(1, 2, INF)), "NOT_FINITE"),
    Bad("-Inf", steps(0, AT, row(-INF, 2, 3)), "NOT_FINITE"),
    Bad("NaN as a value", tensors(tensor(values=[1, 2, NAN])), "NOT_FINITE"),
    Bad("a value beyond float32", tensors(tensor(values=[1, 2, 1e300])), "NOT_FINITE"),
    Bad("NaN in the middle of a chunk", steps(0, AT, spoilt(NAN)), "NOT_FINITE"),
    Bad("Inf in the middle of a chunk", steps(0, AT, spoilt(INF)), "NOT_FINITE"),
    Bad("a name that there is not", steps(0, AT, ROWS[AT], "z"), "WRONG_NAME"),
    Bad("no input", tensors(), "WRONG_NAME"),
    Bad("an input too many", tensors(GOOD, GOOD), "WRONG_NAME"),
    Bad("a gap", steps(0, AT + 1, ROWS[AT]), "WRONG_STEP"),
    Bad("a repetition", steps(0, AT - 1, ROWS[AT - 1]), "WRONG_STEP"),
    Bad("a step beyond all numbers", steps(0, 2**64 - 1, ROWS[AT]), "WRONG_STEP"),
    Bad("a handle that is not open", steps(7, 0, ROWS[0]), "UNKNOWN_HANDLE", (7,), ()),
    Bad("the largest handle", steps(2**32 - 1, 0, ROWS[0]), "UNKNOWN_HANDLE", (2**32 - 1,), ()),
    Bad("a handle that is open", open_(0), "HANDLE_IN_USE", (0,), (AT,)),
    Bad("handles of which one is open", open_(3, count=4), "HANDLE_IN_USE", (3,), ()),
    Bad("a model that there is not", open_(9, "nothing"), "UNKNOWN_MODEL", (9,), ()),
    Bad("no model", open_(9, ""), "UNKNOWN_MODEL", (9,), ()),
    Bad("a version that there is not", open_(9, version=12), "UNKNOWN_VERSION", (9,), ()),
    Bad("the largest version", open_(9, version=2**64 - 1), "UNKNOWN_VERSION", (9,), ()),
    Bad("a model that was refused", open_(9, "garbage"), "MODEL_REFUSED", (9,), ()),
    Bad("a layer that there is not", open_(9, trace=selection(layers=[0, 2])), "BAD_TRACE", (9,), ()),
    Bad("ten thousand layers", open_(9, trace=selection(layers=range(10_000))), "TOO_LARGE", (9,), ()),
    Bad("a hundred thousand layers", open_(9, trace=selection(layers=range(100_000))), "TOO_LARGE", (), ()),
    Bad("cells of a GRU", open_(9, "gru", trace=selection(parts=[PART.PART_CELL])), "BAD_TRACE", (9,), ()),
    Bad("gates of an RNN", open_(9, "rnn", trace=selection(parts=[PART.PART_GATES])), "BAD_TRACE", (9,), ()),
    Bad("a part without a name", open_(9, trace=selection(parts=[PART.PART_UNSPECIFIED])), "BAD_TRACE", (9,), ()),
    Bad("a part that there is not", open_(9, trace=selection(parts=[77])), "BAD_TRACE", (9,), ()),
    Bad("nothing and something", open_(9, trace=selection(none=True, layers=[0])), "BAD_TRACE", (9,), ()),
    Bad("nothing and every second", open_(9, trace=selection(none=True, every=2)), "BAD_TRACE", (9,), ()),
    Bad("an encoding that there is not", open_(9, encoding=5), "MALFORMED", (9,), ()),
    Bad("more sequences than there may be", open_(9, count=70_000), "TOO_MANY_SEQUENCES", (9,), ()),
    Bad("a handle beyond the limit", open_(2**32 - 1), "TOO_MANY_SEQUENCES", (2**32 - 1,), ()),
    Bad("an owner with a long name", open_(9, owner="ö" * 65), "TOO_LARGE", (9,), ()),
    Bad("a model with a name of nearly a megabyte", open_(9, "x" * 900_000), "UNKNOWN_MODEL", (9,), ()),
    Bad("a resume of none", StreamRequest(resume=sequence_pb2.Resume(handle=9)), "MALFORMED", (), ()),
    Bad("a resume of an id of nearly a megabyte", resume_of("x" * 900_000), "TOO_LARGE", (9,), ()),
    Bad("an empty message", StreamRequest(), "MALFORMED", (), ()),
    Bad("bytes that are no message", b"\xff\xff\xff\xff", "MALFORMED", (), ()),
    Bad("a message that is cut", steps(0, AT, ROWS[AT]).SerializeToString()[:-3], "MALFORMED", (), ()),
    Bad("a message that is too large", steps(0, AT, np.zeros((100_000, 3), np.float32)), "TOO_LARGE", (), ()),
    Bad("a fleet of none", fleet([], [], np.zeros((0, 3), np.float32)), "MALFORMED", (), ()),
    Bad("a fleet with a step too few", fleet([0, 5], [AT], ROWS[:2]), "MALFORMED", (0, 5), (AT, 0)),
    Bad("a fleet with a row too few", fleet([0, 5], [AT, 0], ROWS[:1]), "WRONG_SHAPE", (0, 5), (AT, 0)),
    Bad("a fleet that names a handle twice", fleet([0, 0], [AT, AT], ROWS[:2]), "MALFORMED", (0, 0), (AT, AT)),
    Bad("a fleet with a handle that is not open", fleet([0, 8], [AT, 0], ROWS[:2]), "UNKNOWN_HANDLE", (0, 8), ()),
    Bad("a fleet with a gap", fleet([0, 5], [AT, 1], ROWS[:2]), "WRONG_STEP", (0, 5), (AT, 0)),
    Bad("a fleet with NaN", fleet([0, 5], [AT, 0], spoilt(NAN, 2)), "NOT_FINITE", (0, 5), (AT, 0)),
    Bad("a fleet of different models", fleet([0, 6], [AT, 0], ROWS[:2]), "MALFORMED", (0, 6), (AT, 0)),
    Bad(
        "handles that are no whole numbers",
        fleet_message(handles=b"\x00" * 5, steps=bytes(8), inputs=[GOOD]),
        "WRONG_SIZE",
        (0,),
        (AT,),
    ),
    Bad(
        "step numbers that are no whole numbers",
        fleet_message(handles=bytes(4), steps=bytes(7), inputs=[GOOD]),
        "WRONG_SIZE",
    ),
    Bad("the end of a sequence that is not open", close(8), "UNKNOWN_HANDLE", (8,), ()),
    Bad("the end of some that are not open", close(0, 3), "UNKNOWN_HANDLE"),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.what)
async def test_a_bad_request_has_its_own_reason_and_changes_nothing(server: RunningServer, bad: Bad) -> None:
    async with bystander(server.address) as other, RawStream(server.address) as stream:
        await stream.say(open_(0, count=2), open_(5), open_(6, "gru"))
        [await stream.hear() for _ in range(3)]
        heard = await stream.run(0, 0, ROWS[:AT])
        failure = await stream.ask(bad.request)
        assert reason(failure) == bad.reason
        assert len(failure.error.message) < 3_000
        assert tuple(failure.handles) == bad.handles
        assert tuple(failure.expected_steps) == bad.expected
        if failure.handles:  # it could be read
            assert failure.request == bad.request.WhichOneof("request")
        heard += await stream.run(0, AT, ROWS[AT:12])
        assert heard == await stream.run(1, 0, ROWS[:12])
        await stream.run(5, 0, ROWS[:2])  # the others of the same stream stand where they stood
        assert [type(event).__name__ for event in await stream.rest()] == []
        await other.more(1)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.what)
async def test_steps_on_their_way_before_and_after_a_bad_request_are_answered(server: RunningServer, bad: Bad) -> None:
    async with RawStream(server.address) as stream:
        await stream.say(open_(0, count=2), open_(5), open_(6, "gru"))
        [await stream.hear() for _ in range(3)]
        before = [steps(0, i, ROWS[i]) for i in range(AT)]
        after = [steps(0, i, ROWS[i]) for i in range(AT, 12)]
        await stream.say(*before, bad.request, *after)
        events = [await stream.hear() for _ in range(13)]
        failures = [event for event in events if isinstance(event, sequence_pb2.Failure)]
        assert [reason(failure) for failure in failures] == [bad.reason]
        heard = [bits(event) for event in events if isinstance(event, sequence_pb2.Answers)]
        assert heard == await stream.run(1, 0, ROWS[:12])


async def test_more_handles_than_memory_holds_cannot_be_closed(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    small = start(lstm_only).ready()
    limit_memory(small, more=2**30)
    async with bystander(small.address), RawStream(small.address) as stream:
        await stream.ask(open_())
        assert reason(await stream.ask(close(0, 2**32 - 1))) == "UNKNOWN_HANDLE"
        await stream.run(0, 0, ROWS[:3])


def limit_memory(server: RunningServer, more: int) -> None:
    """What would take `more` bytes than now fails, instead of taking the machine's memory."""
    taken = int(Path(f"/proc/{server.process.pid}/statm").read_text(encoding="ascii").split()[0])
    limit = taken * resource.getpagesize() + more
    resource.prlimit(server.process.pid, resource.RLIMIT_AS, (limit, limit))


async def test_a_message_far_beyond_the_limit_ends_that_stream_only(server: RunningServer) -> None:
    async with bystander(server.address), RawStream(server.address) as stream:
        await stream.ask(open_())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.ask(steps(0, 0, np.zeros((1_000_000, 3), np.float32)))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_more_sequences_than_the_limit_are_refused_until_one_ends(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    limited = start(lstm_only, "--max-sequences", "10").ready()
    async with RawStream(limited.address) as one, RawStream(limited.address) as two:
        await one.ask(open_(0, count=8))
        assert reason(await two.ask(open_(0, count=3))) == "TOO_MANY_SEQUENCES"
        assert reason(await one.ask(open_(8, count=3))) == "TOO_MANY_SEQUENCES"
        await two.ask(open_(0, count=2))
        assert reason(await two.ask(open_(5))) == "TOO_MANY_SEQUENCES"
        await one.ask(close(3))
        await two.ask(open_(5))
        expected = await one.run(0, 0, ROWS[:6])
        assert await two.run(5, 0, ROWS[:6]) == expected, "a slot that is taken again holds nothing of its past"


async def test_more_streams_than_the_limit_are_refused_until_one_ends(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    limited = start(lstm_only, "--max-streams", "2", "--max-share", "100").ready()
    async with RawStream(limited.address) as one:
        await one.ask(open_())
        async with RawStream(limited.address) as two:
            await two.ask(open_())
            async with RawStream(limited.address) as three:
                # nothing is said: a write that comes after the refusal fails in grpc.aio with a status of its own
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await three.hear()
            assert of_status(caught.value) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
            assert await two.rest() == []
        async with RawStream(limited.address) as four:
            assert isinstance(await four.ask(open_()), sequence_pb2.Opened)
        await one.run(0, 0, ROWS[:3])


def of_status(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str]:
    """The code, and the word of the google.rpc.ErrorInfo."""
    status = rpc_status.from_call(Call(error))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "tidegate"
    return error.code(), info.reason


class Call:
    """What rpc_status reads, of an error of grpc.aio."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self._error = error

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return tuple(self._error.trailing_metadata() or ())

    def code(self) -> grpc.StatusCode:
        return self._error.code()

    def details(self) -> str:
        return self._error.details() or ""


@pytest.mark.parametrize(
    ("request_", "code", "word"),
    [
        (tidegate_pb2.PredictRequest(model="nothing"), "NOT_FOUND", "UNKNOWN_MODEL"),
        (tidegate_pb2.PredictRequest(model="lstm", version=3), "NOT_FOUND", "UNKNOWN_VERSION"),
        (tidegate_pb2.PredictRequest(model="both-ways"), "FAILED_PRECONDITION", "MODEL_REFUSED"),
        (tidegate_pb2.PredictRequest(model="lstm"), "INVALID_ARGUMENT", "WRONG_NAME"),
        (
            tidegate_pb2.PredictRequest(model="lstm", inputs=[wire.encode("", spoilt(NAN))]),
            "INVALID_ARGUMENT",
            "NOT_FINITE",
        ),
        (
            tidegate_pb2.PredictRequest(model="lstm", inputs=[GOOD], trace=selection(layers=[4])),
            "INVALID_ARGUMENT",
            "BAD_TRACE",
        ),
        (
            tidegate_pb2.PredictRequest(model="tokens", inputs=[wire.encode("", np.array([1, 2, 99]))]),
            "INVALID_ARGUMENT",
            "STEP_FAILED",
        ),
        (tidegate_pb2.DescribeModelRequest(model="nothing"), "NOT_FOUND", "UNKNOWN_MODEL"),
        (tidegate_pb2.DescribeModelRequest(model="lstm", version=3), "NOT_FOUND", "UNKNOWN_VERSION"),
    ],
    ids=str,
)
async def test_a_unary_call_that_fails_says_why_to_machines_too(
    server: RunningServer, request_: object, code: str, word: str
) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = TidegateStub(channel)
        method = stub.Predict if isinstance(request_, tidegate_pb2.PredictRequest) else stub.DescribeModel
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request_)
    assert of_status(caught.value) == (grpc.StatusCode[code], word)
    assert "Traceback" not in (caught.value.details() or "")


# A step that the model cannot compute.

TOKENS = np.random.default_rng(2).integers(0, 10, 40)


def token(value: int) -> np.ndarray:
    return np.array(value, np.int64)


async def test_a_token_out_of_range_fails_its_step_and_those_sent_after_it(server: RunningServer) -> None:
    async with bystander(server.address), RawStream(server.address) as stream:
        await stream.ask(open_(0, "tokens", count=2))
        expected = await stream.run(1, 0, TOKENS[:12])
        good = [steps(0, i, token(TOKENS[i])) for i in range(9)]
        await stream.say(*good[:5], steps(0, 5, token(10)), *good[6:9])
        events = [await stream.hear() for _ in range(9)]
        assert [bits(event) for event in events[:5]] == expected[:5]
        assert [reason(event) for event in events[5:]] == ["STEP_FAILED", "WRONG_STEP", "WRONG_STEP", "WRONG_STEP"]
        assert [event.first_step for event in events[5:]] == [5, 6, 7, 8]
        assert [list(event.expected_steps) for event in events[5:]] == [[5]] * 4
        assert await stream.run(0, 5, TOKENS[5:12]) == expected[5:]
        assert await stream.rest() == []


async def test_a_chunk_is_answered_up_to_the_step_that_fails(server: RunningServer) -> None:
    spoiled = TOKENS[:30].copy()
    spoiled[17] = -99
    async with bystander(server.address), RawStream(server.address) as stream:
        await stream.ask(open_(0, "tokens", count=2))
        expected = await stream.run(1, 0, TOKENS)
        await stream.say(steps(0, 0, spoiled), steps(0, 30, TOKENS[30:35]))
        answer, failure, refused = [await stream.hear() for _ in range(3)]
        assert rows_of(answer) == expected[:17]
        assert (reason(failure), failure.first_step, list(failure.expected_steps)) == ("STEP_FAILED", 17, [17])
        assert (reason(refused), list(refused.expected_steps)) == ("WRONG_STEP", [17])
        assert rows_of(await stream.ask(steps(0, 17, TOKENS[17:]))) == expected[17:]
        assert await stream.rest() == []


async def test_a_fleet_is_answered_but_for_the_sequence_that_fails(server: RunningServer) -> None:
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0, "tokens", count=5))
        expected = await stream.run(4, 0, TOKENS[:3])
        spoiled = np.array([TOKENS[0], 10, TOKENS[0], TOKENS[0]])
        await stream.say(fleet([0, 1, 2, 3], [0] * 4, spoiled), fleet([0, 1, 2, 3], [1] * 4, np.repeat(TOKENS[1], 4)))
        events = [await stream.hear() for _ in range(3)]
        words = [reason(event) for event in events if isinstance(event, sequence_pb2.Failure)]
        (answers,) = [event for event in events if isinstance(event, sequence_pb2.FleetAnswers)]
        assert words == ["STEP_FAILED", "WRONG_STEP"]
        assert np.frombuffer(answers.handles, "<u4").tolist() == [0, 2, 3]
        assert rows_of(answers) == [expected[0]] * 3
        assert await stream.run(1, 0, TOKENS[:3]) == expected
        assert rows_of(await stream.ask(fleet([3, 0], [1, 1], np.repeat(TOKENS[1], 2)))) == [expected[1]] * 2
        assert await stream.run(2, 1, TOKENS[1:3]) == expected[1:]
        assert await stream.rest() == []


async def test_a_stream_ends_in_peace_after_a_fleet_of_which_every_step_fails(server: RunningServer) -> None:
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0, "tokens", count=3))
        await stream.say(fleet([0, 1, 2], [0] * 3, np.array([10, 11, 12])))
        assert [reason(await stream.hear()) for _ in range(3)] == ["STEP_FAILED"] * 3
        await stream.run(0, 0, TOKENS[:3])
        assert await stream.rest() == []


async def test_a_failing_step_in_a_batch_does_not_change_the_others_of_the_batch(server: RunningServer) -> None:
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0, "tokens", count=41))
        expected = await stream.run(40, 0, TOKENS[:8])
        await stream.say(
            *(
                steps(handle, step, token(99 if (handle, step) == (7, 3) else TOKENS[step]))
                for step in range(8)
                for handle in range(40)
            )
        )
        heard: dict[int, list[bytes]] = {}
        failures = []
        for _ in range(320):
            event = await stream.hear()
            if isinstance(event, sequence_pb2.Failure):
                failures.append((reason(event), *event.handles, event.first_step))
            else:
                heard.setdefault(event.handle, []).append(bits(event))
        assert failures == [("STEP_FAILED", 7, 3), *(("WRONG_STEP", 7, step) for step in range(4, 8))]
        assert heard.pop(7) == expected[:3]
        assert list(heard.values()) == [expected] * 39
        assert await stream.run(7, 3, TOKENS[3:8]) == expected[3:]
