import numpy as np
import pytest

from bench.client.traffic import OneFleet, OneSequence, WrongAnswerError, rows
from bench.scenario import FEATURES, OUTPUTS, Scenario
from tidegate.v1 import sequence_pb2, tensor_pb2


def sent(traffic: OneSequence | OneFleet) -> sequence_pb2.StreamRequest:
    return sequence_pb2.StreamRequest.FromString(traffic.send())


def output(count: int) -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(name="y", shape=(count, OUTPUTS), data=bytes(4 * OUTPUTS * count))


def answers(handle: int, first_step: int, steps: int = 1) -> sequence_pb2.StreamResponse:
    message = sequence_pb2.Answers(handle=handle, first_step=first_step, outputs=[output(steps)])
    return sequence_pb2.StreamResponse(answers=message)


def fleet_answers(handles: list[int], step: int) -> sequence_pb2.StreamResponse:
    numbers = np.array(handles, "<u4").tobytes(), np.full(len(handles), step, "<u8").tobytes()
    message = sequence_pb2.FleetAnswers(handles=numbers[0], steps=numbers[1], outputs=[output(len(handles))])
    return sequence_pb2.StreamResponse(fleet=message)


def test_a_sequence_sends_its_rows_in_order_under_their_step_numbers() -> None:
    sequence = OneSequence(Scenario(32, 8), handle=7)
    for step in range(3):
        steps = sent(sequence).steps
        assert (steps.handle, steps.first_step) == (7, step)
        assert steps.inputs[0].data == rows(7, 3)[step].tobytes()


def test_chunks_go_on_where_the_rows_begin_again() -> None:
    sequence = OneSequence(Scenario(32, 1, steps=20), handle=0)
    data = b"".join(sent(sequence).steps.inputs[0].data for _ in range(7))
    assert data == rows(0, 140).tobytes()


@pytest.mark.parametrize("wrong", [answers(1, 0), answers(0, 1), sequence_pb2.StreamResponse()])
def test_an_answer_to_something_else_is_refused(wrong: sequence_pb2.StreamResponse) -> None:
    sequence = OneSequence(Scenario(32, 1), handle=0)
    sequence.send()
    with pytest.raises(WrongAnswerError):
        sequence.take(wrong)


def test_the_answer_to_a_chunk_is_whole_when_its_last_part_is_there() -> None:
    sequence = OneSequence(Scenario(32, 1, steps=10), handle=0)
    sequence.send()
    assert not sequence.take(answers(0, 0, 6))
    assert sequence.take(answers(0, 6, 4))


def test_the_answer_to_a_fleet_is_whole_when_every_sequence_has_its_row() -> None:
    fleet = OneFleet(Scenario(32, 5, "fleet"))
    assert len(sent(fleet).fleet.inputs[0].data) == 4 * 5 * FEATURES
    assert not fleet.take(fleet_answers([4, 0], 0))
    assert fleet.take(fleet_answers([1, 2, 3], 0))


@pytest.mark.parametrize("wrong", [fleet_answers([0, 1], 1), fleet_answers([], 0), sequence_pb2.StreamResponse()])
def test_a_fleet_refuses_another_step_and_an_empty_answer(wrong: sequence_pb2.StreamResponse) -> None:
    fleet = OneFleet(Scenario(32, 2, "fleet"))
    fleet.send()
    with pytest.raises(WrongAnswerError):
        fleet.take(wrong)


def test_a_fleet_refuses_a_second_answer_for_one_sequence() -> None:
    fleet = OneFleet(Scenario(32, 2, "fleet"))
    fleet.send()
    fleet.take(fleet_answers([0], 0))
    with pytest.raises(WrongAnswerError):
        fleet.take(fleet_answers([0], 0))
