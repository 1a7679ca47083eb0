"""Losses as values: what a client sends again, what it drops, what it hands out, whatever was on its way."""

import numpy as np
import pytest

from tests.tidegate.fake_server import Session, expected
from tests.tidegate.world import INPUTS, World, numbers
from tidegate.errors import BadInput, ConnectionLost, Refused, SequenceLost
from tidegate.protocol import replay
from tidegate.protocol.budget import Budget
from tidegate.protocol.fleet_books import FleetBooks
from tidegate.protocol.opening import Claim, Opening, Order
from tidegate.protocol.sequence_books import SequenceBooks
from tidegate.state import State
from tidegate.trace import Trace
from tidegate.v1 import error_pb2
from tidegate.v1 import sequence_pb2 as pb

ROWS = np.random.default_rng(3).normal(size=(40, 2)).astype(np.float32)
NAN = [float("nan"), 0]


@pytest.mark.parametrize("killed", [False, True], ids=["cut", "killed"])
@pytest.mark.parametrize("served", range(9))
@pytest.mark.parametrize("heard", range(9))
def test_every_step_is_answered_once_wherever_the_stream_breaks(served: int, heard: int, killed: bool) -> None:
    world = World(every=3)
    sequence_books = world.sequence()
    promises = [world.step(sequence_books, row) for row in ROWS[:8]]
    world.serve(served)
    world.hear(heard)
    world.kill() if killed else world.cut()
    promises += [world.step(sequence_books, row) for row in ROWS[8:12]]
    world.settle()
    np.testing.assert_array_equal(numbers(sequence_books, *promises), expected(ROWS[:12]))
    assert (sequence_books.next_step, sequence_books.answered) == (12, 12)


@pytest.mark.parametrize("heard", range(6))
def test_a_partly_received_chunk_goes_on_at_the_right_step(heard: int) -> None:
    world = World(every=4, part=3)
    sequence_books = world.sequence()
    promise = world.chunk(sequence_books, ROWS[:14])
    world.serve()
    world.hear(heard)
    world.kill()
    world.settle()
    np.testing.assert_array_equal(numbers(sequence_books, promise), expected(ROWS[:14]))


def test_a_chunk_in_several_messages_survives_a_server_that_takes_smaller_ones() -> None:
    world = World(every=5, part=4, max_message=400)
    sequence_books = world.sequence()
    promise = world.chunk(sequence_books, ROWS)
    world.serve(1)
    world.hear(2)
    world.kill()
    world.behaviour.max_message = 200
    world.settle()
    np.testing.assert_array_equal(numbers(sequence_books, promise), expected(ROWS))


def test_losses_in_a_row_and_during_the_resumption_itself_change_nothing() -> None:
    world = World(every=3)
    sequence_books = world.sequence()
    promises = []
    for at in range(0, 20, 2):
        promises += [world.step(sequence_books, row) for row in ROWS[at : at + 2]]
        world.serve(1)
        world.hear(1)
        world.kill()
        for progress in range(3):  # before Opened, after it, after the first steps
            world.reconnect()
            world.serve(progress)
            world.hear(progress)
            world.cut()
    world.settle()
    np.testing.assert_array_equal(numbers(sequence_books, *promises), expected(ROWS[:20]))


