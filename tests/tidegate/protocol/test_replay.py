"""The inputs that a client keeps, as values: what comes out of them is what was put in, in fewer messages."""

import numpy as np
import pytest

from tests.tidegate.world import INPUTS
from tidegate import wire
from tidegate.inputs import Block
from tidegate.protocol.budget import Budget
from tidegate.protocol.replay import MESSAGE_BYTES, TOGETHER, Replay
from tidegate.v1 import sequence_pb2 as pb

ROWS = np.random.default_rng(3).normal(size=(10 * TOGETHER, 2)).astype(np.float32)


def add(replay: Replay, block: Block, first: int) -> None:
    request = pb.StreamRequest()
    request.steps.handle, request.steps.first_step = 7, first
    block.write(request.steps)
    replay.add(first, first + block.rows, request, block.size, alone=block.alone)


def stepped(steps: int, answered: int, budget: Budget | None = None) -> Replay:
    """A sequence that took so many single steps, the first of which are answered."""
    replay = Replay(0, budget or Budget())
    for step in range(steps):
        add(replay, INPUTS.step(ROWS[step]), step)
        replay.fold(answered)
    return replay


def inputs(replay: Replay, step: int = 0, parted: tuple[int, ...] = (), most: int = 10**6) -> np.ndarray:
    """All rows from a step on, of messages that are what a client sends."""
    found, at = [], step
    for first, end, request in replay.since(step, parted, most):
        assert (first, request.steps.handle, request.steps.first_step) == (at, 7, at)
        assert end - first <= most
        assert not any(first < cut < end for cut in parted)
        found.append(wire.decode(request.steps.inputs[0]).reshape(end - first, 2))
        at = end
    return np.concatenate(found)


def test_steps_that_are_answered_take_little_more_than_their_numbers() -> None:
    budget = Budget()
    replay = stepped(10 * TOGETHER, 10 * TOGETHER, budget)
    assert (budget.steps, budget.bytes) == (10 * TOGETHER, ROWS.nbytes + 10 * MESSAGE_BYTES)
    np.testing.assert_array_equal(inputs(replay), ROWS)


def test_steps_that_are_not_answered_are_sent_again_one_by_one() -> None:
    replay = stepped(3 * TOGETHER, 2 * TOGETHER - 1)
    sizes = [end - first for first, end, _ in replay.since(0, (), 10**6)]
    assert sizes == [TOGETHER, *[1] * (2 * TOGETHER)]
    assert all(list(request.steps.inputs[0].shape) == [2] for _, _, request in list(replay.since(TOGETHER, (), 99)))


@pytest.mark.parametrize("step", [0, 1, TOGETHER - 1, TOGETHER, 70])
def test_what_was_put_together_comes_in_the_pieces_that_are_asked_for(step: int) -> None:
    replay = stepped(100, 100)
    np.testing.assert_array_equal(inputs(replay, step, (5, 40, 80), 11), ROWS[step:100])


@pytest.mark.parametrize("step", [5, TOGETHER, TOGETHER + 1, 99])
def test_what_is_cut_off_frees_its_room_and_the_rest_stays(step: int) -> None:
    budget = Budget()
    replay = stepped(100, 100, budget)
    replay.cut(step)
    assert budget.steps == step
    np.testing.assert_array_equal(inputs(replay), ROWS[:step])
    for later in range(step, 100):
        add(replay, INPUTS.step(ROWS[later]), later)
        replay.fold(100)
    np.testing.assert_array_equal(inputs(replay), ROWS[:100])
    replay.clear(forget=True)
    assert (budget.steps, budget.bytes) == (0, 0)


def test_checkpoints_free_whole_messages_before_the_last_but_one() -> None:
    budget = Budget()
    replay = stepped(100, 100, budget)
    replay.checkpointed(TOGETHER + 1)
    replay.checkpointed(100)
    assert budget.steps == 100 - TOGETHER
    assert replay.reaches(TOGETHER)
    assert not replay.reaches(TOGETHER - 1)


def test_chunks_stay_as_they_are_between_steps() -> None:
    replay = Replay(0, Budget())
    at = 0
    while at < 200:
        block = INPUTS.step(ROWS[at]) if at % 5 else INPUTS.block(ROWS[at : at + 2])
        add(replay, block, at)
        replay.fold(200)
        at += block.rows
    np.testing.assert_array_equal(inputs(replay), ROWS[:at])


def test_chunks_of_one_step_are_not_taken_for_single_ones() -> None:
    replay = Replay(0, Budget())
    for step in range(2 * TOGETHER):
        add(replay, INPUTS.block(ROWS[step : step + 1]), step)
        replay.fold(2 * TOGETHER)
    assert all(list(request.steps.inputs[0].shape) == [1, 2] for _, _, request in replay.since(0, (), 99))


def test_nothing_is_put_together_across_a_change_of_inputs() -> None:
    replay = stepped(TOGETHER - 1, TOGETHER - 1)
    replay.part()
    for step in range(TOGETHER - 1, 2 * TOGETHER - 1):
        add(replay, INPUTS.step(ROWS[step]), step)
        replay.fold(2 * TOGETHER)
    sizes = [end - first for first, end, _ in replay.since(0, (), 10**6)]
    assert sizes == [*[1] * (TOGETHER - 1), TOGETHER]
