"""Answers of one message that several batches computed: no batch is kept, and every row is in its place."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from server.errors import TidegateError
from server.runtime.scheduler import Block, Part
from server.runtime.shares import Take
from server.streams.events import Answered, FleetAnswered, Form, SeveralAnswered
from server.streams.replies import Chunk, Fleet, Together
from server.streams.trace import TracePlan
from stepgraph.running.result import Result

BATCH = 8


class Array(np.ndarray[Any, Any]):
    """An array that can be referred to weakly."""


class Bench:
    """Owns replies, and makes the results of batches in which theirs are the last rows."""

    def __init__(self) -> None:
        self.told: list[Answered | FleetAnswered] = []
        self.failures: list[int] = []
        self.kept: list[weakref.ref[Array]] = []
        watermarks = SimpleNamespace(told=np.zeros(10, np.int64))
        self.group: Any = SimpleNamespace(
            row_bytes=4,
            model=SimpleNamespace(watermarks=watermarks),
            form=Form(("y",), values=False, bundle=False),
            trace=TracePlan((), 2, slice(None), wanted=True),
        )

    def answer(self, _: object, event: Answered | FleetAnswered) -> None:
        self.told.append(event)

    def done(self, _: Block) -> None: ...

    def failed(self, _: Block, handle: int, *_rest: object) -> None:
        self.failures.append(handle)

    def part(self, block: Block, at: int, steps: int, rows: int) -> Part:
        """Steps or rows from `at` on, each of which is answered by its place."""
        whole = np.full((steps, BATCH, 1), -1.0, np.float32).view(Array)
        whole[:, BATCH - rows :, 0] = np.arange(at, at + steps * rows).reshape(steps, rows)
        self.kept.append(weakref.ref(whole))
        result = Result({"y": whole}, whole[..., [0, 0]], np.zeros((BATCH, 1)))
        fleet = len(block.slots) > 1
        return Part(Take(block, at if fleet else 0, rows), 0 if fleet else at, steps, result, BATCH - rows)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def block(slots: int, steps: int) -> Block:
    return Block(np.arange(slots), steps, {}, True, None)  # type: ignore[arg-type] # the reply is called directly


def test_no_batch_is_kept_for_the_sake_of_a_few_rows_of_a_chunk(bench: Bench) -> None:
    chunk, whole = Chunk(bench, bench.group, 0, 5, 7), block(1, 7)
    for at, steps in ((0, 3), (3, 2)):
        chunk.answered(bench.part(whole, at, steps, 1))
        assert bench.kept[-1]() is None
    chunk.answered(bench.part(whole, 5, 2, 1))
    (event,) = bench.told
    assert event.outputs[0].ravel().tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert event.trace is not None
    assert event.trace[:, 0].tolist() == [1, 3, 5], "of the steps 5 to 11 the even ones"


def test_of_a_chunk_that_fails_the_steps_before_are_answered(bench: Bench) -> None:
    chunk, whole = Chunk(bench, bench.group, 3, 0, 7), block(1, 7)
    chunk.answered(bench.part(whole, 0, 3, 1))
    chunk.answered(Part(Take(whole, 0, 1), 3, error=TidegateError("no")))
    (event,) = bench.told
    assert event.outputs[0].ravel().tolist() == [0, 1, 2]
    assert bench.failures == [3]


def test_of_a_fleet_the_rows_that_failed_are_left_out_and_the_others_are_in_their_places(bench: Bench) -> None:
    fleet, whole = Fleet(bench, bench.group, np.arange(10, 16), np.arange(6)), block(6, 1)
    fleet.answered(bench.part(whole, 0, 1, 3))
    assert bench.kept[-1]() is None
    fleet.answered(Part(Take(whole, 3, 1), error=TidegateError("no")))
    fleet.answered(bench.part(whole, 4, 1, 2))
    (event,) = bench.told
    assert isinstance(event, FleetAnswered)
    assert event.handles.tolist() == [10, 11, 12, 14, 15]
    assert event.steps.tolist() == event.outputs[0].ravel().tolist() == [0, 1, 2, 4, 5]
    assert event.trace is not None
    assert event.trace[:, 0].tolist() == [0, 2, 4]


def test_steps_that_came_together_are_answered_together_as_far_as_messages_may_be_large(bench: Bench) -> None:
    handles, steps = np.array([3, 1, 4, 7]), np.array([10, 11, 12, 13])
    for rows, answers in ((4, 1), (30_000, 2)):
        bench.told.clear()
        bench.group.trace = TracePlan((), 1, slice(None), wanted=True)
        bench.group.row_bytes = rows
        together = Together(bench, bench.group, handles, steps)  # type: ignore[arg-type]
        assert together.size == 4 * (rows + 64)
        block = Block(handles, 1, {}, True, together)
        for at in (0, 2):
            together.answered(bench.part(block, at, 1, 2))
        assert len(bench.told) == answers
        assert sum(event.size for event in bench.told) == together.size
        told = list[tuple[int, int, float, float]]()
        for event in bench.told:
            assert isinstance(event, SeveralAnswered)
            for one in event.apart():
                assert one.outputs[0].shape == (1, 1)
                assert one.trace is not None
                told.append((one.handle, one.first_step, one.outputs[0].item(), one.trace.shape[0]))
        assert told == [(3, 10, 0.0, 1), (1, 11, 1.0, 1), (4, 12, 2.0, 1), (7, 13, 3.0, 1)]


def test_of_steps_that_came_together_those_that_fail_are_left_out_and_give_back_what_they_counted(bench: Bench) -> None:
    bench.group.trace = TracePlan((), 1, slice(None), wanted=True)
    handles = np.array([3, 1, 4])
    together = Together(bench, bench.group, handles, np.array([10, 11, 12]))  # type: ignore[arg-type]
    block = Block(handles, 1, {}, True, together)
    together.answered(bench.part(block, 0, 1, 1))
    together.answered(Part(Take(block, 1, 1), 0, error=TidegateError("it cannot be computed")))
    together.answered(bench.part(block, 2, 1, 1))
    assert bench.failures == [1]
    (event,) = bench.told
    assert isinstance(event, SeveralAnswered)
    assert event.handles.tolist() == [3, 4]
    assert sum(event.size for event in bench.told) == together.size == 2 * (4 + 64)