def test_only_inputs_since_the_last_checkpoint_but_one_are_kept() -> None:
    world = World(every=4)
    sequence_books = world.sequence()
    for at, row in enumerate(ROWS, 1):
        world.step(sequence_books, row)
        world.settle()
        assert world.budget.steps == at - max(0, at // 4 * 4 - 4)
    first, inputs = sequence_books.kept()
    assert first == 36
    np.testing.assert_array_equal(inputs["x"], ROWS[36:])
    sequence_books.abandon(SequenceLost("UNREACHABLE", "gone"))
    assert (world.budget.steps, world.budget.bytes) == (0, 0)
    assert sequence_books.kept()[0] == 36  # another process may still want them


def test_a_caller_may_write_into_its_own_array_as_soon_as_it_is_sent() -> None:
    world = World(every=0)
    sequence_books = world.sequence()
    row = ROWS[0].copy()
    promise = world.step(sequence_books, row)
    row[:] = 99
    world.cut()
    world.settle()
    np.testing.assert_array_equal(numbers(sequence_books, promise), expected(ROWS[:1]))


def test_a_server_without_a_store_gets_nothing_again_and_nothing_is_kept() -> None:
    world = World()
    world.behaviour.store = None
    sequence_books = world.sequence()
    promise = world.step(sequence_books, ROWS[0])
    assert world.budget.bytes == 0
    world.cut()
    assert isinstance(world.talk.lost, ConnectionLost)
    with pytest.raises(ConnectionLost):
        promise.result()


# A server that was lost before its first write.


@pytest.mark.parametrize("heard", [1, 3])
def test_a_sequence_that_was_never_written_is_opened_anew(heard: int) -> None:
    world = World(every=0)
    sequence_books = world.sequence()
    promises = [world.step(sequence_books, row) for row in ROWS[:5]]
    world.serve()
    world.hear(heard)
    world.kill()
    world.settle()
    np.testing.assert_array_equal(numbers(sequence_books, *promises), expected(ROWS[:5]))
    assert sequence_books.opening.ids == tuple(world.store.records)


def test_what_began_from_a_state_is_opened_anew_from_that_state() -> None:
    world = World(every=0)
    state = State("toy", 1, 7, {(0, "hidden"): np.array([1.0, 2.0, 3.0])})
    sequence_books = world.sequence(state)
    assert sequence_books.next_step == 7
    first = world.step(sequence_books, ROWS[0])
    world.settle()
    world.kill()
    second = world.step(sequence_books, ROWS[1])
    world.settle()
    undisturbed = World(every=0)
    twin = undisturbed.sequence(state)
    promises = [undisturbed.step(twin, row) for row in ROWS[:2]]
    undisturbed.settle()
    np.testing.assert_array_equal(numbers(sequence_books, first, second), numbers(twin, *promises))
    assert sequence_books.answer(second).step == 8


# Refusals.


def test_a_refusal_that_was_not_heard_is_heard_after_the_loss_at_the_same_steps() -> None:
    world = World(every=2)
    sequence_books = world.sequence()
    promises = [world.step(sequence_books, row) for row in ([1, 1], [1, 0], NAN, [2, 2])]
    world.serve()
    world.hear(2)
    world.cut()
    world.settle()
    for promise, reason in zip(promises[2:], ["NOT_FINITE", "WRONG_STEP"], strict=True):
        with pytest.raises(Refused, match=reason):
            promise.result()
    assert sequence_books.next_step == 2


def test_a_step_that_is_bound_to_be_refused_is_refused_by_the_loss_and_a_newer_one_takes_its_number() -> None:
    world = World(every=2)
    sequence_books = world.sequence()
    good, bad, doomed = (world.step(sequence_books, row) for row in ([1, 1], NAN, [2, 2]))
    world.serve()
    world.hear(2)
    newer = world.step(sequence_books, [3, 3])
    world.cut()
    with pytest.raises(Refused, match="WRONG_STEP"):
        doomed.result()
    world.settle()
    with pytest.raises(BadInput):
        bad.result()
    np.testing.assert_array_equal(numbers(sequence_books, good, newer), expected(np.array([[1, 1], [3, 3]])))


def test_a_step_that_cannot_be_repeated_ends_its_sequence_here_alone_and_another_may_take_it_up() -> None:
    world = World(every=0)
    sequence_books, other = world.sequence(), world.sequence()
    world.step(sequence_books, ROWS[0])
    world.settle()
    world.cut()
    world.reconnect()
    world.store.records["k-0"].checkpoints = {0: (1, np.zeros(3))}
    world.serve(2)
    world.hear()
    failure = pb.Failure(handles=[0], first_step=0, expected_steps=[0])
    failure.error.reason = error_pb2.REASON_TOO_LARGE
    world.up.clear()
    world.say(world.talk.receive(pb.StreamResponse(failure=failure)))
    with pytest.raises(SequenceLost, match="could not be repeated") as caught:
        sequence_books.send_step(ROWS[1])
    assert (caught.value.reason, caught.value.answered) == ("TOO_LARGE", 1)
    promise = world.step(other, ROWS[0])
    world.settle()
    assert promise.done
    again = world.sequence(claim=Claim(("k-0",), sequence_books.opening.token, (0,), Trace()))
    repeated = world.step(again, ROWS[0])
    world.settle()
    np.testing.assert_array_equal(numbers(again, repeated), expected(ROWS[:1]))


# What cannot be resumed.


@pytest.mark.parametrize("reason", ["UNKNOWN_SEQUENCE", "SEQUENCE_EXPIRED", "SEQUENCE_EVICTED", "CHECKPOINT_GONE"])
def test_a_sequence_that_cannot_be_resumed_fails_alone_with_its_reason(reason: str) -> None:
    world = World(every=1)
    one, other = world.sequence(), world.sequence()
    for sequence_books in (one, other):
        world.step(sequence_books, ROWS[0])
    world.settle()
    waiting = [world.step(sequence_books, ROWS[1]) for sequence_books in (one, other)]
    world.cut()
    world.behaviour.refuse = [getattr(error_pb2, f"REASON_{reason}")]
    world.settle()
    with pytest.raises(SequenceLost, match=reason) as caught:
        waiting[0].result()
    assert (caught.value.reason, caught.value.answered) == (reason, 1)
    with pytest.raises(SequenceLost):
        one.send_step(ROWS[2])
    np.testing.assert_array_equal(numbers(other, waiting[1]), expected(ROWS[:2])[1:])
    assert [casualty.reason for casualty in world.talk.resumption.casualties] == [reason]
    assert world.sequence().handle == 0  # its handle is free


@pytest.mark.parametrize("reason", ["STORE_UNAVAILABLE", "DRAINING", "MODEL_NOT_READY"])
def test_a_reason_that_passes_is_tried_again(reason: str) -> None:
    world = World(every=1)
    sequence_books = world.sequence()
    world.step(sequence_books, ROWS[0])
    world.settle()
    promise = world.step(sequence_books, ROWS[1])
    world.cut()
    world.behaviour.refuse = [getattr(error_pb2, f"REASON_{reason}")] * 3
    world.settle()
    np.testing.assert_array_equal(numbers(sequence_books, promise), expected(ROWS[:2])[1:])
    assert not world.behaviour.refuse


def test_giving_up_says_how_many_answers_there_are_and_why() -> None:
    world = World()
    sequence_books = world.sequence()
    world.step(sequence_books, ROWS[0])
    world.settle()
    promise = world.step(sequence_books, ROWS[1])
    world.cut()
    world.talk.give_up("not resumed within 5 s: cut")
    with pytest.raises(SequenceLost, match="within 5 s") as caught:
        promise.result()
    assert (caught.value.reason, caught.value.answered) == ("UNREACHABLE", 1)
    assert isinstance(world.talk.lost, ConnectionLost)
    assert world.budget.bytes == 0


@pytest.mark.parametrize("reason", ["SEQUENCE_EVICTED", "TAKEN_OVER"])
def test_released_for_good_ends_what_is_on_its_way(reason: str) -> None:
    world = World()
    sequence_books, fleet = world.sequence(), world.fleet(3)
    promises = [world.step(sequence_books, ROWS[0]), world.tell(fleet.send(ROWS[:3]))]
    world.down.append(world.session.release(getattr(error_pb2, f"REASON_{reason}")))
    world.hear()
    for promise in promises:
        with pytest.raises(SequenceLost, match=reason):
            promise.result()
    assert not world.talk.resumable


def test_released_to_drain_moves_everything_with_what_is_on_its_way() -> None:
    world = World(every=3)
    sequence_books, fleet = world.sequence(), world.fleet(3)
    promise, fleet_ticket = world.step(sequence_books, ROWS[0]), world.tell(fleet.send(ROWS[:3]))
    world.serve(1)
    world.down.append(world.session.release(error_pb2.REASON_DRAINING))
    world.settle()
    np.testing.assert_array_equal(numbers(sequence_books, promise), expected(ROWS[:1]))
    alone = [expected(row[np.newaxis])[0] for row in ROWS[:3]]
    np.testing.assert_array_equal(fleet.answers(fleet_ticket).output[:, 0], alone)


def test_a_step_refused_by_a_draining_server_goes_elsewhere() -> None:
    world = World(every=3)
    sequence_books = world.sequence()
    world.behaviour.refuse, world.behaviour.refused = [error_pb2.REASON_DRAINING], "steps"
    promise = world.step(sequence_books, ROWS[0])
    world.settle()
    np.testing.assert_array_equal(numbers(sequence_books, promise), expected(ROWS[:1]))


def test_one_member_that_is_released_ends_its_fleet_and_the_rest_of_it_can_be_taken_up() -> None:
    world = World()
    fleet = world.fleet(5)
    step = world.tell(fleet.send(ROWS[:2], [0, 4]))
    world.serve()
    released = pb.Released(handles=[2])
    released.error.reason = error_pb2.REASON_SEQUENCE_EVICTED
    world.session.lives.pop(2)
    world.say(world.talk.receive(pb.StreamResponse(released=released)))
    with pytest.raises(SequenceLost):
        step.result()
    with pytest.raises(SequenceLost):
        fleet.send(ROWS[:5])
    world.hear()  # the answer to what was under way is for nobody
    closes = [request.close for request in world.up]
    assert [(close.handle, close.count, close.park) for close in closes] == [(0, 5, True)]
    world.settle()
    member = world.sequence(claim=Claim(fleet.opening.ids[4:5], fleet.opening.token, (0,), Trace()))
    assert member.handle == 0
    again = world.step(member, ROWS[1])
    world.settle()
    np.testing.assert_array_equal(numbers(member, again), expected(ROWS[1:2]))


@pytest.mark.parametrize("opened", [False, True])
def test_what_is_opened_for_nobody_is_ended(opened: bool) -> None:
    world = World()
    promise, requests = world.talk.open(Order("toy", 0, 3, Trace()))
    world.say(requests)
    if opened:
        world.settle()
    world.say(world.talk.disown(promise))
    world.settle()
    assert {record.ended for record in world.store.records.values()} == {error_pb2.REASON_SEQUENCE_ENDED}
    assert world.sequence().handle == 0


@pytest.mark.parametrize("opened", [False, True])
def test_what_is_taken_up_for_nobody_is_parked_again(opened: bool) -> None:
    world = World()
    sequence_books = world.sequence()
    world.cut()
    world.settle()
    claim = Claim(sequence_books.opening.ids, sequence_books.opening.token, (0,), Trace())
    promise, requests = world.talk.open(claim)
    world.say(requests)
    if opened:
        world.settle()
    world.say(world.talk.disown(promise))
    world.settle()
    assert not world.store.records["k-0"].ended
    again = world.sequence(claim=claim)
    step = world.step(again, ROWS[0])
    world.settle()
    np.testing.assert_array_equal(numbers(again, step), expected(ROWS[:1]))


# Fleets.


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("heard", range(7))
def test_a_fleet_is_answered_once_for_each_member_wherever_the_stream_breaks(heard: int, backwards: bool) -> None:
    world = World(every=2, part=2, backwards=backwards)
    fleet = world.fleet(5)
    rows = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)
    promises = [world.tell(fleet.send(rows[0])), world.tell(fleet.send(rows[1][:2], [3, 1]))]
    promises.append(world.tell(fleet.send(rows[2])))
    world.serve()
    world.hear(heard)
    world.kill()
    world.settle()
    assert [len(fleet.answers(promise)) for promise in promises] == [5, 2, 5]
    for member in range(5):
        taken = [rows[0][member], rows[2][member]]
        if member in (1, 3):
            taken.insert(1, rows[1][[3, 1].index(member)])
        came = [fleet.answers(promise) for promise in promises]
        answers = [block.output[block.members.tolist().index(member), 0] for block in came if member in block.members]
        np.testing.assert_array_equal(answers, expected(np.array(taken)))


