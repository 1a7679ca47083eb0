"""The core as values: messages in, messages out, no connection."""

from collections.abc import Sequence

import numpy as np
import pytest

from tests.tidegate.fake_server import Behaviour, Session, find
from tidegate.errors import BadInput, ConnectionLost, ProtocolError, Refused, SequenceEnded, TimedOut, UnknownModel
from tidegate.inputs import InputLayout
from tidegate.model import Model
from tidegate.plain.steps import Request, message_of
from tidegate.protocol.conversation import Conversation
from tidegate.protocol.fleet_books import FleetBooks
from tidegate.protocol.handles import Handles
from tidegate.protocol.opening import Opening, Order
from tidegate.protocol.sequence_books import SequenceBooks
from tidegate.trace import Trace
from tidegate.v1 import sequence_pb2 as pb


class Talk:
    """A conversation with a session of the fake server, message by message, in the test's own order."""

    def __init__(self, **behaviour: object) -> None:
        self.core = Conversation()
        self.session = Session(Behaviour(**behaviour))

    def deliver(self, requests: Sequence[Request]) -> None:
        for request in requests:
            for response in self.session.answer(message_of(request)):
                self.core.receive(response)

    def opening(self, count: int = 1, model: str = "toy", trace: Trace | None = None) -> Opening:
        order = Order(model, 0, count, trace or Trace())
        promise, request = self.core.open(order)
        self.deliver(request)
        inputs = InputLayout(Model.read(find(model, 0)).inputs)
        return Opening.read(order, promise.result(), inputs)

    def sequence(self) -> SequenceBooks:
        sequence_books = SequenceBooks(self.opening())
        self.core.enrol(sequence_books)
        return sequence_books

    def fleet(self, count: int, **how: object) -> FleetBooks:
        sequence_books = FleetBooks(self.opening(count, **how))
        self.core.enrol(sequence_books)
        return sequence_books


NAN = [float("nan"), 0]


def test_a_refused_step_takes_those_sent_after_it_along_and_the_next_one_goes_on_from_there() -> None:
    talk = Talk()
    sequence_books = talk.sequence()
    sent = [sequence_books.send_step(values) for values in ([1, 1], NAN, [2, 2], [3, 3])]
    for _, request in sent:
        talk.deliver(request)
    assert sequence_books.answer(sent[0][0]).step == 0
    for (promise, _), reason in zip(sent[1:], ["NOT_FINITE", "WRONG_STEP", "WRONG_STEP"], strict=True):
        with pytest.raises(Refused, match=reason):
            promise.result()
    assert sequence_books.next_step == 1
    again, request = sequence_books.send_step([2, 2])
    talk.deliver(request)
    assert sequence_books.answer(again).step == 1


def test_a_late_refusal_of_an_earlier_attempt_does_not_turn_the_step_counter_back() -> None:
    talk = Talk()
    sequence_books = talk.sequence()
    (bad, first), (later, second) = sequence_books.send_step(NAN), sequence_books.send_step([1, 1])
    talk.deliver(first)
    again, third = sequence_books.send_step([2, 2])
    assert (bad.done, sequence_books.next_step) == (True, 1)
    talk.deliver(second)
    assert (later.done, sequence_books.next_step) == (True, 1)
    talk.deliver(third)
    assert sequence_books.answer(again).step == 0


def test_a_refusal_may_overtake_the_answers_of_earlier_steps() -> None:
    talk = Talk()
    sequence_books = talk.sequence()
    good, good_request = sequence_books.send_step([1, 1])
    bad, _ = sequence_books.send_step([2, 2])
    failure = pb.Failure(handles=[0], first_step=1, expected_steps=[1])
    talk.core.receive(pb.StreamResponse(failure=failure))
    assert bad.done
    talk.deliver(good_request)
    assert good.done
    assert sequence_books.next_step == 1


def test_a_refused_chunk_leaves_the_counter_where_the_server_says() -> None:
    talk = Talk()
    sequence_books = talk.sequence()
    promise, _ = sequence_books.send_chunk(np.zeros((10, 2)))
    failure = pb.Failure(handles=[0], first_step=4, expected_steps=[4])
    talk.core.receive(pb.StreamResponse(failure=failure))
    assert promise.done
    assert sequence_books.next_step == 4


