"""When checkpoints are written, and that nothing keeps those of the others from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from server.durability import checkpointer, outbox
from server.durability.checkpointer import Checkpointer
from server.durability.sequence import Move
from server.errors import StoreFailed
from server.stores.memory import MemoryStore
from tests.server.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.surviving_client import Survivor

ROWS = np.random.default_rng(7).normal(size=(60, 3)).astype(np.float32)


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.getbasetemp(), checkpoint_steps=8)
    world.connect(0, 0)
    yield world
    world.close()


def flow(world: World) -> None:
    world.send(0)
    world.quiet()
    world.hear(0)


def rests(world: World) -> bool:
    """Whether the scribe would wait for its time."""
    resting = world.loop.create_task(world.servers[0].keeper._checkpointer.rest())
    world.quiet()
    return not resting.done() and resting.cancel()


def opened(world: World, count: int) -> list[Survivor]:
    fresh = world.open(0, count)
    world.settle()
    world.write(0)
    rests(world)  # it was hurried by their beginning
    assert rests(world)
    return fresh


@pytest.mark.parametrize(("steps", "hurried"), [(8, True), (7, False)])
def test_a_sequence_that_gets_too_far_ahead_while_a_write_goes_on_is_written_next_without_rest(
    world: World, steps: int, hurried: bool
) -> None:
    (one,) = opened(world, 1)
    world.give(0, one, ROWS[:1])
    flow(world)
    world.begin_to_write(0)
    world.quiet()
    world.give(0, one, ROWS[1 : steps + 1])
    flow(world)
    world.work(0)
    assert rests(world) is not hurried


def test_one_who_is_fast_does_not_have_the_slow_written_at_its_own_pace(world: World) -> None:
    fast, slow = opened(world, 2)
    keeper = world.servers[0].keeper
    world.now += 0.1
    world.give(0, fast, ROWS[:8])
    world.give(0, slow, ROWS[:1])
    flow(world)
    everything = world.run(keeper._checkpointer.rest())
    writing = world.loop.create_task(keeper._checkpointer.checkpoint(everything))
    world.quiet()
    world.work(0)
    assert writing.done()
    flow(world)
    assert (fast.told, slow.told) == (8, 0)
    assert rests(world)
    world.now += 0.2
    assert world.run(keeper._checkpointer.rest()) is True  # the slow one's time has come
    world.write(0)
    flow(world)
    assert (fast.told, slow.told) == (8, 1)


def test_what_one_write_has_no_room_for_is_written_next_without_rest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointer, "_MOST", 2)
    some = opened(world, 3)
    keeper = world.servers[0].keeper
    world.now += 1.0
    for one in some:
        world.give(0, one, ROWS[:1])
    flow(world)
    assert world.run(keeper._checkpointer.rest()) is True
    world.write(0)
    assert world.run(keeper._checkpointer.rest()) is True
    world.write(0)
    flow(world)
    assert [one.told for one in some] == [1, 1, 1]
    assert rests(world)


def test_checkpoints_of_an_account_are_no_older_because_another_has_more_than_one_write_takes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointer, "_MOST", 3)
    many = opened(world, 8)
    world.connect(1, 0, "10.0.0.2")
    (one,) = world.open(1)
    world.settle()
    for at in range(12):
        world.now += 1.0
        for each in many:
            world.give(0, each, ROWS[at : at + 1])
        world.give(1, one, ROWS[at : at + 1])
        for who in range(2):
            world.send(who)
        world.quiet()
        world.write(0)
        for who in range(2):
            world.hear(who)
        (model,) = world.servers[0].keeper._registry.models()
        sequence = world.servers[0].keeper._registry.get(one.id)
        assert sequence is not None
        assert model.watermarks.written[sequence.slot] == at + 1
    assert min(each.told for each in many) >= 6, "of its own account each has its turn"


def test_what_is_parked_while_many_ends_are_written_waits_for_one_call_of_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_ENDS_AT_ONCE", 2)
    *many, one = opened(world, 8)
    for each in (*many, one):
        world.give(0, each, ROWS[:1])
    flow(world)
    world.write(0)
    flow(world)
    for each in many:
        world.clients[0].close(each)
    flow(world)
    calls: list[str] = []
    for name in ("write", "end"):
        real = getattr(MemoryStore, name)
        monkeypatch.setattr(MemoryStore, name, lambda *given, n=name, real=real: calls.append(n) or real(*given))
    world.begin_to_write(0)
    world.quiet()
    world.work(0, 1)
    assert calls == ["end"]
    world.give(0, one, ROWS[1:2])
    flow(world)
    world.cut(0)  # and so it is parked
    world.quiet()
    while "write" not in calls:
        if not world.servers[0].desk.calls:
            world.begin_to_write(0)
            world.quiet()
        world.work(0, 1)
    assert calls == ["end", "write"]
    listing = world.loop.create_task(world.servers[0].keeper._checkpointer.write_soon())
    world.quiet()
    world.work(0)
    assert listing.done()
    assert calls.count("end") == 4, "who asks for all has all of them written"


def test_who_asks_for_all_that_has_left_by_now_does_not_wait_for_what_leaves_while_it_is_written(world: World) -> None:
    some = [opened(world, 1)[0] for _ in range(6)]
    for one in some:
        world.give(0, one, ROWS[:1])
    flow(world)
    world.write(0)
    world.clients[0].close(some[0])
    flow(world)
    listing = world.loop.create_task(world.servers[0].keeper._checkpointer.write_soon())
    world.quiet()
    for one in some[1:]:
        world.clients[0].close(one)
        flow(world)
        world.work(0, 1)
    assert listing.done()


def test_the_lag_in_seconds_is_of_who_has_waited_longest_however_many_are_written_in_turns(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointer, "_MOST", 2)
    some = opened(world, 3)
    keeper = world.servers[0].keeper
    (model,) = keeper._registry.models()

    def lag() -> float:
        return model.watermarks.lag_seconds(model.slots.done, keeper.monotonic())

    world.now += 100.0
    world.write(0)
    for at in range(6):
        world.now += 1.0
        for one in some:
            world.give(0, one, ROWS[at : at + 1])
        flow(world)
        world.write(0)
        assert 0 < lag() <= 2.0
    world.write(0)
    assert lag() == 0


def test_what_is_opened_while_a_write_goes_on_is_written_next_without_rest(world: World) -> None:
    opened(world, 1)
    world.begin_to_write(0)
    world.quiet()
    world.open(0)
    flow(world)
    world.work(0)
    assert not rests(world)


def test_a_sequence_whose_state_cannot_be_written_is_given_up_and_the_others_are_written(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    broken, *others = opened(world, 3)
    for one in (broken, *others):
        world.give(0, one, ROWS[:3])
    flow(world)
    model = world.servers[0].shelf.models[1]
    sequence = world.servers[0].keeper._registry.get(broken.id)
    assert sequence is not None
    model.slots.done[sequence.slot] = -2
    world.write(0)
    for one in others:
        world.give(0, one, ROWS[3:4])
    flow(world)
    assert broken.gone == "INTERNAL"
    assert [one.told for one in others] == [3, 3]
    assert f"sequence '{broken.id}' is given up" in caplog.text
    assert model.slots.in_use == 2
    world.write(0)
    assert caplog.text.count("given up") == 1


def test_who_has_left_with_a_state_that_cannot_be_written_holds_up_nobody(world: World) -> None:
    broken, other = opened(world, 2)
    for one in (broken, other):
        world.give(0, one, ROWS[:3])
    flow(world)
    keeper = world.servers[0].keeper
    sequence = keeper._registry.get(broken.id)
    assert sequence is not None
    world.servers[0].shelf.models[1].slots.done[sequence.slot] = -2
    world.cut(0)
    world.quiet()
    world.write(0)
    assert keeper.sample().unwritten == 0
    world.connect(0, 1)
    flow(world)
    world.work(1)
    world.hear(0)
    assert other.ready


def test_a_snapshot_that_fails_is_heard_of_and_who_has_left_is_not_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = opened(world, 2)
    for each in (one, other):
        world.give(0, each, ROWS[:3])
    flow(world)
    keeper = world.servers[0].keeper
    sequence = keeper._registry.get(one.id)
    assert sequence is not None
    sequence.move(Move.CLOSE)
    world.loop.call_soon(keeper.park, [sequence], lambda: None)
    world.quiet()

    def fail(*_: object) -> None:
        raise ValueError("it cannot be copied")

    with monkeypatch.context() as patched:
        patched.setattr(Checkpointer, "_copy", fail)
        with pytest.raises(ValueError, match="copied"):
            world.run(keeper._checkpointer.checkpoint())
    assert keeper.sample().unwritten == 1


def test_a_write_that_is_given_up_is_made_again(world: World) -> None:
    (one,) = opened(world, 1)
    world.give(0, one, ROWS[:3])
    flow(world)
    world.cut(0)
    world.quiet()
    keeper = world.servers[0].keeper
    writing = world.loop.create_task(keeper._checkpointer.checkpoint())
    world.quiet()
    assert keeper.sample().unwritten == 0
    writing.cancel()
    world.quiet()
    assert keeper.sample().unwritten == 1
    world.store.mood = "dead"
    failing = world.loop.create_task(keeper._checkpointer.checkpoint())
    world.quiet()
    world.work(0)
    with pytest.raises(StoreFailed):
        failing.result()
    world.store.mood = "fine"
    world.write(0)
    assert keeper.sample().unwritten == 0