def test_a_fleet_keeps_no_rows_that_only_members_at_rest_would_need() -> None:
    world = World(every=1)
    fleet = world.fleet(100)
    world.tell(fleet.send(np.ones((100, 2))))
    world.settle()
    for _ in range(50):
        world.tell(fleet.send(np.ones((99, 2)), np.arange(1, 100)))
        world.settle()
    assert world.budget.steps < 500
    world.kill()
    promise = world.tell(fleet.send(np.ones((100, 2))))
    world.settle()
    assert fleet.answers(promise).steps.tolist() == [1, *[51] * 99]


def test_a_refused_member_of_a_fleet_stands_where_it_stood_after_the_loss() -> None:
    world = World(every=2)
    fleet = world.fleet(3)
    world.tell(fleet.send(ROWS[:3]))
    bad = world.tell(fleet.send(np.array([[1, 1], NAN, [1, 1]])))
    doomed = world.tell(fleet.send(ROWS[3:6]))
    world.serve()
    world.hear(2)
    newer = world.tell(fleet.send(ROWS[6:9]))
    world.cut()
    for promise in (bad, doomed):
        with pytest.raises(Refused):
            promise.result()
    world.settle()
    assert fleet.answers(newer).steps.tolist() == [1, 1, 1]
    second = expected(np.stack([ROWS[0], ROWS[6]]))[1]
    assert fleet.answers(newer).output[0, 0] == second