def test_a_chunk_of_several_messages_fails_once_all_of_them_are_settled_and_goes_on_from_there() -> None:
    talk = Talk(max_message=200)
    sequence_books = talk.sequence()
    promise, requests = sequence_books.send_chunk(np.ones((30, 2)))
    talk.deliver(requests[:1])
    failed = requests[1].steps.first_step + 2
    talk.session.lives[0].step = failed
    failure = pb.Failure(handles=[0], first_step=failed, expected_steps=[failed])
    talk.core.receive(pb.StreamResponse(failure=failure))
    assert not promise.done
    talk.deliver(requests[2:])
    with pytest.raises(Refused) as caught:
        promise.result()
    assert caught.value.expected_step == failed == sequence_books.next_step


def test_the_refusal_of_a_later_part_of_a_chunk_that_failed_is_not_one_of_the_next_chunk() -> None:
    talk = Talk()
    sequence_books = talk.sequence()
    promise, _ = sequence_books.send_chunk(np.zeros((10, 2)))
    failures = [pb.Failure(handles=[0], first_step=step, expected_steps=[4]) for step in (4, 7)]
    talk.session.lives[0].step = 4
    talk.core.receive(pb.StreamResponse(failure=failures[0]))
    assert promise.done
    again, requests = sequence_books.send_chunk(np.zeros((10, 2)))
    talk.core.receive(pb.StreamResponse(failure=failures[1]))
    assert not again.done
    talk.deliver(requests)
    assert len(sequence_books.answers(again)) == 10


def test_a_sequence_that_the_server_no_longer_knows_takes_no_more_steps() -> None:
    talk = Talk()
    sequence_books = talk.sequence()
    sequence_books.send_step([1, 1])
    talk.core.receive(pb.StreamResponse(failure=pb.Failure(handles=[0], first_step=0)))
    with pytest.raises(SequenceEnded):
        sequence_books.send_step([1, 1])


def test_a_long_chunk_is_put_together_from_its_parts() -> None:
    talk = Talk(part=3)
    sequence_books = talk.sequence()
    promise, request = sequence_books.send_chunk(np.ones((10, 2)))
    talk.deliver(request)
    block = sequence_books.answers(promise)
    assert block.output.shape == (10, 1)
    assert block.layer[1].forget.shape == (10, 3)
    assert block.steps.tolist() == list(range(10))


@pytest.mark.parametrize("backwards", [False, True])
def test_a_fleet_is_put_together_in_the_order_of_its_inputs(backwards: bool) -> None:
    talk = Talk(part=2, backwards=backwards)
    sequence_books = talk.fleet(7)
    rows = np.arange(14, dtype=np.float32).reshape(7, 2)
    promise, request = sequence_books.send(rows)
    talk.deliver(request)
    block = sequence_books.answers(promise)
    np.testing.assert_array_equal(block.output[:, 0], rows.sum(1) * 3 + 3)
    np.testing.assert_array_equal(block.layer[0].hidden[:, 0], rows.sum(1) + len("hidden"))


def test_traced_rows_of_a_fleet_find_their_members_when_only_some_steps_are_traced() -> None:
    talk = Talk(part=2, backwards=True)
    sequence_books = talk.fleet(4, trace=Trace(every=2))
    _, first = sequence_books.send(np.zeros((2, 2)), [1, 2])  # members 1 and 2 are one step ahead from here on
    talk.deliver(first)
    promise, request = sequence_books.send(np.arange(8).reshape(4, 2))
    talk.deliver(request)
    block = sequence_books.answers(promise)
    assert block.traced_members.tolist() == [0, 3]
    np.testing.assert_array_equal(block.layer[0].hidden[:, 0], [1 + 6, 13 + 6])


def test_a_subset_of_a_fleet_steps_alone_in_its_own_order() -> None:
    talk = Talk()
    sequence_books = talk.fleet(5)
    promise, request = sequence_books.send(np.ones((2, 2)), members=[3, 1])
    talk.deliver(request)
    assert sequence_books.answers(promise).members.tolist() == [3, 1]
    assert sequence_books.next_step.tolist() == [0, 1, 0, 1, 0]


