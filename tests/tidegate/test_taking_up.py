"""Taking up a sequence that another process opened, and opening what is not loaded yet, with both clients."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tidegate
from tests.tidegate.fake_server import AT_ONCE, FakeServer, Store, expected
from tidegate.v1 import error_pb2

ROWS = np.random.default_rng(5).normal(size=(12, 2)).astype(np.float32)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(store=Store()) as running:
        yield running


@pytest.fixture
def left(server: FakeServer) -> tuple[str, str]:
    """Id and token of a sequence with ten steps answered by a server that was killed after its checkpoint at step 8."""
    with FakeServer(store=server.behaviour.store) as first, tidegate.connect(first.address) as client:
        sequence = client.sequence("toy")
        list(sequence.stream(ROWS[:10]))
        first.vanish()
        return sequence.id, sequence.resume_token


def test_a_sequence_is_taken_up_where_it_was_answered_with_the_inputs_that_the_server_wants(
    server: FakeServer, left: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def inputs(first: int) -> np.ndarray:
        asked.append(first)
        return ROWS[first:10]

    with tidegate.connect(server.address) as client:
        sequence = client.resume(*left, answered=10, inputs=inputs)
        assert (asked, sequence.next_step, sequence.answered) == ([8], 10, 10)
        assert sequence.step(ROWS[10]).output[0] == expected(ROWS)[10]
    assert not caplog.records


async def test_asyncio_takes_a_sequence_up_the_same_way(server: FakeServer, left: tuple[str, str]) -> None:
    async with (
        tidegate.AsyncClient(server.address) as client,
        client.resume(*left, answered=10, inputs=lambda first: {"x": ROWS[first:10]}) as sequence,
    ):
        assert sequence.next_step == 10
        assert (await sequence.step(ROWS[10])).output[0] == expected(ROWS)[10]


def test_without_the_inputs_the_log_says_from_where_they_have_to_be_sent(
    server: FakeServer, left: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "tidegate")
    with tidegate.connect(server.address) as client:
        sequence = client.resume(*left, answered=10)
        answers = [answer.output[0] for answer in sequence.stream(ROWS[sequence.next_step :])]
    np.testing.assert_array_equal(answers, expected(ROWS)[8:])
    assert [r.getMessage() for r in caplog.records] == [
        f"sequence {left[0]} goes on at step 8: send its inputs from there on again"
    ]


def test_too_few_inputs_are_refused_before_any_is_sent(server: FakeServer, left: tuple[str, str]) -> None:
    with tidegate.connect(server.address) as client:
        with pytest.raises(tidegate.BadInput, match="steps 8 to 9 are wanted again: 2 rows, and 1 were given"):
            client.resume(*left, answered=10, inputs=lambda first: ROWS[first:9])
        assert "steps" not in server.servicer.requests
        assert client.resume(*left, answered=10, inputs=lambda first: ROWS[first:10]).next_step == 10


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("open", "MODEL_NOT_READY"), ("resume", "MODEL_NOT_READY"), ("resume", "STORE_UNAVAILABLE")],
)
def test_opening_waits_for_a_model_that_is_being_loaded_and_for_a_store_that_does_not_answer(
    server: FakeServer, left: tuple[str, str], kind: str, reason: str
) -> None:
    server.behaviour.refused = kind
    server.behaviour.refuse = [error_pb2.Reason.Value(f"REASON_{reason}")] * 3
    with tidegate.connect(server.address, resuming=AT_ONCE) as client:
        one = client.sequence("toy") if kind == "open" else client.resume(*left, answered=8)
        assert one.step(ROWS[one.next_step]).output[0] == expected(ROWS)[one.answered - 1]
    assert not server.behaviour.refuse


async def test_asyncio_waits_for_a_model_that_is_being_loaded(server: FakeServer) -> None:
    server.behaviour.refused = "open"
    server.behaviour.refuse = [error_pb2.REASON_MODEL_NOT_READY] * 3
    async with tidegate.AsyncClient(server.address, resuming=AT_ONCE) as client, client.fleet("toy", 2) as fleet:
        assert len(await fleet.step(ROWS[:2])) == 2
    assert not server.behaviour.refuse


def test_waiting_for_a_model_ends_with_the_time_that_was_given(server: FakeServer) -> None:
    server.behaviour.refused = "open"
    server.behaviour.refuse = [error_pb2.REASON_MODEL_NOT_READY] * 1_000
    for limits in ({"timeout": 0.5}, {"resume_within": 0.05}, {"resume_within": 0}):
        client = tidegate.connect(server.address, resuming=AT_ONCE, **limits)
        with client, pytest.raises(tidegate.ModelNotReady):
            client.sequence("toy")


async def test_a_fork_is_awaited_or_entered_as_what_is_opened_is(server: FakeServer) -> None:
    async with tidegate.AsyncClient(server.address) as client, client.sequence("toy") as sequence:
        await sequence.step(ROWS[0])
        async with sequence.fork() as fork:
            assert fork.next_step == 1
        other = await sequence.fork()
        assert other.id not in {sequence.id, fork.id}
        await other.close()
    assert server.behaviour.store.records[fork.id].ended == error_pb2.REASON_SEQUENCE_ENDED


async def test_a_client_that_was_closed_says_so_to_every_call(server: FakeServer) -> None:
    client = tidegate.connect(server.address)
    sequence = client.sequence("toy")
    client.close()
    for call in (client.models, lambda: client.sequence("toy"), lambda: sequence.step(ROWS[0])):
        with pytest.raises(tidegate.ConnectionLost, match="this client was closed"):
            call()
    theirs = tidegate.AsyncClient(server.address)
    other = await theirs.sequence("toy")
    await theirs.close()
    for call in (theirs.models, lambda: theirs.sequence("toy"), lambda: other.step(ROWS[0])):
        with pytest.raises(tidegate.ConnectionLost, match="this client was closed"):
            await call()


def test_a_sequence_shows_its_id_its_model_and_its_next_step(server: FakeServer) -> None:
    with tidegate.connect(server.address) as client, client.sequence("toy") as one, client.fleet("toy", 3) as fleet:
        one.step(ROWS[0])
        assert repr(one) == f"<Sequence {one.id} of toy 1, step 1 next>"
        assert repr(fleet) == "<Fleet of 3 sequences of toy 1>"


def test_numbers_below_the_first_are_refused_before_anything_is_sent(server: FakeServer) -> None:
    with tidegate.connect(server.address) as client, client.sequence("toy") as one:
        with pytest.raises(ValueError, match="step -1: steps are numbered from 0"):
            one.rewind(-1)
        for call in (one.move, lambda version: client.sequence("toy", version=version)):
            with pytest.raises(ValueError, match="version -1: versions are numbered from 1"):
                call(-1)
        assert one.step(ROWS[0]).step == 0


def test_what_is_no_number_and_no_selection_is_refused_before_anything_is_sent(server: FakeServer) -> None:
    wrong: Any = "x"
    with tidegate.connect(server.address) as client, client.sequence("toy") as one:
        for call, words in (
            (one.rewind, "step='x': a whole number is wanted"),
            (one.move, "version='x': a whole number is wanted"),
            (lambda given: client.sequence("toy", trace=given), "trace='x': a tidegate.Trace, True, False or None"),
        ):
            with pytest.raises(TypeError, match=words):
                call(wrong)
        assert one.step(ROWS[0]).step == 0
    assert set(server.servicer.requests) <= {"open", "steps", "close"}


def test_what_the_caller_holds_stays_resumable_however_far_its_sequence_gets(server: FakeServer) -> None:
    with FakeServer(store=server.behaviour.store) as first, tidegate.connect(first.address) as client:
        sequence = client.sequence("toy")
        list(sequence.stream(ROWS[:5]))
        at, (start, inputs) = sequence.answered, sequence.kept()
        sequence.hold(at)
        many = np.concatenate([ROWS] * 4)
        list(sequence.stream(many))
        first.cut()  # and after a loss of the stream
        list(sequence.stream(many))
        first.vanish()
    with tidegate.connect(server.address) as other:
        again = other.resume(
            sequence.id, sequence.resume_token, answered=at, inputs=lambda step: inputs["x"][step - start : at - start]
        )
        assert again.step(ROWS[5]).output[0] == expected(ROWS)[5]


# As if a server were killed between Opened and DescribeModel, and started again.


def test_a_model_that_is_loading_again_once_it_was_opened_is_waited_for_and_not_remembered(server: FakeServer) -> None:
    with tidegate.connect(server.address, resuming=AT_ONCE) as client:
        server.behaviour.loading = 1_000
        with pytest.raises(tidegate.ModelNotReady, match="'toy' is loading"):
            client.sequence("toy", timeout=0.5)
        server.behaviour.loading = 2
        for _ in range(2):
            assert client.sequence("toy").step(ROWS[0]).output[0] == expected(ROWS)[0]
        assert not server.behaviour.loading


def test_a_description_waits_for_a_model_that_is_being_loaded_if_it_is_to_be_ready(server: FakeServer) -> None:
    with tidegate.connect(server.address, resuming=AT_ONCE) as client:
        server.behaviour.loading = 3
        assert client.describe("toy").status == "loading"
        assert [spec.name for spec in client.describe("toy", ready=True).inputs] == ["x"]
        with pytest.raises(tidegate.ModelNotReady, match="bidirectional"):
            client.describe("broken", ready=True)
        with pytest.raises(tidegate.UnknownModel):
            client.describe("nope", ready=True)


async def test_asyncio_does_not_remember_a_model_that_is_loading_either(server: FakeServer) -> None:
    server.behaviour.loading = 2
    async with tidegate.AsyncClient(server.address, resuming=AT_ONCE) as client:
        for _ in range(2):
            async with client.sequence("toy") as sequence:
                assert (await sequence.step(ROWS[0])).output[0] == expected(ROWS)[0]
    assert not server.behaviour.loading
