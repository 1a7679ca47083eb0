"""Steps that are written without protobuf are what protobuf writes, alone, in a bundle and when sent again."""

from collections.abc import Sequence
from queue import SimpleQueue

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tidegate.world import World
from tidegate import wire
from tidegate.inputs import InputLayout
from tidegate.model import TensorSpec
from tidegate.plain.steps import PlainStep, Request, message_of
from tidegate.protocol.budget import Budget
from tidegate.protocol.replay import TOGETHER, Replay
from tidegate.transport.bundles import Bundler
from tidegate.v1 import sequence_pb2 as pb

NUMBERS = st.one_of(st.integers(0, 300), st.sampled_from([2**14 - 1, 2**14, 2**21 - 1, 2**21, 2**28, 2**32 - 1]))
LONG = st.one_of(NUMBERS, st.sampled_from([2**32, 2**52, 2**63, 2**64 - 1]))
SHAPES = [(3,), (1, 3), (), (0,), (34,), (200, 80)]


def layout(shape: Sequence[int] = (3,), dtype: str = "<f4", name: str = "x") -> InputLayout:
    return InputLayout([TensorSpec(name, np.dtype(dtype), tuple(shape), (), ())])


def plain(handle: int, step: int, answered: int = 0, inputs: InputLayout | None = None) -> PlainStep:
    inputs = inputs or layout()
    single = inputs.single
    assert single is not None
    row = inputs.row(np.full(single.row, step % 97, single.dtype))
    assert row is not None
    made = PlainStep(handle, step, *row)
    made.answered = answered
    return made


def whole(step: PlainStep) -> pb.StreamRequest:
    """The same message, made by protobuf."""
    array = np.frombuffer(step.data, step.input.dtype).reshape(step.input.row)
    inputs = [wire.encode(step.input.name, array)]
    steps = pb.Steps(handle=step.handle, first_step=step.first, inputs=inputs, answered=step.answered)
    return pb.StreamRequest(steps=steps)


@given(NUMBERS, LONG, LONG, st.sampled_from(SHAPES), st.sampled_from(["<f4", "<f8", "<i8", "?"]))
def test_a_step_is_written_as_protobuf_writes_it(
    handle: int, step: int, answered: int, shape: tuple[int, ...], dtype: str
) -> None:
    made = plain(handle, step, answered, layout(shape, dtype))
    assert made.written() == whole(made).SerializeToString()
    assert made.message == whole(made)


def bundled(requests: Sequence[Request], limit: int = 0) -> list[bytes]:
    outbox: SimpleQueue[Request | None] = SimpleQueue()
    for request in (*requests, None):
        outbox.put(request)
    bundler, found = Bundler(outbox, lambda: limit), []
    while (first := bundler.left() or outbox.get()) is not None:
        found.append(bundler.fill(first))
    return found


@given(st.lists(st.tuples(NUMBERS, LONG, st.booleans()), min_size=1, max_size=40))
def test_a_bundle_is_written_as_protobuf_writes_it(those: list[tuple[int, int, bool]]) -> None:
    steps = [(plain(handle, step), by_protobuf) for handle, step, by_protobuf in those]
    (data,) = bundled([whole(step) if by_protobuf else step for step, by_protobuf in steps])
    first, *more = (whole(step) for step, _ in steps)
    first.more.extend(more)
    assert data == first.SerializeToString()


def test_a_bundle_takes_a_quarter_of_what_the_server_takes_in_a_message() -> None:
    steps = [plain(at, 1000 + at) for at in range(100)]
    messages = bundled(steps, 4 * 400)
    assert max(map(len, messages)) <= 400
    assert len(messages) < 20
    bundles = map(pb.StreamRequest.FromString, messages)
    found = [one for bundle in bundles for one in (bundle, *bundle.more)]
    for one in found:
        one.ClearField("more")
    assert found == [step.message for step in steps]


def test_grpc_is_given_the_same_as_messages() -> None:
    outbox: SimpleQueue[Request | None] = SimpleQueue()
    alone, bundler = whole(plain(1, 2)), Bundler(outbox, lambda: 0)
    assert bundler.message(alone) is alone
    outbox.put(plain(3, 4))
    both = bundler.message(plain(1, 2))
    assert both.more == [whole(plain(3, 4))]
    both.ClearField("more")
    assert both == alone


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0], np.ones(3), np.ones((1, 3), np.float32), {"x": np.ones(3)}])
def test_a_row_that_has_to_be_converted_or_refused_is_left_to_the_layout(values: object) -> None:
    assert layout().row(values) is None


def test_what_is_kept_of_steps_is_what_protobuf_would_have_kept() -> None:
    replay, other = Replay(0, Budget()), Replay(0, Budget())
    inputs = layout()
    for at in range(2 * TOGETHER):
        step = plain(7, at, at, inputs)
        replay.keep(step)
        other.add(at, at + 1, whole(step), len(step.data), alone=True)
        for one in (replay, other):
            one.fold(TOGETHER)
    assert list(replay.since(3, (TOGETHER + 1,), 20)) == list(other.since(3, (TOGETHER + 1,), 20))
    (_, ours), (_, theirs) = replay.arrays(), other.arrays()
    np.testing.assert_array_equal(ours["x"], theirs["x"])
    for one in (replay, other):
        one.cut(TOGETHER + 5)
    assert list(replay.since(0, (), 99)) == list(other.since(0, (), 99))
    assert (replay._budget.bytes, replay._budget.steps) == (other._budget.bytes, other._budget.steps)


def test_steps_without_protobuf_are_answered_and_sent_again_after_a_loss() -> None:
    world = World()
    books = world.sequence()
    rows = [np.full(2, at, np.float32) for at in range(6)]
    sent = []
    for row in rows:
        promise, requests = books.send_step(row)
        sent.append((promise, requests))
        world.say(requests)
        if len(sent) == 3:
            world.serve()
            world.hear()
    assert [type(requests[0]) for _, requests in sent[1:]] == [PlainStep] * 5
    world.kill()
    world.settle()
    assert [books.answer(promise).step for promise, _ in sent] == list(range(6))
    first, kept = books.kept()
    np.testing.assert_array_equal(next(iter(kept.values())), rows[first:])
    assert message_of(sent[-1][1][0]).steps.first_step == 5