def test_a_refused_fleet_step_changes_no_counter() -> None:
    talk = Talk()
    sequence_books = talk.fleet(3)
    promise, request = sequence_books.send(np.full((3, 2), np.nan))
    talk.deliver(request)
    with pytest.raises(BadInput, match="NOT_FINITE"):
        sequence_books.answers(promise)
    assert sequence_books.next_step.tolist() == [0, 0, 0]
    again, request = sequence_books.send(np.ones((3, 2)))
    talk.deliver(request)
    assert sequence_books.answers(again).steps.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("members", "words"),
    [([], "at least one"), ([5], "members 0 to 2"), ([-1], "members 0"), ([1, 1], "only one step")],
)
def test_members_that_a_fleet_does_not_have_are_refused_before_anything_is_sent(members: list[int], words: str) -> None:
    sequence_books = Talk().fleet(3)
    with pytest.raises(Refused, match=words):
        sequence_books.send(np.ones((len(members), 2)), members)
    assert sequence_books.next_step.tolist() == [0, 0, 0]


def test_many_sequences_and_fleets_share_one_conversation() -> None:
    talk = Talk()
    one, fleet, two = talk.sequence(), talk.fleet(3), talk.sequence()
    assert [one.handle, fleet.handle, two.handle] == [0, 1, 4]
    promises = [one.send_step([1, 0]), fleet.send(np.ones((3, 2))), two.send_step([2, 0])]
    for _, request in reversed(promises):
        talk.deliver(request)
    assert one.answer(promises[0][0]).output == [6]
    assert two.answer(promises[2][0]).output == [9]
    assert fleet.answers(promises[1][0]).output[:, 0].tolist() == [9, 9, 9]


def test_a_closed_sequence_gives_its_handle_back_and_takes_no_more_steps() -> None:
    talk = Talk()
    sequence_books = talk.sequence()
    promise, request = talk.core.close(sequence_books)
    with pytest.raises(SequenceEnded):
        sequence_books.send_step([1, 1])
    talk.deliver(request)
    assert promise.result().steps == [0]
    assert talk.sequence().handle == 0


def test_a_refused_opening_fails_with_its_own_error_and_gives_its_handle_back() -> None:
    talk = Talk()
    promise, request = talk.core.open(Order("nope", 0, 1, Trace()))
    talk.deliver(request)
    with pytest.raises(UnknownModel):
        promise.result()
    assert talk.sequence().handle == 0


def test_a_lost_stream_fails_everything_that_waits_and_everything_that_comes_after() -> None:
    talk = Talk()
    sequence_books, fleet = talk.sequence(), talk.fleet(2)
    waiting = [sequence_books.send_step([1, 1])[0], fleet.send(np.ones((2, 2)))[0], talk.core.close(sequence_books)[0]]
    talk.core.lose(TimedOut("too late"))
    for promise in waiting:
        with pytest.raises(TimedOut):
            promise.result()
    for attempt in (lambda: fleet.send(np.ones((2, 2))), lambda: talk.core.open(Order("toy", 0, 1, Trace()))):
        with pytest.raises(ConnectionLost, match="too late"):
            attempt()


@pytest.mark.parametrize(
    "response",
    [
        pb.StreamResponse(answers=pb.Answers(handle=9)),
        pb.StreamResponse(answers=pb.Answers(handle=0, first_step=3)),
        pb.StreamResponse(fleet=pb.FleetAnswers(handles=bytes(4), steps=bytes(8))),
        pb.StreamResponse(opened=pb.Opened(handle=5)),
        pb.StreamResponse(failure=pb.Failure()),
    ],
)
def test_an_answer_that_nobody_waits_for_breaks_the_contract(response: pb.StreamResponse) -> None:
    talk = Talk()
    talk.sequence()
    with pytest.raises(ProtocolError):
        talk.core.receive(response)


def test_a_message_that_is_newer_than_this_client_is_left_aside() -> None:
    talk = Talk()
    assert talk.core.receive(pb.StreamResponse()) == []


def test_handles_are_the_smallest_that_are_free() -> None:
    handles = Handles()
    assert [handles.take(1), handles.take(10), handles.take(1)] == [0, 1, 11]
    handles.give(1, 10)
    assert [handles.take(4), handles.take(7), handles.take(6)] == [1, 12, 5]
    handles.give(0, 1)
    handles.give(1, 4)
    assert handles.take(5) == 0