def test_a_fleet_that_was_never_written_is_opened_anew() -> None:
    world = World(every=0)
    fleet = world.fleet(3)
    promises = [world.tell(fleet.send(ROWS[at : at + 3])) for at in (0, 3)]
    world.serve()
    world.hear(1)
    world.kill()
    world.settle()
    assert [fleet.answers(promise).steps.tolist() for promise in promises] == [[0] * 3, [1] * 3]


# Room.


def test_sending_waits_when_as_much_is_kept_as_may_be_until_a_checkpoint_is_told() -> None:
    world = World(Budget(most_steps=6), every=0)
    sequence_books = world.sequence()
    for row in ROWS[:6]:
        assert sequence_books.room() is None
        world.step(sequence_books, row)
    world.settle()
    room = sequence_books.room()
    assert room is not None
    world.say(world.talk.receive(world.session.write(0)))
    assert room.done
    assert sequence_books.room() is None


def test_a_sequence_at_rest_does_not_keep_others_from_sending() -> None:
    world = World(Budget(most_steps=3), every=0)
    resting, other = world.sequence(), world.sequence()
    for row in ROWS[:3]:
        world.step(resting, row)
    world.settle()
    assert other.room() is None
    world.step(other, ROWS[0])
    assert other.room() is not None  # its own step is in no checkpoint yet
    world.settle()
    world.say(world.talk.receive(world.session.write(1)))
    assert other.room() is None


