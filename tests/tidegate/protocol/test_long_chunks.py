"""A long chunk is sent part by part, as it is answered: the steps of others are not behind all of it."""

import numpy as np
import pytest

from tests.tidegate.fake_server import expected
from tests.tidegate.world import World, numbers
from tidegate.errors import Refused
from tidegate.protocol import sequence_books

ROWS = np.random.default_rng(3).normal(size=(40, 2)).astype(np.float32)
PART = 4  # rows


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence_books, "_AHEAD", PART)
    monkeypatch.setattr(sequence_books, "_PART", PART * ROWS[0].nbytes)


def test_the_step_of_another_sequence_is_behind_two_parts_of_a_long_chunk_at_most() -> None:
    world = World()
    one, other = world.sequence(), world.sequence()
    chunk = world.chunk(one, ROWS)
    step = world.step(other, ROWS[0])
    handles = [request.steps.handle for request in world.up]
    assert handles == [one.handle, one.handle, other.handle]
    assert [request.steps.first_step for request in world.up] == [0, PART, 0]
    while not chunk.done:
        world.serve(1)
        world.hear()
        assert len(world.up) <= 3
    np.testing.assert_array_equal(numbers(one, chunk), expected(ROWS))
    np.testing.assert_array_equal(numbers(other, step), expected(ROWS[:1]))


def test_what_is_asked_of_a_sequence_behind_a_long_chunk_keeps_its_place() -> None:
    world = World()
    one = world.sequence()
    chunk, step = world.chunk(one, ROWS[:30]), world.step(one, ROWS[30])
    state = world.tell(world.talk.read_state(one))
    closed = world.tell(world.talk.close(one))
    world.settle()
    np.testing.assert_array_equal(numbers(one, chunk, step), expected(ROWS[:31]))
    assert state.result().state.state.step == 31
    assert closed.result().handle == one.handle


def test_parts_of_a_chunk_that_failed_are_not_sent_any_more() -> None:
    world = World()
    one = world.sequence()
    rows = ROWS.copy()
    before, chunk, after = world.chunk(one, rows[:PART]), world.chunk(one, rows[PART:30]), world.step(one, rows[30])
    world.serve(1)
    world.hear()
    world.session.lives[one.handle].step = 99  # it will refuse what comes next
    world.serve(1)
    world.session.lives[one.handle].step = PART
    world.settle()
    np.testing.assert_array_equal(numbers(one, before), expected(rows[:PART]))
    for promise in (chunk, after):
        with pytest.raises(Refused, match="WRONG_STEP"):
            promise.result()


@pytest.mark.parametrize("loss", ["cut", "kill"])
@pytest.mark.parametrize("messages", range(1, 10))
def test_a_long_chunk_goes_on_after_a_loss_wherever_it_was(loss: str, messages: int) -> None:
    world = World()
    one, other = world.sequence(), world.sequence()
    chunk, step = world.chunk(one, ROWS), world.step(other, ROWS[0])
    for _ in range(messages):
        world.serve(1)
        world.hear(1)
    getattr(world, loss)()
    world.reconnect()
    world.serve(1)
    world.hear(1)
    world.settle()
    np.testing.assert_array_equal(numbers(one, chunk), expected(ROWS))
    np.testing.assert_array_equal(numbers(other, step), expected(ROWS[:1]))
