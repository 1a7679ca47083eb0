"""Moves to other versions: whose columns and inputs count, and who hears that one is refused."""

from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

import tidegate
from tests.tidegate.fake_server import LATER, FakeServer, Store
from tests.tidegate.world import World
from tidegate.errors import UnknownModel
from tidegate.inputs import InputLayout
from tidegate.model import Model
from tidegate.v1 import error_pb2, model_pb2
from tidegate.v1 import sequence_pb2 as pb

ROWS = np.random.default_rng(3).normal(size=(8, 2)).astype(np.float32)
WIDE = np.random.default_rng(4).normal(size=(8, 3)).astype(np.float32)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(store=Store()) as running:
        yield running


@pytest.fixture
async def aio_client(server: FakeServer) -> AsyncIterator[tidegate.AsyncClient]:
    async with tidegate.AsyncClient(server.address) as connected:
        yield connected


@pytest.mark.parametrize("names", [True, False])
def test_a_refused_move_is_heard_by_who_asked_for_it_also_before_an_earlier_request_is_answered(names: bool) -> None:
    world = World()
    sequence_books = world.sequence()
    if names:  # the refusal overtakes the state, which waits for the steps before it
        state, move = world.tell(world.talk.read_state(sequence_books)), world.tell(world.talk.move(sequence_books, 9))
        reading, _ = world.up.popleft(), world.up.popleft()
        failure = pb.Failure(handles=[0], expected_steps=[0], request="move")
        failure.error.reason = error_pb2.REASON_UNKNOWN_VERSION
        world.say(world.talk.receive(pb.StreamResponse(failure=failure)))
        assert (state.done, move.done) == (False, True)
        world.busy.clear()
        world.say([reading])
    else:  # an older server, which refuses in order
        world.behaviour.names_refused = False
        state, move = world.tell(world.talk.read_state(sequence_books)), world.tell(world.talk.move(sequence_books, 9))
    step = world.step(sequence_books, ROWS[0])
    world.settle()
    assert state.result().state.state.step == 0
    with pytest.raises(UnknownModel):
        move.result()
    assert sequence_books.answer(step).step == 0


def test_a_trace_has_the_columns_of_the_version_that_answered_also_if_it_is_read_after_a_move() -> None:
    world = World()
    sequence_books = world.sequence()
    before = world.step(sequence_books, ROWS[0])
    world.settle()
    columns = [model_pb2.TraceColumns(layer=1, name="hidden", size=3)]
    moved = pb.Moved(handle=0, version=2, next_step=1, trace=columns)
    world.say(world.talk.receive(pb.StreamResponse(moved=moved)))
    assert list(sequence_books.answer(before).layer) == [0]
    assert list(sequence_books.answers(before).layer) == [0]
    after = world.step(sequence_books, ROWS[1])
    world.settle()
    assert list(sequence_books.answer(after).layer) == [1]


def test_after_a_move_that_outlived_its_time_limit_the_sequence_takes_the_inputs_of_the_new_version(
    server: FakeServer, client: tidegate.Client
) -> None:
    with client.sequence("toy") as sequence:
        sequence.step(ROWS[0])
        server.behaviour.gate.clear()
        with pytest.raises(tidegate.TimedOut):
            sequence.move(3, timeout=0.01)
        server.behaviour.gate.set()
        sequence.state()  # comes after the move
        assert (sequence.version, sequence.step(WIDE[0]).step) == (3, 1)
        assert sequence.chunk(WIDE[1:4]).steps.tolist() == [2, 3, 4]
        with pytest.raises(tidegate.BadInput, match="WRONG_SHAPE"):
            sequence.step(ROWS[0])


async def test_after_a_move_that_outlived_its_time_limit_the_inputs_are_the_new_ones_for_asyncio_too(
    server: FakeServer, aio_client: tidegate.AsyncClient
) -> None:
    async with aio_client.sequence("toy") as sequence:
        await sequence.step(ROWS[0])
        server.behaviour.gate.clear()
        with pytest.raises(tidegate.TimedOut):
            await sequence.move(3, timeout=0.01)
        server.behaviour.gate.set()
        await sequence.state()
        assert [answer.step async for answer in sequence.stream(list(WIDE))] == list(range(1, 9))


def test_what_is_kept_after_a_move_to_other_inputs_are_those_since_the_move(client: tidegate.Client) -> None:
    with client.sequence("toy") as sequence:
        sequence.chunk(ROWS[:2])
        assert sequence.kept()[0] == 0
        sequence.move(3)
        assert sequence.kept()[1].keys() == {"x"}  # nothing was sent since
        sequence.step(WIDE[0])
        sequence.chunk(WIDE[1:3])
        sequence.step(WIDE[3])
        first, arrays = sequence.kept()
        assert (first, arrays.keys()) == (2, {"wide"})
        np.testing.assert_array_equal(arrays["wide"], WIDE[:4])


def test_steps_of_two_versions_are_not_put_together_and_go_again_as_they_were() -> None:
    world = World(every=0)
    sequence_books = world.sequence()
    promises = [world.step(sequence_books, row) for row in ROWS[:3]]
    world.tell(world.talk.move(sequence_books, 3))
    world.settle()
    sequence_books.takes(3, InputLayout(Model.read(LATER[1]).inputs))
    promises += [world.step(sequence_books, row) for row in WIDE[:40]]
    world.settle()
    promises += [world.step(sequence_books, WIDE[0])]
    world.cut()
    world.settle()
    assert [sequence_books.answer(promise).step for promise in promises] == list(range(12))


def test_what_is_kept_is_looked_at_while_nobody_changes_it(client: tidegate.Client) -> None:
    with client.sequence("toy") as sequence:
        locked = []
        kept = sequence._books.kept
        sequence._books.kept = lambda: (locked.append(sequence._connection._lock.locked()), kept())[1]
        sequence.step(ROWS[0])
        assert len(sequence.kept()[1]["x"]) == 1
        assert locked == [True]