def test_a_lost_sequence_gives_its_room_to_others_that_wait() -> None:
    world = World(Budget(most_steps=4), every=0)
    one, other = world.sequence(), world.sequence()
    world.step(other, ROWS[0])
    for row in ROWS[:3]:
        world.step(one, row)
    world.settle()
    room = other.room()
    assert room is not None
    one.abandon(SequenceLost("SEQUENCE_EVICTED", "gone"))
    assert room.done
    assert other.room() is None


# State, rewind, move, close.


@pytest.mark.parametrize("served", range(4))
def test_a_state_that_was_asked_for_is_the_one_between_the_same_steps(served: int) -> None:
    world = World(every=2)
    sequence_books = world.sequence()
    before = world.step(sequence_books, ROWS[0])
    asked = world.tell(world.talk.read_state(sequence_books))
    after = world.step(sequence_books, ROWS[1])
    world.serve(served)
    world.hear(1)
    world.cut()
    world.settle()
    state = State.read(asked.result().state.state)
    assert (state.step, state.arrays[0, "hidden"].sum().astype(np.float32)) == (1, expected(ROWS[:1])[0])
    np.testing.assert_array_equal(numbers(sequence_books, before, after), expected(ROWS[:2]))


@pytest.mark.parametrize("served", range(2))
@pytest.mark.parametrize("killed", [False, True])
def test_a_rewind_is_carried_out_once_though_its_answer_was_lost(served: int, killed: bool) -> None:
    world = World(every=4)
    sequence_books = world.sequence()
    first = [world.step(sequence_books, row) for row in ROWS[:11]]
    world.settle()
    asked = world.tell(world.talk.rewind(sequence_books, 9))
    assert sequence_books.room() is not None  # nobody knows the number of the next step
    world.serve(served)
    world.kill() if killed else world.cut()
    world.settle()
    assert asked.result().rewound.next_step == sequence_books.next_step == sequence_books.answered == 8
    again = world.step(sequence_books, ROWS[20])
    world.kill()
    world.settle()
    np.testing.assert_array_equal(numbers(sequence_books, *first[:8], again), expected(np.array([*ROWS[:8], ROWS[20]])))


