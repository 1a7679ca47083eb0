"""What cannot be asked for is refused before anything is entered, and leaves nothing behind."""

from typing import Any

import numpy as np
import pytest

import tidegate
from tests.tidegate.fake_server import FakeServer, Store, expected
from tests.tidegate.world import World, numbers
from tidegate.errors import refused
from tidegate.protocol.conversation import Conversation
from tidegate.protocol.opening import Claim, Order
from tidegate.state import State
from tidegate.trace import Trace

ROWS = np.random.default_rng(3).normal(size=(4, 2)).astype(np.float32)
COMPLEX = State("toy", 1, 0, {(0, "hidden"): np.zeros(3, np.complex128)})


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"version": 1.0}, r"version=1\.0: a whole number"),
        ({"version": -1}, "versions are numbered from 1"),
        ({"version": 2**64}, "version"),
        ({"model": 1}, "model=1: a str"),
        ({"model": None}, "model=None: a str"),
        ({"owner": b"me"}, "owner=b'me': a str"),
        ({"count": 1.5}, r"count=1\.5: a whole number"),
        ({"count": 0}, "at least one member"),
        ({"count": 2**40}, "too large"),
        ({"state": {}}, r"state=\{\}: a tidegate.State"),
    ],
)
def test_an_opening_with_a_wrong_argument_says_which(wrong: dict[str, Any], what: str) -> None:
    with pytest.raises((TypeError, ValueError), match=what):
        Order(**{"model": "toy", "version": 0, "count": 1, "trace": Trace(), **wrong})


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"ids": (None,)}, "sequence_id=None: a str"),
        ({"token": None}, "token=None: a str"),
        ({"answered": (-1,)}, "answered=-1: it is the number of answers"),
        ({"answered": (None,)}, "answered=None: a whole number"),
        ({"answered": (0.5,)}, r"answered=0\.5: a whole number"),
    ],
)
def test_taking_up_with_a_wrong_argument_says_which(wrong: dict[str, Any], what: str) -> None:
    with pytest.raises((TypeError, ValueError), match=what):
        Claim(**{"ids": ("k-1",), "token": "t", "answered": (0,), "trace": Trace(), **wrong})


def test_numbers_of_numpy_are_numbers() -> None:
    order = Order("toy", np.int64(1), np.uint8(2), Trace(layers=[np.int64(1)]))
    assert order.request(0).open.count == 2
    assert Claim(("k-1",), "t", np.array([3], np.uint64), Trace()).request(0).resume.answered == [3]


def test_layers_are_numbered_from_0() -> None:
    with pytest.raises(ValueError, match="layers are numbered from 0"):
        Trace(layers=[-1])


def test_what_cannot_be_written_as_a_message_leaves_nothing_behind() -> None:
    world = World()
    with pytest.raises(tidegate.wire.WireError):
        world.talk.open(Order("toy", 0, 2, Trace(), COMPLEX))
    assert world.talk.idle
    sequence_books = world.sequence()
    assert sequence_books.handle == 0
    promise = world.step(sequence_books, ROWS[0])
    world.cut()
    world.settle()
    np.testing.assert_array_equal(numbers(sequence_books, promise), expected(ROWS[:1]))


def test_a_sequence_goes_on_after_a_loss_although_another_could_not_be_asked_for() -> None:
    resuming = tidegate.Resuming(first_wait=0.01, longest_wait=0.05)
    with (
        FakeServer(store=Store()) as server,
        tidegate.connect(server.address, timeout=120, resuming=resuming) as client,
    ):
        sequence = client.sequence("toy")
        sequence.step(ROWS[0])
        with pytest.raises(tidegate.wire.WireError):
            client.sequence("toy", state=COMPLEX)
        server.cut()
        assert sequence.step(ROWS[1]).output == expected(ROWS[:2])[1]


@pytest.mark.parametrize(
    ("reason", "error"), [("UNAUTHENTICATED", tidegate.AccessDenied), ("TOO_MANY_STREAMS", tidegate.ServerBusy)]
)
def test_a_stream_that_is_refused_before_anything_is_opened_says_why_as_it_would_later(
    reason: str, error: type[Exception]
) -> None:
    talk = Conversation()
    talk.break_off(refused(reason, "no"))
    with pytest.raises(error, match=reason):
        talk.open(Order("toy", 0, 1, Trace()))
