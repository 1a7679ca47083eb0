"""Schedules under which sequences were lost, doubled or left behind: once found at random, or by reading."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING
from unittest.mock import AsyncMock, patch

import numpy as np
import pytest

from server.caller import Caller
from server.durability import checkpointer
from server.durability.checkpoint import Checkpoint, decode
from server.durability.checkpointer import Checkpointer
from server.errors import StoreFailed
from server.meter import Limits
from server.stores.memory import MemoryStore
from server.stores.store import Claim, Creation, End, Evicted, Reason, Write
from server.stores.terms import LEASE, Terms
from server.streams import handles
from tests.server import world as worlds
from tests.server.world import World
from tidegate import wire
from tidegate.v1 import error_pb2
from tidegate.v1 import sequence_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from server.durability.registry import Registry
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


def asleep(world: World, count: int) -> tuple[list[Survivor], Registry]:
    """Sequences after four steps, whose states are in the store alone; and those that the server knows of."""
    some = opened(world, count)
    for one in some:
        world.give(0, one, ROWS[:4])
    world.settle()
    world.write(0)
    world.now += 3_600
    world.maintain(0)
    registry = world.servers[0].keeper._registry
    assert [registry.get(one.id).slot for one in some] == [-1] * count
    return some, registry


def flow(world: World, who: int = 0) -> None:
    """What was said is taken; nothing is heard, and nothing of it is written."""
    world.send(who)
    world.quiet()


def talk(world: World, times: int = 1) -> None:
    """What was said is taken and carried out, and the answers are heard."""
    for _ in range(times):
        flow(world)
        world.work(0)
        world.hear(0)


def leave(world: World) -> None:
    """The stream is cut, and all that is to be written by then is."""
    world.cut(0)
    world.quiet()
    world.write(0)


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
    leave(world)
    world.kill(0)
    world.settle()
    assert one.answered == one.end


@pytest.mark.parametrize("way", ["idle", "room"])
def test_a_sequence_whose_client_reads_late_can_be_resumed_after_it_has_slept(
    tmp_path_factory: pytest.TempPathFactory, way: str
) -> None:
    world = World(tmp_path_factory.getbasetemp(), max_sequences=2)
    world.connect(0, 0)
    (one,) = opened(world)
    for at in range(2):  # it has no answer yet: it may count on its beginning alone
        world.give(0, one, ROWS[at : at + 1])
        flow(world)
        world.write(0)
    for at in range(2, 6):
        world.now += 60.0
        put_to_sleep(world, way)
        assert world.servers[0].keeper._registry.get(one.id).slot < 0
        world.give(0, one, ROWS[at : at + 1])
        flow(world)
        world.work(0)
        world.write(0)
    world.kill(0)
    world.settle()
    assert (one.gone, one.answered) == ("", 6)
    world.end()


def put_to_sleep(world: World, way: str) -> None:
    """All that are idle: for so long, or because others want their slots."""
    if way == "idle":
        world.maintain(0)
        return
    world.connect(1, 0)
    line = world.line(1)
    line.say(pb.StreamRequest(open=pb.Open(count=2, model="recall", version=1)))
    world.quiet()
    assert pb.StreamResponse.FromString(line.down.popleft()).HasField("opened")
    line.say(pb.StreamRequest(close=pb.Close(count=2)))
    world.quiet()
    world.cut(1)


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


def test_a_claim_that_waits_for_the_store_is_not_made_once_its_stream_is_gone(world: World) -> None:
    (one,) = opened(world)
    world.give(0, one, ROWS[:3])
    world.settle()
    world.write(0)
    world.give(0, one, ROWS[3:5])
    flow(world)
    world.begin_to_write(0)  # and the store hangs
    world.quiet()
    world.cut(0)
    world.quiet()
    world.connect(0, 0)
    flow(world)  # what is written of it now comes before the claim
    world.cut(0)
    world.quiet()
    world.connect(0, 1)
    flow(world)
    world.work(1)
    world.hear(0)
    flow(world)
    world.work(0)
    world.write(1)
    assert not world.servers[1].keeper.sample().lost["TAKEN_OVER"]


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


def test_a_resume_that_a_slow_server_carries_out_late_takes_the_sequence_from_nobody(world: World) -> None:
    (one,) = opened(world)
    world.give(0, one, ROWS[:3])
    world.settle()
    leave(world)
    world.connect(0, 0)
    flow(world)  # the resume waits for a store that hangs
    world.cut(0, noticed=False)
    world.connect(0, 1)
    flow(world)
    world.work(1)
    world.hear(0)
    assert one.ready
    world.work(0)
    world.give(0, one, ROWS[3:6])
    world.settle()
    world.write(1)
    world.hear(0)
    assert (one.gone, one.answered) == ("", 6)
    world.notice()


def test_a_resume_that_is_carried_out_seconds_after_a_later_one_is_refused(world: World) -> None:
    (one,) = opened(world)
    leave(world)
    world.connect(0, 0)
    flow(world)  # the resume waits for a store that hangs
    world.cut(0, noticed=False)
    world.now += 2.0
    world.connect(0, 1)
    flow(world)
    world.work(1)
    world.hear(0)
    assert one.ready
    world.now += 1.0
    world.work(0)
    world.give(0, one, ROWS[:3])
    flow(world)
    world.write(1)
    assert not any(world.servers[1].keeper.sample().lost.values())
    world.notice()


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
    assert sum(model.slots.in_use for model in world.servers[0].shelf.models.values()) == 1
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
    leave(world)
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


def test_closed_is_said_once_the_store_knows_it(world: World) -> None:
    (one,) = opened(world)
    world.give(0, one, ROWS[:3])
    world.settle()
    world.clients[0].close(one)
    flow(world)
    world.hear(0)
    assert one.gone == ""
    world.begin_to_write(0)
    world.quiet()
    world.work(0)
    world.hear(0)
    assert one.gone == "CLOSED"
    assert world.store.usage().sequences == 0


def test_a_sequence_that_never_took_a_step_is_closed_without_the_store(world: World) -> None:
    (one,) = world.open(0)
    flow(world)
    world.hear(0)
    world.clients[0].close(one)
    flow(world)
    world.hear(0)
    assert one.gone == "CLOSED"


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


# Limits ---------------------------------------------------------------------------------------------------------------


def limited(tmp_path_factory: pytest.TempPathFactory, **given: object) -> World:
    world = World(tmp_path_factory.getbasetemp(), **given)
    world.connect(0, 0)
    return world


def refusals(world: World) -> list[str]:
    """Why what was said last was refused; each with a sentence."""
    flow(world)
    line = world.line(0)
    said = [pb.StreamResponse.FromString(message) for message in line.down]
    line.down.clear()
    assert all(one.failure.error.message for one in said if one.HasField("failure"))
    return [error_pb2.Reason.Name(one.failure.error.reason)[7:] for one in said if one.HasField("failure")]


def test_an_owner_has_no_more_sequences_than_may_be_and_others_have_theirs(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = limited(tmp_path_factory, max_per_owner=2)

    def ask(handle: int, count: int, owner: str) -> list[str]:
        line = world.line(0)
        line.say(pb.StreamRequest(open=pb.Open(handle=handle, count=count, model="recall", version=1, owner=owner)))
        return refusals(world)

    assert ask(0, 2, "ann") == []
    assert ask(2, 1, "ann") == ["TOO_MANY_OF_OWNER"]
    assert ask(2, 2, "bob") == []
    assert world.servers[0].shelf.models[1].slots.in_use == 4
    world.close()


def test_an_owners_name_counts_within_the_address_that_gave_it_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    world = limited(tmp_path_factory, max_per_owner=2)
    come_and_go(world, "ann", 2)
    for host in ("10.0.0.1", "10.0.0.2"):
        world.connect(0, 0, host)
        line = world.line(0)
        line.say(pb.StreamRequest(open=pb.Open(count=2, model="recall", version=1, owner="ann")))
        assert refusals(world) == []
        line.say(pb.StreamRequest(open=pb.Open(handle=2, model="recall", version=1, owner="ann")))
        assert refusals(world) == ["TOO_MANY_OF_OWNER"]
    world.close()


def test_beyond_the_most_parked_the_longest_parked_give_way_and_say_so_to_who_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = limited(tmp_path_factory, max_parked=2)
    old = opened(world, 2)
    leave(world)
    for one in old:
        one.gone = "STOLEN"  # for as long as the others settle
    world.now += 1.0
    world.connect(0, 0)
    young = opened(world, 2)
    leave(world)
    world.maintain(0)
    assert world.servers[0].keeper.sample().lost["SEQUENCE_EVICTED"] == 2
    for one in old:
        one.gone = ""
    world.connect(0, 0)
    talk(world, 3)
    assert [one.gone for one in old] == ["SEQUENCE_EVICTED"] * 2
    assert all(one.ready for one in young)
    world.close()


def test_an_open_sequence_that_sleeps_and_gives_way_is_told_of_on_its_stream(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = limited(tmp_path_factory, max_parked=1)
    asleep = opened(world, 3)
    world.write(0)
    world.now += 60.0
    world.maintain(0)
    world.hear(0)
    assert sorted(one.gone for one in asleep) == ["", "SEQUENCE_EVICTED", "SEQUENCE_EVICTED"]
    world.close()


def keep(world: World) -> None:
    """All that are open are written, though they took no step."""
    registry = world.servers[0].keeper._registry
    registry.keep(list(registry))
    world.write(0)


def come_and_go(world: World, owner: str, count: int) -> list[tuple[str, str]]:
    """Opens sequences for an owner and disconnects; their ids and tokens."""
    world.connect(0, 0)
    line = world.line(0)
    line.say(pb.StreamRequest(open=pb.Open(count=count, model="recall", version=1, owner=owner)))
    world.quiet()
    (told,) = [pb.StreamResponse.FromString(message).opened for message in line.down]
    line.say(pb.StreamRequest(close=pb.Close(count=count, park=True)))
    world.quiet()
    leave(world)
    return [(id_, told.resume_token) for id_ in told.sequence_ids]


def come_back(world: World, at: int, id_: str, token: str) -> list[str]:
    """Resumes a sequence, and disconnects; why that was refused."""
    world.connect(0, at)
    line = world.line(0)
    line.say(pb.StreamRequest(resume=pb.Resume(sequence_ids=[id_], resume_token=token, answered=[0])))
    world.quiet()
    world.work(at)
    refused = refusals(world)
    world.cut(0)
    world.quiet()
    world.write(at)
    return refused


def test_an_owner_that_comes_again_and_again_pushes_out_its_own_sequences_and_nobody_elses(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = World(tmp_path_factory.getbasetemp(), max_parked_per_owner=2)
    of_bob = come_and_go(world, "bob", 2)
    of_ann = []
    for _ in range(3):
        world.now += 1.0
        of_ann += come_and_go(world, "ann", 2)
        world.maintain(0)
    assert (
        world.store.usage("ipv4:10.0.0.1 ann").sequences,
        world.store.usage("ipv4:10.0.0.1 bob").sequences,
    ) == (2, 2)
    assert world.servers[0].keeper.sample().lost["SEQUENCE_EVICTED"] == 4
    assert [come_back(world, 1, *one) for one in of_ann] == [["SEQUENCE_EVICTED"]] * 4 + [[]] * 2
    assert [come_back(world, 0, *one) for one in of_bob] == [[]] * 2
    world.close()


def test_a_token_has_a_limit_of_parked_sequences_of_its_own_under_whatever_names(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = World(tmp_path_factory.getbasetemp())
    world.limits["ipv4:10.0.0.1"] = Limits(parked=3)
    kept = []
    for at in range(6):
        world.now += 1.0
        kept += come_and_go(world, f"name {at}", 1)
        world.maintain(0)
    assert world.store.usage().sequences == 3
    assert sum(parked for _, parked in world.store.parked_by("ipv4:10.0.0.1")) == 3
    assert world.store.parked_by("ipv4:10.0.0.2") == []
    world.limits.clear()
    come_and_go(world, "more", 3)
    world.maintain(0)
    assert world.store.usage().sequences == 6
    world.close()


def test_what_an_owner_has_awake_counts_for_no_limit_of_the_parked_and_does_not_give_way(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = limited(tmp_path_factory, max_parked_per_owner=1)
    awake = opened(world, 3)
    world.write(0)
    world.maintain(0)
    assert world.servers[0].keeper.sample().lost["SEQUENCE_EVICTED"] == 0
    world.now += 60.0
    world.maintain(0)  # now they sleep
    world.hear(0)
    assert sorted(one.gone for one in awake) == ["", "SEQUENCE_EVICTED", "SEQUENCE_EVICTED"]
    world.close()


def test_an_owner_whose_last_states_are_written_late_is_counted_once_they_are(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = World(tmp_path_factory.getbasetemp(), max_parked_per_owner=1)
    world.store.mood = "dead"
    come_and_go(world, "ann", 3)
    world.maintain(0)
    world.store.mood = "fine"
    world.maintain(0)  # nothing of them is in the store yet
    world.write(0)
    world.maintain(0)
    assert world.store.usage("ipv4:10.0.0.1 ann").sequences == 1
    world.close()


def test_a_full_store_takes_no_new_sequences_until_there_is_room(tmp_path_factory: pytest.TempPathFactory) -> None:
    world = limited(tmp_path_factory, max_store_mib=1e-3)  # one sequence, not two
    one, other = opened(world, 2)
    world.write(0)
    world.maintain(0)
    assert world.open(0) != []
    assert refusals(world) == ["STORE_FULL"]
    world.clients[0].lost()
    leave(world)
    world.maintain(0)  # they are parked now: one of them gives way
    assert sum(reason == "SEQUENCE_EVICTED" for reason in world.servers[0].keeper.sample().lost) == 1
    world.maintain(0)
    assert not world.servers[0].keeper._limits.full
    assert one.id != other.id
    world.close()


def test_after_the_retention_time_a_sequence_has_expired_and_says_so(world: World) -> None:
    (one,) = opened(world)
    leave(world)
    world.now += 8 * 86_400
    world.maintain(0)
    assert world.store.usage().sequences == 0
    world.connect(0, 0)
    talk(world)
    assert one.gone == "SEQUENCE_EXPIRED"
    del world.truth[one]


# A store that breaks off ----------------------------------------------------------------------------------------------


def break_off(world: World, mood: str) -> None:
    """The server reads what it needs, and the store breaks off at the write that follows."""
    flow(world)
    world.work(0, 1)
    world.store.mood = mood
    world.work(0)
    world.store.mood = "fine"
    world.write(0)  # whatever the server still believes


def stands_at(world: World, one: Survivor) -> Checkpoint:
    """What the store has as the newest of a sequence."""
    kept = map(decode, world.store._store.tables.checkpoints(one.id).values())
    return max(kept, key=lambda checkpoint: checkpoint.step)


@pytest.mark.parametrize(("mood", "stands"), [("late", 4), ("dead", 9)])
def test_nothing_is_written_of_a_sequence_of_which_nobody_knows_whether_it_was_rewound_until_it_is_resumed(
    world: World, mood: str, stands: int
) -> None:
    (one,) = opened(world)
    world.give(0, one, ROWS[:4])
    world.settle()
    world.write(0)
    world.give(0, one, ROWS[4:9])
    flow(world)
    world.hear(0)
    world.write(0)
    world.clients[0].rewind(one, 5)
    break_off(world, mood)
    assert stands_at(world, one).step == stands
    assert len(world.servers[0].keeper._registry) == 0
    world.hear(0)
    world.settle()
    assert one.answered == one.end


@pytest.mark.parametrize(("mood", "version"), [("late", 2), ("dead", 1)])
def test_nothing_is_written_of_a_sequence_of_which_nobody_knows_whether_it_has_moved_until_it_is_resumed(
    world: World, mood: str, version: int
) -> None:
    (one,) = opened(world)
    world.give(0, one, ROWS[:4])
    world.settle()
    world.write(0)
    world.clients[0].move(one, 2)
    break_off(world, mood)
    assert (stands_at(world, one).step, stands_at(world, one).version) == (4, version)
    assert len(world.servers[0].keeper._registry) == 0
    world.hear(0)
    world.give(0, one, ROWS[4:9])
    world.settle()
    assert (one.version, one.answered) == (2, 9)


def test_a_store_that_does_not_answer_at_all_refuses_a_rewind_or_a_move_and_changes_nothing(world: World) -> None:
    (one,) = opened(world)
    world.give(0, one, ROWS[:4])
    world.settle()
    for ask in (lambda: world.clients[0].rewind(one, 2), lambda: world.clients[0].move(one, 2)):
        world.store.mood = "dead"
        ask()
        flow(world)
        world.work(0)
        assert len(world.servers[0].keeper._registry) == 1
        world.store.mood = "fine"
        world.hear(0)
        world.settle()
    assert not world.servers[0].keeper.sample().lost["DRAINING"]


# Who is awake, wherever ----------------------------------------------------------------------------------------------


def lost(world: World) -> dict[str, int]:
    """How many all servers have counted, by reason."""
    return dict(sum((server.keeper.sample().lost for server in world.servers), Counter()))


def steps_on(world: World, one: Survivor, rows: np.ndarray) -> None:
    """What is said is answered and written, at server 0."""
    world.give(0, one, rows)
    flow(world)
    world.write(0)
    world.hear(0)


@pytest.mark.parametrize("limit", [{"max_parked": 0}, {"max_parked_per_owner": 1}, {"max_store_mib": 1e-9}])
def test_what_is_awake_at_one_server_gives_way_to_no_limit_of_another(
    tmp_path_factory: pytest.TempPathFactory, limit: dict[str, float]
) -> None:
    world = limited(tmp_path_factory, idle_seconds=1e9, **limit)
    world.open(0, 3)
    flow(world)
    world.hear(0)
    for at in range(4):
        steps_on(world, world.clients[0].all[0], ROWS[at : at + 1])
        world.servers[1].keeper._registry.note(world.servers[0].keeper._registry)
        world.maintain(1)
        world.now += 1.0
    assert lost(world) == {}
    assert world.store.usage().parked == 0
    world.close()


@pytest.mark.parametrize("limit", ["max_parked", "max_parked_per_owner"])
def test_what_is_awake_anywhere_takes_no_place_of_the_parked(
    tmp_path_factory: pytest.TempPathFactory, limit: str
) -> None:
    world = World(tmp_path_factory.getbasetemp(), idle_seconds=1e9, **{limit: 1})
    come_and_go(world, "ann", 1)
    world.connect(0, 0)
    line = world.line(0)
    line.say(pb.StreamRequest(open=pb.Open(count=3, model="recall", version=1, owner="ann")))
    world.quiet()
    keep(world)
    for at in range(2):
        world.servers[at].keeper._registry._active.add("ann")
        world.maintain(at)
    assert (world.store.usage().sequences, world.store.usage().parked) == (4, 1)
    world.close()


def test_the_store_is_not_told_again_of_what_was_written_to_it_just_now(world: World) -> None:
    (one,) = opened(world)
    world.now += LEASE
    steps_on(world, one, ROWS[:2])
    with patch.object(world.store._store, "hold") as hold:
        world.maintain(0)
        assert not hold.called
        world.now += LEASE / 5
        world.servers[0].keeper.parking._patience = 1e9
        world.maintain(0)
        assert hold.called


def test_what_a_crashed_server_had_awake_is_parked_after_a_while(tmp_path_factory: pytest.TempPathFactory) -> None:
    world = limited(tmp_path_factory, max_parked=0, idle_seconds=1e9)
    world.open(0, 3)
    flow(world)
    keep(world)
    world.kill(0)
    world.maintain(1)
    assert (world.store.usage().sequences, world.store.usage().parked) == (3, 0)
    world.now += LEASE
    world.maintain(1)
    assert world.store.usage().sequences == 0
    assert lost(world) == {"SEQUENCE_EVICTED": 3}
    world.close()


def test_an_owner_of_whom_a_crashed_server_had_too_many_awake_has_no_more_parked_than_may_be(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = limited(tmp_path_factory, max_parked_per_owner=1, idle_seconds=1e9)
    world.open(0, 3)
    flow(world)
    keep(world)
    world.kill(0)
    world.now += LEASE
    world.maintain(1)
    assert (world.store.usage().sequences, lost(world)) == (1, {"SEQUENCE_EVICTED": 2})
    world.close()


def test_an_open_sequence_without_a_step_for_hours_stays_awake(tmp_path_factory: pytest.TempPathFactory) -> None:
    world = limited(tmp_path_factory, max_parked=0, idle_seconds=1e9, retention_hours=1.0)
    (one,) = world.open(0)
    flow(world)
    world.write(0)
    for _ in range(40):
        world.now += LEASE / 2
        world.maintain(0)
        world.maintain(1)
    world.hear(0)
    assert (one.gone, lost(world), world.store.usage().parked) == ("", {}, 0)
    world.close()


def test_a_sleeper_that_wakes_up_gives_way_to_nobody_before_its_first_step_is_written(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = limited(tmp_path_factory, max_parked=1)
    (one,) = opened(world)
    world.write(0)
    world.now += 60.0
    world.maintain(0)
    assert world.store.usage().parked == 1
    world.give(0, one, ROWS[:1])
    flow(world)
    world.work(0)
    assert world.store.usage().parked == 0
    world.close()


def test_a_sleeper_wakes_up_although_the_store_takes_no_writes(world: World) -> None:
    (one,) = opened(world)
    world.write(0)
    world.now += 60.0
    world.maintain(0)
    with patch.object(world.store._store, "hold", side_effect=StoreFailed("its memory is full")):
        world.give(0, one, ROWS[:1])
        flow(world)
        world.work(0)
        world.hear(0)
    assert one.answered == 1


@pytest.mark.parametrize("days", [8, -1 / 24])
def test_an_open_sequence_goes_on_after_a_jump_of_the_clock(world: World, days: float) -> None:
    (one,) = opened(world)
    steps_on(world, one, ROWS[:2])
    world.cut(0)
    world.connect(0, 0)  # a fence of now
    world.settle()
    steps_on(world, one, ROWS[2:4])
    world.now += 86_400 * days
    steps_on(world, one, ROWS[4:6])
    world.cut(0)
    world.connect(0, 1)
    flow(world)
    world.work(1)
    world.hear(0)
    assert one.ready
    assert lost(world) == {}


def test_a_sleeper_that_another_server_evicts_is_told_of_on_its_stream_and_counted_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = limited(tmp_path_factory, max_parked=1)
    asleep = opened(world, 2)
    world.write(0)
    world.now += 60.0
    with patch.object(world.servers[0].keeper._limits, "enforce", AsyncMock()):
        world.maintain(0)
    world.maintain(1)
    world.now += LEASE / 5
    world.maintain(0)
    world.hear(0)
    assert sorted(one.gone for one in asleep) == ["", "SEQUENCE_EVICTED"]
    assert lost(world) == {"SEQUENCE_EVICTED": 1}
    assert len(world.servers[0].keeper._registry) == 1
    world.close()


def test_a_server_whose_own_sleepers_expire_tells_their_client_and_counts_each_once(world: World) -> None:
    asleep = opened(world, 2)
    world.write(0)
    world.now += 60.0
    world.maintain(0)
    world.now += 8 * 86_400
    world.maintain(0)
    world.hear(0)
    assert [one.gone for one in asleep] == ["SEQUENCE_EXPIRED"] * 2
    assert len(world.servers[0].keeper._registry) == 0
    assert lost(world) == {"SEQUENCE_EXPIRED": 2}
    for one in asleep:
        del world.truth[one]


def test_many_give_way_in_portions_so_that_nobody_waits_for_all_of_them(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = limited(tmp_path_factory, max_parked=1)
    many = [Write(f"{n}", 1, 0, b"", Creation(bytes(32), "ann", "recall"), awake=False) for n in range(1_301)]
    world.store.write(many, world.now)
    with patch.object(world.store._store, "evict", wraps=world.store._store.evict) as evict:
        world.maintain(0)
    assert [call.args[0] for call in evict.call_args_list] == [500, 500, 300]
    assert world.store.usage().sequences == 1
    world.close()


def test_while_limits_are_enforced_for_long_each_call_of_the_store_is_told_the_time_of_that_call(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = limited(tmp_path_factory, max_parked=1)
    many = [Write(f"{n}", 1, 0, b"", Creation(bytes(32), "ann", "recall"), awake=False) for n in range(1_301)]
    world.store.write(many, world.now)
    told, evict = list[bool](), world.store._store.evict

    def slow(count: int, now: float, *, owner: str | None = None) -> list[Evicted]:
        told.append(now == world.now)
        world.now += 60.0
        return evict(count, now, owner=owner)

    with patch.object(world.store._store, "evict", slow):
        world.maintain(0)
    assert told == [True] * 3
    world.close()


def test_a_store_gives_back_space_in_a_bounded_number_of_slices_each_round(world: World) -> None:
    with patch.object(world.store._store, "shrink", return_value=True) as shrink:
        world.maintain(0)
    assert 1 < shrink.call_count < 100
    with patch.object(world.store._store, "shrink", return_value=False) as shrink:
        world.maintain(0)
    assert shrink.call_count == 1


def test_old_reasons_are_forgotten_in_one_round_of_housekeeping(world: World) -> None:
    ids = [f"{n}" for n in range(2_500)]
    world.store.write([Write(id_, 1, 0, b"", Creation(bytes(32), "ann", "recall")) for id_ in ids], world.now)
    world.store.end([End(id_, 1, Reason.ENDED) for id_ in ids], world.now)
    world.now += 8 * 86_400
    world.maintain(0)
    assert not world.store.usage().tombstones


@pytest.mark.parametrize("asked", ["rewind", "move"])
def test_a_rewind_or_move_that_a_full_store_has_definitely_not_written_leaves_its_sequence_running(
    world: World, asked: str
) -> None:
    (one,) = opened(world)
    world.give(0, one, ROWS[:4])
    world.settle()
    world.write(0)
    world.store.mood = "full"
    line = world.line(0)
    handle = world.servers[0].keeper._registry.get(one.id).handle
    rewind, move = pb.Rewind(handle=handle, step=2), pb.Move(handle=handle, version=2)
    line.say(pb.StreamRequest(rewind=rewind) if asked == "rewind" else pb.StreamRequest(move=move))
    world.quiet()
    world.work(0)
    failure = pb.StreamResponse.FromString(line.down.pop()).failure
    assert failure.error.reason == error_pb2.REASON_STORE_UNAVAILABLE
    world.store.mood = "fine"
    world.give(0, one, ROWS[4:9])
    world.settle()
    world.write(0)
    world.kill(0)
    world.settle()
    assert (one.gone, one.version, one.answered) == ("", 1, 9)


def test_a_store_that_has_lost_its_data_gets_quiet_sequences_written_again(world: World) -> None:
    some = opened(world, 3)
    for one in some:
        world.give(0, one, ROWS[:4])
    world.settle()
    world.write(0)
    world.store._store = MemoryStore(Terms(keep=1))
    with patch.object(MemoryStore, "losses", lambda _: 1):
        looking = world.loop.create_task(world.servers[0].keeper._checkpointer.look_for_losses())
        world.quiet()
        world.work(0)
        assert looking.done()
    world.write(0)
    world.kill(0)
    world.settle()
    assert [(one.gone, one.answered) for one in some] == [("", 4)] * 3


@pytest.mark.parametrize("found", ["by looking", "by a step"])
def test_a_store_that_has_lost_its_data_has_lost_those_asleep_and_their_clients_hear_why(
    world: World, found: str
) -> None:
    some, registry = asleep(world, 3)
    kept = world.store._store
    world.store._store = MemoryStore(Terms(keep=1))
    stays = kept.read([Claim(some[0].id, registry.get(some[0].id).digest)], world.now)[0]
    creation = Creation(registry.get(some[0].id).digest, stays.owner, stays.model)
    world.store.write([Write(some[0].id, 1, 4, stays.checkpoints[0], creation)], world.now)
    if found == "by looking":
        with patch.object(MemoryStore, "losses", lambda _: 1):
            looking = world.loop.create_task(world.servers[0].keeper._checkpointer.look_for_losses())
            world.quiet()
            world.work(0)
            assert looking.done()
        world.hear(0)
        assert [one.gone for one in some] == ["", "CHECKPOINT_GONE", "CHECKPOINT_GONE"]
        world.now += 3_600
        world.maintain(0)
        assert world.store.usage().parked == 1, "the store hears that it is still open"
    for one in some:
        if not one.gone:
            world.give(0, one, ROWS[4:6])
    for one in some[1:]:
        del world.truth[one]
    world.settle()
    assert [one.gone for one in some] == ["", "CHECKPOINT_GONE", "CHECKPOINT_GONE"]
    assert some[0].answered == 6


def test_those_that_are_abandoned_before_any_took_a_step_leave_nothing_in_the_store(world: World) -> None:
    fresh = world.open(0, 3)
    flow(world)
    world.hear(0)
    world.write(0)
    leave(world)
    assert world.store.usage().sequences == 0
    world.connect(0, 0)
    world.settle()
    assert [one.gone for one in fresh] == [""] * 3  # their client has opened them anew


def test_of_those_that_were_opened_together_all_are_kept_once_one_has_taken_a_step(world: World) -> None:
    some, other = world.open(0, 3), world.open(0, 2)
    flow(world)
    world.hear(0)
    world.write(0)
    world.give(0, some[1], ROWS[:2])
    flow(world)
    world.write(0)
    assert world.store.usage().sequences == 3
    world.give(0, other[0], ROWS[:1])
    flow(world)
    leave(world)
    assert world.store.usage().sequences == 5
    world.connect(0, 1)
    world.settle()
    assert [one.answered for one in (*some, *other)] == [0, 2, 0, 1, 0]


@pytest.mark.parametrize("leaving", ["parked", "cut"])
@pytest.mark.parametrize("change", ["rewind", "move"])
def test_a_rewind_or_move_that_was_given_up_while_it_waited_changes_nothing_that_was_parked_since(
    tmp_path_factory: pytest.TempPathFactory, change: str, leaving: str
) -> None:
    """Those of one account have their turns one after the other; a checkpoint comes between two of them."""
    world = World(tmp_path_factory.getbasetemp())
    world.connect(0, 0)
    line, registry = world.line(0), world.servers[0].keeper._registry
    line.say(pb.StreamRequest(open=pb.Open(count=2, model="recall", version=1)))
    world.quiet()
    opened = pb.StreamResponse.FromString(line.down.popleft()).opened
    for first in (0, 4):
        for handle in (0, 1):
            inputs = [wire.encode("", ROWS[first : first + 4])]
            line.say(pb.StreamRequest(steps=pb.Steps(handle=handle, first_step=first, inputs=inputs, answered=first)))
        world.quiet()
        world.write(0)
    second = registry.get(opened.sequence_ids[1])
    claim = Claim(second.id, second.digest)
    for handle in (0, 1):
        if change == "rewind":
            line.say(pb.StreamRequest(rewind=pb.Rewind(handle=handle, step=4)))
        else:
            line.say(pb.StreamRequest(move=pb.Move(handle=handle, version=2)))
    world.quiet()  # the first waits for the store, the second for the first
    world.begin_to_write(0)
    if leaving == "parked":
        line.say(pb.StreamRequest(close=pb.Close(handle=1, park=True)))
    else:
        world.cut(0)
    world.quiet()
    world.work(0)
    world.write(0)
    (kept,) = world.store.read([claim], world.now)
    newest = decode(kept.checkpoints[0])
    world.close()
    assert (newest.step, newest.version) == (8, 1)


def test_who_resumes_one_that_sleeps_is_answered_although_the_store_may_have_lost_it_and_nothing_is_to_be_written(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of the loss is that nothing is stored; the store is still asked which of those asleep it has."""
    world = World(tmp_path_factory.getbasetemp())
    world.connect(0, 0)
    some, registry = asleep(world, 2)
    world.store._store = MemoryStore(Terms(keep=1))
    checkpoint, written = Checkpointer.checkpoint, Counter[str]()

    async def counted(checkpointer: Checkpointer, everything: bool = True) -> None:
        written["times"] += 1
        if written["times"] > 100:
            raise AssertionError("it is written without end, and the loop has no other turn")
        await checkpoint(checkpointer, everything)

    monkeypatch.setattr(Checkpointer, "checkpoint", counted)
    with patch.object(MemoryStore, "losses", lambda _: 1):
        world._background.append(world.loop.create_task(world.servers[0].keeper._checkpointer.look_for_losses()))
        world.quiet()
        world.work(0, 1)
        assert [registry.get(one.id).stored for one in some] == [False] * 2
        world.cut(0, noticed=False)
        world.connect(0, 0)
        world.clients[0].begin()
        world.send(0)
        world.quiet()
        world.work(0)
    assert written["times"] < 10
    line = world.line(0)
    kinds = [pb.StreamResponse.FromString(message).WhichOneof("response") for message in line.down]
    assert kinds
    assert set(kinds) <= {"opened", "failure", "released"}
    world.close()