def test_a_rewind_far_behind_what_is_kept_is_understood_though_its_answer_was_lost() -> None:
    world = World(every=2)
    sequence_books = world.sequence()
    for row in ROWS[:12]:
        world.step(sequence_books, row)
        world.settle()
    record = world.store.records["k-0"]
    record.checkpoints[2] = (1, record.checkpoints[min(record.checkpoints)][1])
    asked = world.tell(world.talk.rewind(sequence_books, 3))
    world.serve()
    world.kill()
    world.settle()
    assert asked.result().rewound.next_step == sequence_books.next_step == 2
    promise = world.step(sequence_books, ROWS[0])
    world.settle()
    assert sequence_books.answer(promise).step == 2


def test_a_rewind_to_what_is_gone_is_refused_and_the_sequence_goes_on() -> None:
    world = World(every=2)
    sequence_books = world.sequence()
    for row in ROWS[:12]:
        world.step(sequence_books, row)
        world.settle()
    asked = world.tell(world.talk.rewind(sequence_books, 1))
    world.settle()
    with pytest.raises(Refused, match="CHECKPOINT_GONE"):
        asked.result()
    assert sequence_books.room() is None
    promise = world.step(sequence_books, ROWS[12])
    world.settle()
    np.testing.assert_array_equal(numbers(sequence_books, promise), expected(ROWS[:13])[12:])


@pytest.mark.parametrize("moved", [0, 3, 5, 8])
@pytest.mark.parametrize("heard", range(0, 12, 2))
def test_a_move_is_made_again_at_its_step_where_the_server_goes_back_behind_it(moved: int, heard: int) -> None:
    world = World(every=4)
    sequence_books = world.sequence()
    promises = [world.step(sequence_books, row) for row in ROWS[:moved]]
    asked = world.tell(world.talk.move(sequence_books, 2))
    promises += [world.step(sequence_books, row) for row in ROWS[moved:10]]
    world.serve()
    world.hear(heard)
    for _ in range(2):
        world.kill()
        world.settle()
    assert asked.result().moved.next_step == moved
    np.testing.assert_array_equal(numbers(sequence_books, *promises), expected(ROWS[:10], moved))
    assert sequence_books.version == 2


@pytest.mark.parametrize("moved", [4, 5, 6])
def test_a_move_is_made_again_between_steps_that_were_put_together(moved: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "TOGETHER", 2)
    world = World(every=4)
    sequence_books = world.sequence()
    promises = []
    for step, row in enumerate(ROWS[:7]):
        if step == moved:
            world.tell(world.talk.move(sequence_books, 2))
        promises.append(world.step(sequence_books, row))
        world.settle()
    world.kill()
    promises.append(world.step(sequence_books, ROWS[7]))
    world.settle()
    assert sequence_books.sent_again == 3
    np.testing.assert_array_equal(numbers(sequence_books, *promises), expected(ROWS[:8], moved))


@pytest.mark.parametrize("moved", [2, 4])
def test_a_rewind_to_or_behind_a_move_stays_on_the_version_also_after_a_loss(moved: int) -> None:
    world = World(every=2)
    sequence_books = world.sequence()
    first = [world.step(sequence_books, row) for row in ROWS[:moved]]
    world.tell(world.talk.move(sequence_books, 2))
    for row in ROWS[moved:6]:
        world.step(sequence_books, row)
    world.settle()
    rewound = world.tell(world.talk.rewind(sequence_books, 2))
    world.settle()
    assert rewound.result().rewound.next_step == 2
    world.kill()
    again = [world.step(sequence_books, row) for row in ROWS[10:14]]
    world.settle()
    rows = np.concatenate([ROWS[:2], ROWS[10:14]])
    np.testing.assert_array_equal(numbers(sequence_books, *first[:2], *again), expected(rows, 2))


