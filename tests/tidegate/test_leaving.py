"""How sequences leave a client: taken over by another, closed more than once; and who gets their handles."""

import numpy as np
import pytest

from tests.tidegate.fake_server import expected
from tests.tidegate.world import World, numbers
from tidegate.errors import SequenceEnded, SequenceLost
from tidegate.protocol.opening import Order
from tidegate.trace import Trace
from tidegate.v1 import error_pb2
from tidegate.v1 import sequence_pb2 as pb

ROWS = np.random.default_rng(3).normal(size=(40, 2)).astype(np.float32)


def test_all_steps_on_their_way_when_a_sequence_is_taken_over_hear_that_it_was_and_its_neighbour_goes_on() -> None:
    world = World()
    sequence_books, neighbour = world.sequence(), world.sequence()
    promises = [world.step(sequence_books, row) for row in ROWS[:6]]
    world.serve(2)
    world.take_over(sequence_books)
    world.serve()
    world.hear()  # the refusals come before the reason
    world.release()
    world.hear()
    np.testing.assert_array_equal(numbers(sequence_books, *promises[:2]), expected(ROWS[:2]))
    for promise in promises[2:]:
        with pytest.raises(SequenceLost, match="TAKEN_OVER"):
            promise.result()
    with pytest.raises(SequenceLost, match="TAKEN_OVER"):
        sequence_books.send_step(ROWS[6])
    promise = world.step(neighbour, ROWS[0])
    world.settle()
    np.testing.assert_array_equal(numbers(neighbour, promise), expected(ROWS[:1]))


def test_all_steps_on_their_way_when_a_member_of_a_fleet_is_taken_over_hear_that_it_was() -> None:
    world = World()
    fleet = world.fleet(4)
    promises = [world.tell(fleet.send(ROWS[:4])) for _ in range(3)]
    world.serve(1)
    world.take_over(fleet, member=2)
    world.settle()
    assert len(fleet.answers(promises[0])) == 4
    for promise in promises[1:]:
        with pytest.raises(SequenceLost, match="TAKEN_OVER"):
            promise.result()
    assert world.sequence().handle == 0


def test_a_close_that_a_takeover_overtakes_hears_of_it() -> None:
    world = World()
    sequence_books = world.sequence()
    world.take_over(sequence_books)
    closed = world.tell(world.talk.close(sequence_books))
    world.settle()
    with pytest.raises(SequenceLost, match="TAKEN_OVER"):
        closed.result()


def test_a_step_that_is_refused_for_good_takes_what_is_on_its_way_along() -> None:
    world = World()
    sequence_books = world.sequence()
    promises = [world.step(sequence_books, row) for row in ROWS[:3]]
    failure = pb.Failure(handles=[0], first_step=1, request="steps")
    failure.error.reason = error_pb2.REASON_SEQUENCE_EVICTED
    world.say(world.talk.receive(pb.StreamResponse(failure=failure)))
    for promise in promises:
        with pytest.raises(SequenceLost, match="SEQUENCE_EVICTED"):
            promise.result()
    world.settle()  # an answer that comes all the same is for nobody
    assert world.sequence().handle == 0


def test_a_handle_is_not_used_again_while_the_server_may_still_speak_of_who_had_it() -> None:
    world = World()
    sequence_books = world.sequence()
    world.take_over(sequence_books)
    world.release()
    late = [world.step(sequence_books, row) for row in ROWS[:3]]
    world.hear()
    assert all(promise.done for promise in late)
    opening, requests = world.talk.open(Order("toy", 0, 1, Trace()))
    assert requests[0].open.handle == 1
    world.say(requests)
    world.settle()
    assert opening.result().handle == 1
    assert world.sequence().handle == 0


def test_a_sequence_is_closed_once_and_whoever_asks_again_hears_the_same() -> None:
    world = World()
    sequence_books, neighbour = world.sequence(), world.sequence()
    promises = [world.tell(world.talk.close(sequence_books)) for _ in range(3)]
    assert [request.WhichOneof("request") for request in world.up] == ["close"]
    world.settle()
    late = world.tell(world.talk.close(sequence_books))
    assert [promise.result().handle for promise in (*promises, late)] == [0] * 4
    assert world.sequence().handle == 0
    promise = world.step(neighbour, ROWS[0])
    world.settle()
    np.testing.assert_array_equal(numbers(neighbour, promise), expected(ROWS[:1]))


def test_a_sequence_that_is_closed_twice_over_a_loss_is_closed_once_after_it() -> None:
    world = World()
    fleet = world.fleet(3)
    promises = [world.tell(world.talk.close(fleet))]
    world.cut()
    promises.append(world.tell(world.talk.close(fleet)))
    world.settle()
    assert [list(promise.result().steps) for promise in promises] == [[0, 0, 0]] * 2
    assert {record.ended for record in world.store.records.values()} == {error_pb2.REASON_SEQUENCE_ENDED}
    with pytest.raises(SequenceEnded):
        fleet.send(ROWS[:3])
