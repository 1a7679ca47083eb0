"""Several requests in one message, and several answers in one."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bench.attacks.frames import DATA, PREFACE, SETTINGS, call, frame
from tests.raw_stream import NO_TRACE, PATIENCE, RawStream, bits, content, fleet, open_, reason, selection, steps
from tidegate.v1 import sequence_pb2
from tidegate.v1.sequence_pb2 import StreamRequest, StreamResponse

if TYPE_CHECKING:
    from tests.running_server import RunningServer


def bundle(*requests: StreamRequest) -> StreamRequest:
    first = StreamRequest()
    first.CopyFrom(requests[0])
    first.more.extend(requests[1:])
    return first


async def answers(stream: RawStream, count: int) -> tuple[dict[tuple[int, int], bytes], int]:
    """Hears `count` answers: their bits by handle and step, and in how many messages they came."""
    heard: dict[tuple[int, int], bytes] = {}
    messages = 0
    while len(heard) < count:
        response: Any = await stream.call.read()
        messages += 1
        for part in (response, *response.more):
            assert isinstance(part, StreamResponse)
            assert not part.more or part is response
            heard[part.answers.handle, part.answers.first_step] = bits(part.answers)
    return heard, messages


@pytest.mark.parametrize("trace", [NO_TRACE, None])
async def test_a_bundle_is_answered_in_fewer_messages_and_with_the_same_bits(
    server: RunningServer, trace: sequence_pb2.TraceSelection | None
) -> None:
    rows = np.random.default_rng(0).standard_normal((5, 8, 3), dtype=np.float32)
    plain: dict[tuple[int, int], bytes] = {}
    async with RawStream(server.address) as alone:
        for handle in range(8):
            await alone.ask(open_(handle, trace=trace))
            for step, bytes_ in enumerate(await alone.run(handle, 0, rows[:, handle])):
                plain[handle, step] = bytes_
    async with RawStream(server.address) as stream:
        for handle in range(8):
            await stream.ask(open_(handle, trace=trace, bundle=True))
        told: dict[tuple[int, int], bytes] = {}
        messages = 0
        for step in range(5):
            await stream.say(bundle(*(steps(handle, step, rows[step, handle]) for handle in range(8))))
            heard, count = await answers(stream, 8)
            told |= heard
            messages += count
    assert told == plain
    assert messages < len(plain)


async def test_answers_come_one_a_message_to_a_client_that_did_not_ask_for_bundles(server: RunningServer) -> None:
    rows = np.zeros((4, 3), np.float32)
    async with RawStream(server.address) as stream:
        for handle in range(4):
            await stream.ask(open_(handle, trace=NO_TRACE))
        await stream.say(bundle(*(steps(handle, 0, rows[handle]) for handle in range(4))))
        _, messages = await answers(stream, 4)
    assert messages == 4


async def test_a_bad_request_in_a_bundle_leaves_the_others_alone(server: RunningServer) -> None:
    row = np.zeros(3, np.float32)
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0))
        await stream.ask(open_(1))
        await stream.say(bundle(steps(0, 7, row), steps(1, 0, row), steps(9, 0, row)))
        heard = [await stream.hear() for _ in range(3)]
    failures = [one for one in heard if isinstance(one, sequence_pb2.Failure)]
    assert sorted(reason(failure) for failure in failures) == ["UNKNOWN_HANDLE", "WRONG_STEP"]
    assert [one.handle for one in heard if isinstance(one, sequence_pb2.Answers)] == [1]


async def test_a_bundle_in_a_bundle_is_refused_whole(server: RunningServer) -> None:
    row = np.zeros(3, np.float32)
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0))
        failure = await stream.ask(bundle(steps(0, 0, row), bundle(steps(0, 1, row), steps(0, 2, row))))
        assert reason(failure) == "MALFORMED"
        assert bits(await stream.ask(steps(0, 0, row)))


def odd(random: np.random.Generator, handle: int, step: int) -> list[StreamRequest]:
    """A request that is not quite a step of a sequence as others have it, or two."""
    row = random.standard_normal(3, dtype=np.float32)
    tensor = {"type": 1, "shape": [3], "values": row.tolist()}
    by_values = StreamRequest()
    by_values.steps.handle, by_values.steps.first_step = handle, step
    by_values.steps.inputs.add(name="", **tensor)
    both, cut = steps(handle, step, row), steps(handle, step, row)
    both.steps.inputs[0].values.extend(row.tolist())
    cut.steps.inputs[0].data = row.tobytes()[:8]
    eager = steps(handle, step, row)
    eager.steps.answered = 2**64 - 1
    two = steps(handle, step, row)
    two.steps.inputs.append(two.steps.inputs[0])
    kinds = [
        [steps(handle, step + 5, row)],
        [steps(handle, 2**63 + 1, row)],
        [steps(4_000_000_000, 0, row)],
        [steps(handle, step, np.full(3, np.nan, np.float32))],
        [steps(handle, step, row.astype(np.float64))],
        [steps(handle, step, row[:2])],
        [steps(handle, step, np.stack([row, row]))],
        [steps(handle, step, row[np.newaxis])],
        [steps(handle, step, row), steps(handle, step + 1, row)],
        [steps(handle, step, row), steps(handle, step, row)],
        [steps(handle, step, row, "nobody")],
        [fleet([handle], [step], row[np.newaxis])],
        [StreamRequest(), StreamRequest(steps=sequence_pb2.Steps(handle=handle, first_step=step))],
        [by_values],
        [both],
        [cut],
        [eager],
        [two],
    ]
    return kinds[random.integers(len(kinds))]


def outcome(response: StreamResponse) -> tuple[Any, ...]:
    """What a response says, but in which message it came."""
    one = content(response)
    if isinstance(one, sequence_pb2.Failure):
        return "failure", tuple(one.handles), one.first_step, tuple(one.expected_steps), one.request, one.error.message
    if isinstance(one, sequence_pb2.FleetAnswers):
        return "fleet", one.handles, one.steps, *(x.data for x in one.outputs), one.trace.data
    rows = one.outputs[0].shape[0]
    return "answers", one.handle, one.first_step, rows, *(x.data for x in one.outputs), one.trace.data


async def outcomes(stream: RawStream, count: int) -> list[tuple[Any, ...]]:
    heard = list[tuple[Any, ...]]()
    while len(heard) < count:
        response: Any = await stream.call.read()
        heard += map(outcome, (response, *response.more))
    return heard


@pytest.mark.parametrize("bundled", [True, False], ids=["bundled answers", "an answer a message"])
@pytest.mark.parametrize("trace", [NO_TRACE, selection(every=2), None], ids=["no trace", "every other", "trace"])
async def test_requests_that_come_together_are_answered_as_if_each_had_come_by_itself(
    server: RunningServer, trace: sequence_pb2.TraceSelection | None, bundled: bool
) -> None:
    random = np.random.default_rng(7)
    rounds = list[tuple[list[StreamRequest], list[tuple[Any, ...]]]]()
    due = [0] * 12
    async with (
        RawStream(server.address) as apart,
        RawStream(server.address) as whole,
        RawStream(server.address) as at_once,
    ):
        for stream in (apart, whole, at_once):
            for handle in range(12):
                await stream.ask(open_(handle, trace=trace, bundle=bundled))
        for number in range(24):
            requests, alone = list[StreamRequest](), list[tuple[Any, ...]]()
            for handle in random.permutation(12).tolist():
                more = [steps(handle, due[handle], random.standard_normal(3, dtype=np.float32))]
                if number % 4 and random.random() < 0.15:
                    more = odd(random, handle, due[handle])
                for request in more:
                    await apart.say(request)
                    alone += (told := await outcomes(apart, 1))
                    if told[0][0] == "answers":
                        due[handle] = told[0][2] + told[0][3]
                    due[handle] += told[0][0] == "fleet"
                requests += more
            await whole.say(bundle(*requests))
            assert sorted(await outcomes(whole, len(requests)), key=repr) == sorted(alone, key=repr)
            await at_once.say(*requests)
            assert sorted(await outcomes(at_once, len(requests)), key=repr) == sorted(alone, key=repr)
            rounds.append((requests, alone))
    told = [one[0] for _, alone in rounds for one in alone]
    assert told.count("answers") > 200
    assert told.count("failure") > 10


async def test_hundreds_of_steps_in_one_frame_of_a_stream_that_goes_on_are_all_answered(server: RunningServer) -> None:
    rows = np.random.default_rng(0).standard_normal((300, 3), dtype=np.float32)
    requests = [open_(trace=NO_TRACE), *(steps(0, step, row) for step, row in enumerate(rows))]
    messages = b"".join(struct.pack(">BI", 0, each.ByteSize()) + each.SerializeToString() for each in requests)
    assert len(messages) < 2**14  # it is one frame
    reader, writer = await asyncio.open_connection(*server.address.split(":"))
    writer.write(PREFACE + frame(SETTINGS, 0, 0) + call(1) + frame(DATA, 0, 1, messages))
    heard, answered = b"", 0
    while answered < len(rows):
        head = await asyncio.wait_for(reader.readexactly(9), PATIENCE)
        payload = await reader.readexactly(int.from_bytes(head[:3]))
        heard += payload if head[3] == DATA else b""
        while len(heard) >= 5 and len(heard) >= (end := 5 + int.from_bytes(heard[1:5])):
            answered += StreamResponse.FromString(heard[5:end]).HasField("answers")
            heard = heard[end:]
    writer.close()