def test_a_new_sequence_is_rewound_while_others_have_much_to_be_written(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointer, "_MOST", 1)
    monkeypatch.setattr(handles, "PIECE", 1)
    world = World(tmp_path_factory.getbasetemp(), max_sequences=40)
    world.connect(0, 0)
    world.connect(1, 0, "10.0.0.2")
    for who, count in ((1, 10), (0, 1)):
        fresh = [world.open(who)[0] for _ in range(count)]
        flow(world, who)
        world.hear(who)
        for one in fresh:
            world.give(who, one, ROWS[:2])
        flow(world, who)
        world.hear(who)
        if who:
            world.cut(who)
            world.quiet()
    line = world.line(0)
    assert world.servers[0].keeper._outbox.unwritten == 10
    line.say(pb.StreamRequest(rewind=pb.Rewind(handle=0, step=0)))
    world.quiet()
    for _ in range(4):
        world.work(0, 1)
    assert [pb.StreamResponse.FromString(message).WhichOneof("response") for message in line.down] == ["rewound"]
    assert world.servers[0].keeper._outbox.unwritten > 5
    world.close()


def test_what_was_parked_without_a_token_is_resumed_with_one_before_it_is_written(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when tokens are introduced."""
    world = World(tmp_path_factory.getbasetemp())
    world.connect(0, 0)
    (one,) = world.open(0)
    flow(world)
    world.hear(0)
    world.give(0, one, ROWS[:3])
    flow(world)
    world.hear(0)
    world.cut(0)
    world.quiet()
    assert world.servers[0].keeper._outbox.unwritten == 1
    monkeypatch.setattr(worlds, "Caller", partial(Caller, token="t"))
    world.connect(0, 0)
    world.clients[0].begin()
    talk(world)
    assert (one.gone, one.ready) == ("", True)
    world.close()
