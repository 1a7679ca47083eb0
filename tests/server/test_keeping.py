"""Schedules under which sequences were lost, doubled or left behind: once found at random, or by reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from server.memory_store import MemoryStore
from server.store import Terms
from tests.server.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.surviving_client import Survivor

ROWS = np.random.default_rng(7).normal(size=(60, 3)).astype(np.float32)


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.getbasetemp())
    world.connect(0, 0)
    yield world
    world.end()


def opened(world: World, count: int = 1) -> list[Survivor]:
    fresh = world.open(0, count)
    world.settle()
    return fresh


def flow(world: World, who: int = 0) -> None:
    """What was said is taken; nothing is heard, and nothing of it is written."""
    world.send(who)
    world.quiet()


def test_a_move_whose_answers_are_lost_keeps_the_checkpoints_that_its_client_counts_on(world: World) -> None:
    (one,) = opened(world)
    world.give(0, one, ROWS[:4])
    world.settle()
    world.give(0, one, ROWS[4:9])
    world.clients[0].move(one, 2)
    flow(world)
    world.work(0)
    world.cut(0)  # it has four answers, and the sequence stands after nine with another version
    world.quiet()
    world.write(0)
    world.kill(0)
    world.settle()
    assert (one.version, one.answered) == (2, 9)


def test_a_rewind_whose_answers_are_lost_keeps_the_checkpoints_that_its_client_counts_on(world: World) -> None:
    (one,) = opened(world)
    world.give(0, one, ROWS[:4])
    world.settle()
    world.give(0, one, ROWS[4:9])
    flow(world)
    world.write(0)
    world.give(0, one, ROWS[9:20])
    world.clients[0].rewind(one, 12)
    flow(world)
    world.work(0)
    world.cut(0)
    world.quiet()
    world.write(0)
    world.kill(0)
    world.settle()
    assert one.answered == one.end


def test_a_state_is_read_after_the_steps_before_it_and_not_after_those_behind_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = World(tmp_path_factory.getbasetemp(), spot_us=0.0)  # the engine's thread computes
    world.connect(0, 0)
    (one,) = opened(world)
    for at in range(0, 50, 5):
        world.give(0, one, ROWS[at : at + 5])
        world.clients[0].read(one)
    world.send(0)
    while one.answered < 50 or one.reads:
        world.quiet()
        world.hear(0)
    assert [state.step for state in one.states] == list(range(5, 55, 5))
    world.end()


def test_a_sequence_that_is_closed_moved_or_rewound_while_another_takes_it_leaves_nothing_behind(world: World) -> None:
    world.connect(1, 1)
    for asked in ("close", "move", "rewind"):
        (one,) = opened(world)
        world.give(0, one, ROWS[:3])
        world.settle()
        mine = world.steal(0, one)
        one.gone = ""
        match asked:
            case "close":
                world.clients[0].close(one)
            case "move":
                world.clients[0].move(one, 2)
            case "rewind":
                world.clients[0].rewind(one, 2)
        one.gone = "STOLEN"
        flow(world)
        flow(world, 1)
        world.work(1)
        world.hear(1)
        world.work(0)
        world.write(0)
        world.hear(0)
        world.settle()
        world.give(1, mine, ROWS[3:6])
        world.settle()
        assert mine.answered == 6


def test_of_two_resumes_the_one_that_came_last_has_the_sequence_however_slow_the_store_is(world: World) -> None:
    (one,) = opened(world)
    world.give(0, one, ROWS[:3])
    world.settle()
    world.cut(0)
    world.connect(0, 0)
    flow(world)  # the server has a resume, and waits for the store
    world.cut(0, noticed=False)
    world.connect(0, 0)
    flow(world)
    world.work(0)
    world.settle()
    world.notice()
    assert one.gone == ""


def test_two_claims_that_the_store_has_answered_do_not_leave_a_sequence_in_two_places(world: World) -> None:
    (one,) = opened(world)
    world.give(0, one, ROWS[:3])
    world.settle()
    world.connect(1, 0)
    mine = world.steal(0, one)
    one.gone = ""
    world.cut(0)
    world.connect(0, 0)
    one.gone = "STOLEN"
    flow(world)
    flow(world, 1)
    world.settle()
    assert sum(model.slots.in_use for model in world.servers[0].models.values()) == 1
    assert mine.gone in ("", "TAKEN_OVER")


def test_a_store_that_has_lost_everything_is_filled_again_by_those_who_run_and_by_those_who_left(world: World) -> None:
    one, other = opened(world, 2)
    world.give(0, one, ROWS[:3])
    world.give(0, other, ROWS[:4])
    world.settle()
    world.store._store = MemoryStore(Terms(keep=1))
    world.give(0, one, ROWS[3:6])
    flow(world)
    world.hear(0)
    world.cut(0)
    world.quiet()
    world.write(0)
    world.write(0)
    world.kill(0)
    world.settle()
    assert (one.answered, other.answered) == (6, 4)


def test_a_sequence_that_was_never_written_is_rewound_to_its_beginning(world: World) -> None:
    (one,) = world.open(0)
    flow(world)
    world.hear(0)
    world.give(0, one, ROWS[:3])
    flow(world)
    world.hear(0)
    world.clients[0].rewind(one, 2)
    world.settle()
    assert one.end == 0


def test_what_was_closed_while_the_store_was_dead_is_ended_when_it_answers_again(world: World) -> None:
    (one,) = opened(world)
    world.give(0, one, ROWS[:3])
    world.settle()
    world.store.mood = "dead"
    world.clients[0].close(one)
    flow(world)
    world.write(0)
    world.hear(0)
    assert one.gone == "CLOSED"
    world.store.mood = "fine"
    world.write(0)
    assert world.store.usage().sequences == 0
