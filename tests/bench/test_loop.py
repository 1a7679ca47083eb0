"""Closed loops over a call, which is a list of what they send here."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from bench.client.loop import Loops, Window, now
from bench.client.traffic import OneSequence
from bench.scenario import OUTPUTS, Scenario
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1 import tensor_pb2


class Call:
    def __init__(self) -> None:
        self.sent = list[bytes]()
        self.heard: Any = None
        self.ended: Any = None

    def send(self, message: bytes) -> None:
        self.sent.append(message)

    def asked(self) -> list[list[tuple[int, int]]]:
        """The handles and steps of each message since the last look."""
        requests = [pb.StreamRequest.FromString(message) for message in self.sent]
        self.sent.clear()
        return [[(part.steps.handle, part.steps.first_step) for part in (each, *each.more)] for each in requests]


def answer(*steps: tuple[int, int]) -> bytes:
    output = tensor_pb2.Tensor(name="y", shape=(1, OUTPUTS), data=bytes(4 * OUTPUTS))
    parts = (pb.Answers(handle=handle, first_step=step, outputs=[output]) for handle, step in steps)
    whole, *more = (pb.StreamResponse(answers=part) for part in parts)
    whole.more.extend(more)
    return whole.SerializeToString()


def loops(call: Call, handles: Sequence[int], window: Window, *, bundled: bool = False) -> Loops:
    scenario = Scenario(32, len(handles))
    made = Loops(call, [OneSequence(scenario, handle) for handle in handles], window, bundled=bundled)  # type: ignore[arg-type]
    made.begin()
    return made


ALWAYS = Window(0, float("inf"))


async def test_each_sequence_of_a_stream_sends_its_next_step_when_it_is_answered() -> None:
    call = Call()
    made = loops(call, range(3), ALWAYS)
    assert call.asked() == [[(0, 0)], [(1, 0)], [(2, 0)]]
    call.heard(answer((2, 0)))
    call.heard(answer((0, 0)))
    assert call.asked() == [[(2, 1)], [(0, 1)]]
    assert len(made.took) == 2


async def test_what_one_message_answers_the_next_one_asks() -> None:
    call = Call()
    made = loops(call, range(3), ALWAYS, bundled=True)
    assert call.asked() == [[(0, 0), (1, 0), (2, 0)]]
    call.heard(answer((2, 0), (0, 0)))
    assert call.asked() == [[(2, 1), (0, 1)]]
    assert len(made.took) == 2


@pytest.mark.parametrize("bundled", [False, True])
async def test_answers_before_the_window_do_not_count_and_those_after_it_end_their_loops(bundled: bool) -> None:
    call = Call()
    early = loops(call, range(2), Window(float("inf"), float("inf")), bundled=bundled)
    call.heard(answer((0, 0)))
    assert early.took == []
    late = loops(call, range(2), Window(0, now()), bundled=bundled)
    call.sent.clear()
    call.heard(answer((1, 0)))
    assert not late.done.done()
    call.heard(answer((0, 0)))
    await asyncio.wait_for(late.done, 1)
    assert (call.sent, late.took) == ([], [])


async def test_a_sequence_alone_on_its_stream_may_have_any_handle() -> None:
    call = Call()
    loops(call, [7], ALWAYS)
    call.heard(answer((7, 0)))
    assert call.asked() == [[(7, 0)], [(7, 1)]]


async def test_the_end_of_the_call_ends_its_loops() -> None:
    call = Call()
    made = loops(call, range(2), ALWAYS)
    call.ended(ConnectionError("gone"))
    with pytest.raises(ConnectionError, match="gone"):
        await made.done
