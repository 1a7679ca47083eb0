"""Who reads the connection of a client for threads: a caller that waits, for all, else the reader; and who goes on."""

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import tidegate
from tests.tidegate.fake_server import FakeServer, expected
from tidegate.errors import ConnectionLost
from tidegate.transport.socket_stream import SocketStream

ROWS = np.random.default_rng(6).normal(size=(40, 2)).astype(np.float32)
PATIENCE = 120  # seconds


def resting(sequence: tidegate.Sequence) -> SocketStream:
    """Its stream, once its reader rests."""
    stream = sequence._connection._stream
    assert isinstance(stream, SocketStream)
    while not stream._resting:
        sequence.step(ROWS[0], timeout=PATIENCE)
    return stream


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        threading.Event().wait(0.001)


def entered_in(sequence: tidegate.Sequence, also: Callable[[], object] = lambda: None) -> list[threading.Thread]:
    """The threads in which messages are entered from now on, each after `also`."""
    threads: list[threading.Thread] = []
    receive = sequence._connection.talk.receive

    def enter(message: Any) -> Any:  # noqa: ANN401
        threads.append(threading.current_thread())
        also()
        return receive(message)

    sequence._connection.talk.receive = enter
    return threads


def test_a_caller_that_waits_alone_reads_by_itself(client: tidegate.Client) -> None:
    with client.sequence("toy") as sequence:
        resting(sequence)
        threads = entered_in(sequence)
        sequence.step(ROWS[1], timeout=PATIENCE)
    assert threads
    assert set(threads) == {threading.current_thread()}


def test_what_comes_while_nobody_waits_is_entered_by_the_reader(server: FakeServer, client: tidegate.Client) -> None:
    with client.sequence("toy") as sequence:
        resting(sequence)
        threads = entered_in(sequence)
        server.behaviour.gate.clear()
        with pytest.raises(tidegate.TimedOut):
            sequence.step(ROWS[1], timeout=0.01)
        server.behaviour.gate.set()
        wait_for(lambda: bool(threads))
    assert threads[0] is sequence._connection._reader


def test_a_row_of_a_stream_leaves_although_its_caller_waits_for_the_next_row_and_not_for_its_answer(
    server: FakeServer, client: tidegate.Client
) -> None:
    def rows() -> Iterator[np.ndarray]:
        for row in ROWS[:5]:
            taken = server.servicer.requests.count("steps")
            yield row
            wait_for(lambda taken=taken: server.servicer.requests.count("steps") > taken)

    with client.sequence("toy") as sequence:
        resting(sequence)
        before = sequence.next_step
        assert [answer.step - before for answer in sequence.stream(rows(), window=64)] == [0, 1, 2, 3, 4]


def test_a_caller_whose_time_is_over_hands_on_to_another_that_waits(
    server: FakeServer, client: tidegate.Client
) -> None:
    first, second = client.sequence("toy"), client.sequence("toy")
    stream = resting(first)
    threads = entered_in(second)
    server.behaviour.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(first.step, ROWS[1], timeout=0.3)
        wait_for(lambda: stream._leader is not None)
        following = pool.submit(second.step, ROWS[0], timeout=PATIENCE)
        with pytest.raises(tidegate.TimedOut):
            waiting.result(PATIENCE)
        server.behaviour.gate.set()
        assert following.result(PATIENCE).output[0] == expected(ROWS[:1])[0]
    assert second._connection._reader not in threads


def test_a_caller_that_is_interrupted_while_it_hands_on_keeps_nobody_from_reading(client: tidegate.Client) -> None:
    with client.sequence("toy") as sequence, client.sequence("toy") as other:
        stream = resting(sequence)
        hand_over, stream._hand_over = stream._hand_over, lambda _: None
        sequence.step(ROWS[1], timeout=PATIENCE)
        stream._hand_over = hand_over
        assert stream._leader is not None
        assert other.step(ROWS[0], timeout=PATIENCE).step == 0
        wait_for(lambda: stream._leader is None)
        stream = resting(sequence)
        threads = entered_in(sequence)
        sequence.step(ROWS[2], timeout=PATIENCE)
    assert threads[0] is threading.current_thread()


def test_where_a_handler_of_another_signal_raises_all_who_wait_hear_that_what_came_was_entered_half(
    server: FakeServer, client: tidegate.Client
) -> None:
    class FromHandler(BaseException):
        pass

    def strike() -> None:
        raise FromHandler

    first, second = client.sequence("toy"), client.sequence("toy")
    stream = resting(first)
    server.behaviour.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        leading = pool.submit(first.step, ROWS[1], timeout=PATIENCE)
        wait_for(lambda: stream._leader is not None)
        following = pool.submit(second.step, ROWS[0], timeout=PATIENCE)
        wait_for(lambda: len(first._connection._waiting) == 2)
        entered_in(first, strike)
        server.behaviour.gate.set()
        with pytest.raises(FromHandler):
            leading.result(PATIENCE)
        with pytest.raises(ConnectionLost, match="FromHandler"):
            following.result(PATIENCE)
    with client.sequence("toy") as another:
        assert another.step(ROWS[0], timeout=PATIENCE).step == 0


def test_a_client_may_be_closed_by_a_garbage_collection_while_its_caller_reads(server: FakeServer) -> None:
    def closes() -> Iterator[None]:
        with client:
            yield

    client = tidegate.connect(server.address)
    sequence = client.sequence("toy")
    resting(sequence)
    node: list[Any] = [closes()]
    next(node[0])
    node.append(node)
    entered_in(sequence, gc.collect)
    gc.disable()  # none but that one collects it
    try:
        del node
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(sequence.step, ROWS[1], timeout=PATIENCE).result(PATIENCE)
            assert answer.step == sequence.next_step - 1
    finally:
        gc.enable()
    sequence._connection._reader.join(PATIENCE)
    assert not sequence._connection._reader.is_alive()
