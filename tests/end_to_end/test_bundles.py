"""Several requests in one message, and several answers in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.raw_stream import NO_TRACE, RawStream, bits, open_, reason, steps
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
