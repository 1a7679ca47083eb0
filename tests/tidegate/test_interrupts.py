"""Ctrl-C strikes wherever a program is. It is let in at every place of a call, in turn, and nothing hangs."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

import tidegate
from tests.tidegate.fake_server import FakeServer, Store, expected

ROWS = np.random.default_rng(4).normal(size=(4_000, 2)).astype(np.float32)
AT_ONCE = tidegate.Resuming(first_wait=0.0, longest_wait=0.0)
OURS = str(Path(tidegate.__file__).parent)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(store=Store()) as running:
        yield running


def interrupted(call: Callable[[], object], at: int) -> bool:
    """Whether `call` came to its place number `at` of those where Python looks for signals, and was interrupted there.

    That is where a function of ours begins, and where one written in C comes back to one of ours.
    """
    places = 0

    def look(frame: FrameType, event: str, _: object) -> None:
        nonlocal places
        if event in {"call", "c_return"} and frame.f_code.co_filename.startswith(OURS):
            places += 1
            if places > at:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGINT)

    sys.setprofile(look)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


@pytest.mark.parametrize("how", ["a step", "a chunk", "a stream"])
def test_wherever_a_call_is_interrupted_the_sequence_goes_on(server: FakeServer, how: str) -> None:
    def call(rows: np.ndarray) -> None:
        if how == "a step":
            sequence.step(rows[0])
        elif how == "a chunk":
            sequence.chunk(rows)
        else:
            list(sequence.stream(rows))

    taken: list[np.ndarray] = []
    at = 0
    with tidegate.connect(server.address, resuming=AT_ONCE) as client, client.sequence("toy") as sequence:
        sequence.step(ROWS[0], timeout=120)
        taken.append(ROWS[0])
        while interrupted(partial(call, ROWS[at : at + 3]), at):
            taken += list(ROWS[at : at + 3])[: sequence.next_step - len(taken)]
            answer = sequence.step(ROWS[at + 3], timeout=120)
            taken.append(ROWS[at + 3])
            assert answer.step == len(taken) - 1
            assert answer.output[0] == expected(np.array(taken))[-1]
            at += 1
    assert at > 15


def test_wherever_a_fleet_is_interrupted_it_goes_on(server: FakeServer) -> None:
    taken: list[np.ndarray] = []
    at = 0
    with tidegate.connect(server.address, resuming=AT_ONCE) as client, client.fleet("toy", 2) as fleet:
        while interrupted(partial(fleet.step, ROWS[[at, at]]), at):
            taken += [ROWS[at]] * (int(fleet.next_steps[0]) - len(taken))
            block = fleet.step(ROWS[[at + 1, at + 1]], timeout=120)
            taken.append(ROWS[at + 1])
            assert block.steps.tolist() == [len(taken) - 1] * 2
            assert block.output[1, 0] == expected(np.array(taken))[-1]
            at += 1
    assert at > 15


def test_wherever_leaving_is_interrupted_other_sequences_go_on(server: FakeServer) -> None:
    at = 0
    with tidegate.connect(server.address, resuming=AT_ONCE) as client, client.sequence("toy") as neighbour:
        left = client.sequence("toy")
        while interrupted(partial(left.__exit__, None, None, None), at):
            assert neighbour.step(ROWS[at], timeout=120).step == at
            left = client.sequence("toy", timeout=120)
            at += 1
    assert at > 3


def test_threads_go_on_beside_a_call_that_is_interrupted(server: FakeServer) -> None:
    done = threading.Event()
    answers: list[tidegate.Answer] = []
    rows = ROWS[:1_500]

    def run() -> None:
        with client.sequence("toy", timeout=120) as sequence:
            answers.extend(sequence.step(row, timeout=120) for row in rows)
        done.set()

    with tidegate.connect(server.address, resuming=AT_ONCE) as client, client.sequence("toy") as mine:
        threading.Thread(target=run, daemon=True).start()
        at = 0
        while interrupted(lambda: mine.step(ROWS[0]), at):
            at += 1
        assert done.wait(120)
    np.testing.assert_array_equal([answer.output[0] for answer in answers], expected(rows))