def test_a_fleet_of_which_the_server_had_written_some_members_is_opened_anew() -> None:
    world = World(every=0)
    fleet = world.fleet(3)
    promise = world.tell(fleet.send(ROWS[:3]))
    world.settle()
    world.down.append(world.session.write(1))
    world.settle()
    for name in ("k-0", "k-2"):
        del world.store.records[name]
    world.cut()
    later = world.tell(fleet.send(ROWS[3:6]))
    world.settle()
    assert fleet.answers(promise).steps.tolist() == [0] * 3
    second = [expected(np.stack([ROWS[member], ROWS[3 + member]]))[1] for member in range(3)]
    np.testing.assert_array_equal(fleet.answers(later).output[:, 0], second)


def test_a_refused_move_changes_nothing() -> None:
    world = World()
    sequence_books = world.sequence()
    world.step(sequence_books, ROWS[0])
    asked = world.tell(world.talk.move(sequence_books, 9))
    promise = world.step(sequence_books, ROWS[1])
    world.settle()
    with pytest.raises(Refused, match="UNKNOWN_MODEL"):
        asked.result()
    np.testing.assert_array_equal(numbers(sequence_books, promise), expected(ROWS[:2])[1:])
    assert sequence_books.version == 1


@pytest.mark.parametrize("served", range(3))
def test_a_close_that_was_lost_is_said_again_after_the_last_answer(served: int) -> None:
    world = World()
    sequence_books = world.sequence()
    promise = world.step(sequence_books, ROWS[0])
    closed = world.tell(world.talk.close(sequence_books))
    world.serve(served)
    world.cut()
    world.settle()
    if promise.done and served < 2:
        np.testing.assert_array_equal(numbers(sequence_books, promise), expected(ROWS[:1]))
    assert closed.done
    assert world.store.records["k-0"].ended == error_pb2.REASON_SEQUENCE_ENDED
    assert not world.talk.closing
    assert world.sequence().handle == 0


def test_a_close_whose_answer_was_lost_is_settled_with_the_steps_that_were_answered() -> None:
    world = World()
    sequence_books = world.sequence()
    world.step(sequence_books, ROWS[0])
    world.settle()
    closed = world.tell(world.talk.close(sequence_books))
    world.serve()
    world.cut()
    world.settle()
    assert closed.result().steps == [1]


def test_what_is_closed_while_there_is_no_stream_is_closed_on_the_next() -> None:
    world = World()
    sequence_books = world.sequence()
    world.cut()
    closed = world.tell(world.talk.close(sequence_books))
    world.settle()
    assert closed.done
    assert world.store.records["k-0"].ended == error_pb2.REASON_SEQUENCE_ENDED


def test_an_opening_on_its_way_goes_with_what_is_resumed() -> None:
    world = World()
    world.sequence()
    promise, requests = world.talk.open(Order("toy", 0, 1, Trace()))
    world.say(requests)
    world.cut()
    world.settle()
    assert promise.result().handle == 1


def test_an_opening_on_its_way_is_repeated_where_a_server_has_answered_before_and_else_fails_at_once() -> None:
    fresh, used = World(), World()
    used.tell(used.talk.close(used.sequence()))
    used.settle()
    promises = []
    for world in (fresh, used):
        promise, requests = world.talk.open(Order("toy", 0, 1, Trace()))
        world.say(requests)
        world.cut()
        promises.append(promise)
    with pytest.raises(ConnectionLost):
        promises[0].result()
    used.settle()
    assert promises[1].result().handle == 0


def test_a_sequence_whose_stream_is_lost_before_it_is_entered_in_the_books_is_resumed() -> None:
    world = World()
    world.sequence()
    order = Order("toy", 0, 1, Trace(layers=[0]))
    promise, requests = world.talk.open(order)
    world.say(requests)
    world.settle()
    world.cut()
    world.settle()
    sequence_books = SequenceBooks(Opening.read(order, promise.result(), INPUTS), world.budget)
    world.say(world.talk.enrol(sequence_books))
    step = world.step(sequence_books, ROWS[0])
    world.settle()
    np.testing.assert_array_equal(numbers(sequence_books, step), expected(ROWS[:1]))


