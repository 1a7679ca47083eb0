"""Schedules under which users of the real client once lost something, or would have: found at random, or by reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.simulation.users import Single
from tests.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = np.random.default_rng(7).normal(size=(60, 3)).astype(np.float32)


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.getbasetemp())
    yield world
    world.end()


def opened(world: World) -> Single:
    """A user whose sequence has a checkpoint, at server 0."""
    world.channels[0].home = 0
    world.open(0, 1)
    user = world.users[0]
    assert isinstance(user, Single)
    user.tell("chunk", ROWS[:5])
    world.advance(3.0)
    assert user.idle
    return user


def test_a_sequence_goes_on_although_its_clients_own_earlier_claim_comes_through_late(world: World) -> None:
    user = opened(world)
    world.hang(1)
    world.channels[0].home = 1
    world.cut(0)
    world.advance(0.1)  # it resumes there, and hears nothing
    world.cut(0)
    world.channels[0].home = 0
    world.advance(0.5)  # so it goes on where it was
    user.tell("chunk", ROWS[5:9])
    world.advance(0.1)
    world.hang(1)  # what was asked first is done last
    world.advance(3.0)  # which the next checkpoint comes to know
    user.tell("stream", ROWS[9:30], 3)
    world.settle()
    assert (user.over, user.truth.end) == ("", 30)


def test_a_sequence_that_moves_to_where_it_is_does_not_give_way_to_itself(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = World(tmp_path_factory.getbasetemp(), max_sequences=1)
    user = opened(world)
    world.advance(4.0)
    world.loop.now += 7.0  # it is idle, and nobody has looked yet
    user.tell("move", 1)
    user.tell("step", ROWS[:1])
    world.settle()
    assert user.truth.end == 6
    world.end()


def test_what_is_opened_when_its_stream_breaks_is_not_lost_with_it(world: World) -> None:
    world.open(0, 1)
    while not (line := world.channels[0].line) or not world.shared(0)._connection.talk._pending.awaited:
        world.loop.tick()
    entry = world.shared(0)._connection.talk._pending._entering[0]
    while not entry.opened:
        world.loop.tick()
    line.cut(noticed=True)
    world.users[0].tell("chunk", ROWS[:5])
    world.settle()
    assert world.users[0].idle


def test_a_lost_sequence_that_is_closed_says_why_it_was_lost_also_after_its_stream(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = World(tmp_path_factory.getbasetemp(), max_parked=1)
    user = opened(world)
    world.open(1, 1)
    world.advance(30.0)  # both are parked, and one of them gives way
    world.cut(0)
    world.advance(1.0)
    user.tell("close")
    world.settle()
    assert user.over == "SEQUENCE_EVICTED"
    world.end()


def test_a_fleet_whose_members_give_way_one_by_one_leaves_its_handles_to_the_next(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = World(tmp_path_factory.getbasetemp(), max_sequences=3, max_parked=1)
    world.open_fleet(0, 3)
    world.advance(30.0)  # all are parked, and all but one give way
    world.users[0].tell("step", [0, 1, 2], ROWS[:3])
    world.advance(1.0)
    fleet, *heirs = world.users
    assert len(heirs) == 1
    assert fleet.over == "SEQUENCE_EVICTED"
    for heir in heirs:
        heir.tell("step", ROWS[:2])
        heir.tell("close")
    world.advance(5.0)
    world.open_fleet(0, 3)
    world.settle()
    world.end()


def test_a_fleet_whose_members_give_way_before_its_client_hears_that_it_is_open_is_lost_with_that_reason(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = World(tmp_path_factory.getbasetemp(), max_parked=1)
    world.channels[0].home = 0
    world.open(0, 1)
    world.settle()
    world.open_fleet(0, 3)
    world.hold_answers(0)
    world.advance(30.0)  # all are parked, and all but one give way
    world.users[1].tell("step", [0, 1, 2], ROWS[:3])
    world.flow(0)
    world.settle()
    _, fleet, *heirs = world.users
    assert fleet.over == "SEQUENCE_EVICTED"
    for heir in heirs:
        heir.tell("step", ROWS[:2])
    world.end()


@pytest.mark.parametrize("limit", ["max_sequences", "max_per_owner"])
def test_a_sequence_that_the_next_server_has_no_room_for_goes_on_once_there_is_and_others_do_not_wait(
    tmp_path_factory: pytest.TempPathFactory, limit: str
) -> None:
    world = World(tmp_path_factory.getbasetemp(), idle_seconds=60.0, **{limit: 2})
    user = opened(world)
    world.open(0, 1)
    world.channels[1].home = 1
    world.open(1, 1)
    world.advance(3.0)
    another, third = world.users[1:]
    world.kill(0)  # of its two sequences one finds room beside the third
    world.advance(3.0)
    user.tell("step", ROWS[:1])
    another.tell("step", ROWS[:1])
    world.advance(20.0)
    assert [user.idle, another.idle].count(True) == 1
    third.tell("close")
    world.advance(20.0)
    assert user.idle
    assert another.idle
    world.end()


def test_a_sequence_that_sleeps_between_its_steps_goes_on_although_none_of_its_answers_was_heard(world: World) -> None:
    user = opened(world)
    world.hold_answers(0)
    user.tell("stream", ROWS[5:9], 8, 16.0)
    world.advance(4 * 16.0)
    assert user.truth.end == 5
    world.kill(0)
    world.start(0)
    world.flow(0)
    world.settle()
    assert (user.over, user.truth.end) == ("", 9)


def test_all_who_sleep_at_a_server_go_on_together(tmp_path_factory: pytest.TempPathFactory) -> None:
    world = World(tmp_path_factory.getbasetemp(), max_sequences=40)
    for channel in world.channels:
        channel.home = 0
    for at in range(30):
        world.open(at % 2, 1)
    world.open_fleet(0, 5)
    world.advance(30.0)
    server = world.servers[0]
    assert server is not None
    assert server.shelf.models[1].slots.in_use == 0
    for user in world.users:
        if isinstance(user, Single):
            user.tell("step", ROWS[:3])
        else:
            user.tell("step", [0, 1, 2, 3, 4], ROWS[:5])
    world.advance(0.0)
    assert all(user.idle for user in world.users)
    world.end()
