"""What waits for sleepers: taken up once, in the order in which it came, and nobody else waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from server.edge.exchanges import pace
from server.streams.stream import Stream
from tests.server.world import World
from tidegate.v1 import error_pb2
from tidegate.v1 import sequence_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.surviving_client import Survivor

ROWS = np.random.default_rng(11).normal(size=(60, 3)).astype(np.float32)
MANY = 40
IDLE = 60.0  # seconds, more than a sequence may go without a step


@pytest.fixture
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., World]]:
    made = []

    def world(**given: Any) -> World:  # noqa: ANN401 - settings are what they are
        made.append(World(tmp_path_factory.getbasetemp(), **given))
        for who in range(2):
            made[-1].connect(who, 0)
        return made[-1]

    yield world
    for each in made:
        each.end()


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    return make()


def asleep(world: World, count: int, who: int = 0) -> list[Survivor]:
    """Sequences that have taken a step each, and sleep."""
    fresh = world.open(who, count)
    world.settle()
    for one in fresh:
        world.give(who, one, ROWS[:1])
    world.settle()
    sleep(world)
    return fresh


def sleep(world: World) -> None:
    world.write(0)
    world.now += IDLE
    world.maintain(0)
    assert all(model.slots.in_use == 0 for model in world.servers[0].shelf.models.values())
    for who in range(2):
        world.hear(who)


def arrive(world: World, messages: int = 10**6, who: int = 0) -> None:
    """So many requests reach the server, together."""
    world.send(who, messages)
    world.quiet()


def count_calls(monkeypatch: pytest.MonkeyPatch, what: object, name: str) -> list[str]:
    """Grows with each call."""
    calls: list[str] = []
    real = getattr(what, name)

    def counted(*given: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever it is given
        calls.append(name)
        return real(*given, **named)

    monkeypatch.setattr(what, name, counted)
    return calls


def test_sleepers_that_are_called_together_are_read_at_once_and_each_of_their_requests_is_taken_up_once(
    make: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "_TURN", 1e9)  # however busy this machine is, a bundle is taken in one turn
    world = make(max_sequences=2 * MANY)
    asleep = [(who, one) for who in range(2) for one in world.open(who, MANY)]
    world.settle()
    sleep(world)
    reads = count_calls(monkeypatch, world.store._store, "read")
    taken = count_calls(monkeypatch, Stream, "steps")
    for who, one in asleep:
        world.give(who, one, ROWS[:1])
        world.give(who, one, ROWS[1:3])
    for who in range(2):
        world.send(who)
    world.quiet()
    world.work(0)
    for who in range(2):
        world.hear(who)
    assert all(one.answered == 3 for _, one in asleep)
    assert len(reads) == 1
    assert len(taken) == 2 * (2 * len(asleep))  # when they come, and when their sequence is awake


def test_many_requests_that_wait_in_one_line_are_each_taken_up_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = asleep(world, 4)
    taken = count_calls(monkeypatch, Stream, "fleet")
    for at in range(MANY):
        world.give_fleet(0, fleet, np.repeat(ROWS[at : at + 1], len(fleet), axis=0))
    arrive(world)
    world.work(0)
    world.hear(0)
    assert all(one.answered == 1 + MANY for one in fleet)
    assert len(taken) == 2 * MANY


def test_requests_that_wait_count_in_bytes_and_no_more_is_read(make: Callable[..., World]) -> None:
    world = make(window_mib=1 / 16)
    (one,) = asleep(world, 1)
    rows = np.tile(ROWS, (20, 1))  # 14 KB
    for at in range(30):
        world.give(0, one, rows + np.float32(at))
    for _ in range(30):
        arrive(world, 1)  # none in company
    line = world.line(0)
    assert len(line.up) == 30 - 4
    for _ in range(40):
        world.work(0)
        world.hear(0)
        world.quiet()
    assert not line.up
    assert one.answered == 1 + 30 * len(rows)


def test_a_request_keeps_its_place_among_those_of_each_of_its_sequences(world: World) -> None:
    one, other, third = asleep(world, 3)
    world.give(0, one, ROWS[1:2])
    arrive(world)  # the store is asked for the first, and then for the others
    world.give_fleet(0, [one, other], ROWS[2:4])
    arrive(world)
    world.clients[0].read(one)
    world.give(0, one, ROWS[3:6])
    world.clients[0].read(other)
    world.give_fleet(0, [other, third], ROWS[4:6])
    arrive(world)
    world.give(0, third, ROWS[6:8])
    arrive(world)
    world.work(0, 1)
    world.hear(0)
    assert [s.answered for s in (one, other, third)] == [2, 1, 1]  # the fleet waits for the other one
    world.work(0, 1)
    world.hear(0)
    assert [s.answered for s in (one, other, third)] == [6, 3, 4]
    assert [[state.step for state in s.states] for s in (one, other)] == [[3], [2]]


def test_a_rewind_a_move_and_a_close_of_a_sleeper_stand_where_they_were_sent(world: World) -> None:
    back, over, closed = asleep(world, 3)
    for sleeper in (back, over, closed):
        world.give(0, sleeper, ROWS[1:4])
    world.clients[0].rewind(back, 3)
    world.clients[0].move(over, 2)
    line = world.line(0)
    arrive(world)
    line.say(pb.StreamRequest(close=pb.Close(handle=closed.handle)))
    closed.asked = "closing"
    world.quiet()
    world.work(0)
    world.write(0)
    world.hear(0)
    assert (back.asked, back.end) == ("", 1)  # the newest checkpoint at or before
    assert (over.version, over.answered) == (2, 4)
    assert (closed.gone, closed.answered) == ("CLOSED", 4)


def test_who_is_awake_does_not_wait_for_those_who_sleep(world: World) -> None:
    sleeper, awake = asleep(world, 2)
    world.give(0, awake, ROWS[1:2])
    arrive(world)
    world.work(0)
    world.hear(0)
    world.give(0, sleeper, ROWS[1:2])
    world.give(0, awake, ROWS[2:4])
    arrive(world)
    world.hear(0)
    assert (sleeper.answered, awake.answered) == (1, 4)


def test_a_member_of_a_fleet_stays_awake_until_the_others_are(world: World) -> None:
    one, other = asleep(world, 2)
    world.give(0, one, ROWS[1:2])
    arrive(world)
    world.work(0)
    world.hear(0)
    world.write(0)
    world.give_fleet(0, [one, other], ROWS[2:4])
    arrive(world)
    world.now += IDLE
    world._errand(world.servers[0].keeper.maintain())  # while the store is being asked for the other one
    world.quiet()
    assert world.servers[0].shelf.models[1].asleep == 1
    world.work(0, 1)
    world.hear(0)
    assert (one.answered, other.answered) == (3, 2)


def test_what_waits_for_a_sleeper_that_cannot_be_had_is_refused_and_what_waited_behind_it_is_not_stuck(
    world: World,
) -> None:
    one, other = asleep(world, 2)
    world.store.mood = "dead"
    world.give_fleet(0, [one, other], ROWS[1:3])
    world.clients[0].read(other)
    arrive(world)
    world.work(0)
    line = world.line(0)
    said = [pb.StreamResponse.FromString(message) for message in line.down]
    assert [error_pb2.Reason.Name(m.failure.error.reason)[7:] for m in said] == ["STORE_UNAVAILABLE"] * 2
    world.store.mood = "fine"
    world.settle()
    assert (one.answered, other.answered) == (2, 2)


def test_a_sleeper_that_there_is_no_room_for_is_refused_and_those_that_there_is_room_for_are_not(
    make: Callable[..., World],
) -> None:
    world = make(max_sequences=2)
    first, second = asleep(world, 2)
    (third,) = world.open(1, 1)
    arrive(world, who=1)
    world.hear(1)
    assert third.ready
    for one in (first, second):
        world.give(0, one, ROWS[1:3])
    arrive(world)
    world.work(0)
    line = world.line(0)
    failures = [m.failure for m in map(pb.StreamResponse.FromString, line.down) if m.HasField("failure")]
    assert [list(failure.handles) for failure in failures] == [[second.handle]]
    world.hear(0)
    assert (first.answered, second.answered) == (3, 1)
    world.settle()


# The last word --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (pb.StreamRequest(rewind=pb.Rewind(step=1)), "rewound"),
        (pb.StreamRequest(move=pb.Move(version=2)), "moved"),
        (pb.StreamRequest(read_state=pb.ReadState()), "state"),
        (pb.StreamRequest(close=pb.Close()), "closed"),
    ],
)
@pytest.mark.parametrize("rested", [False, True])
def test_a_client_that_has_said_its_last_word_still_hears_what_came_of_what_it_asked(
    tmp_path_factory: pytest.TempPathFactory, asked: pb.StreamRequest, answer: str, rested: bool
) -> None:
    world = World(tmp_path_factory.getbasetemp())
    world.connect(0, 0)
    (one,) = asleep(world, 1)
    assert one.handle == 0
    if not rested:
        world.give(0, one, ROWS[1:2])
        arrive(world)
        world.work(0)
        world.write(0)
        world.hear(0)
    assert said_after_the_last_word(world, asked) == [answer]
    world.close()


def test_a_client_that_has_resumed_and_said_its_last_word_still_hears_that_it_has(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = World(tmp_path_factory.getbasetemp())
    world.connect(0, 0)
    asleep(world, 1)
    world.cut(0)
    world.quiet()
    world.connect(0, 0)
    assert said_after_the_last_word(world, world.clients[0].out.popleft()) == ["opened"]
    world.close()


def said_after_the_last_word(world: World, asked: pb.StreamRequest) -> list[str | None]:
    """Asks, says that nothing more will come, and hears the server out."""
    line = world.line(0)
    line.say(asked)
    line.say(grpc.aio.EOF)
    world.quiet()
    world.work(0)
    world.write(0)
    assert line.serving.done()
    return [pb.StreamResponse.FromString(message).WhichOneof("response") for message in line.down]