def released(world: World, *handles: int, reason: str = "SEQUENCE_EVICTED") -> None:
    """The server lets go of these, and the client hears so before anything else."""
    message = pb.Released(handles=handles)
    message.error.reason = getattr(error_pb2, f"REASON_{reason}")
    for handle in handles:
        world.session.lives.pop(handle)
    world.say(world.talk.receive(pb.StreamResponse(released=message)))


@pytest.mark.parametrize("member", [0, 2])
def test_a_fleet_of_which_a_member_is_released_before_it_has_books_is_lost_and_the_rest_can_be_taken_up(
    member: int,
) -> None:
    world = World()
    opening = world.opening(Order("toy", 0, 5, Trace()))
    released(world, member)
    fleet = FleetBooks(opening, world.budget)
    world.say(world.talk.enrol(fleet))
    with pytest.raises(SequenceLost, match="SEQUENCE_EVICTED"):
        fleet.send(ROWS[:5])
    assert [(close.handle, close.count, close.park) for close in (up.close for up in world.up)] == [(0, 5, True)]
    world.settle()
    one = world.sequence(claim=Claim(opening.ids[4:5], opening.token, (0,), Trace()))
    assert one.handle == 0
    step = world.step(one, ROWS[1])
    world.settle()
    np.testing.assert_array_equal(numbers(one, step), expected(ROWS[1:2]))


@pytest.mark.parametrize("disowned_first", [False, True])
def test_what_was_opened_for_nobody_and_is_partly_released_leaves_its_handles_and_the_rest_parked(
    disowned_first: bool,
) -> None:
    world = World()
    promise, requests = world.talk.open(Order("toy", 0, 3, Trace()))
    world.say(requests)
    world.settle()
    if disowned_first:
        world.say(world.talk.disown(promise))
    released(world, 1)
    if not disowned_first:
        world.say(world.talk.disown(promise))
    world.settle()
    assert not world.session.lives
    assert world.sequence().handle == 0


def test_what_was_opened_for_nobody_on_a_stream_that_is_gone_leaves_its_handles() -> None:
    world = World()
    world.sequence()
    promise, requests = world.talk.open(Order("toy", 0, 3, Trace()))
    world.say(requests)
    world.settle()
    world.cut()
    world.say(world.talk.disown(promise))
    world.settle()
    assert world.sequence().handle == 1


@pytest.mark.parametrize("enrolled_first", [False, True])
def test_what_its_own_earlier_resume_takes_over_before_or_after_it_has_books_goes_on(enrolled_first: bool) -> None:
    world = World()
    world.sequence()
    (said,) = Session(world.behaviour, "earlier").answer(Order("toy", 0, 1, Trace()).request(0))
    claim = Claim(tuple(said.opened.sequence_ids), said.opened.resume_token, (0,), Trace())
    promise, requests = world.talk.open(claim)
    world.say(requests)
    world.cut()  # the first Resume is unanswered
    world.settle()
    books = SequenceBooks(Opening.read(claim, promise.result(), INPUTS), world.budget)
    if enrolled_first:
        world.say(world.talk.enrol(books))
    world.take_over(books)
    world.release()
    world.hear()
    if not enrolled_first:
        world.say(world.talk.enrol(books))
    step = world.step(books, ROWS[0])
    world.settle()
    np.testing.assert_array_equal(numbers(books, step), expected(ROWS[:1]))


def test_bundled_answers_are_entered_in_their_order() -> None:
    world = World()
    sequence_books = world.sequence()
    promises = [world.step(sequence_books, row) for row in ROWS[:3]]
    world.serve()
    bundle = world.down.popleft()
    bundle.more.extend(world.down)
    world.down.clear()
    world.talk.receive(bundle)
    np.testing.assert_array_equal(numbers(sequence_books, *promises), expected(ROWS[:3]))


def test_a_step_behind_one_that_names_a_member_taken_over_fails_with_the_reason_for_that() -> None:
    world = World(every=0)
    fleet = world.fleet(2)
    world.take_over(fleet, 1)
    sent = [world.tell(fleet.send(ROWS[:2], [0, 1]))]
    world.serve()
    sent.append(world.tell(fleet.send(ROWS[:1], [0])))
    world.serve()
    world.settle()
    for promise in sent:
        with pytest.raises(SequenceLost, match="TAKEN_OVER"):
            promise.result()
