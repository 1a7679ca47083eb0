"""What the shells of both clients do beyond what is said on the wire: limits, threads, loops, processes, faults."""

import asyncio
import gc
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

import tidegate
from tests.tidegate.fake_server import AT_ONCE, FakeServer, Store, expected
from tidegate.errors import ConnectionLost
from tidegate.protocol.conversation import Conversation
from tidegate.protocol.promise import Promise
from tidegate.transport import process
from tidegate.transport.recovery import Pace, Recovery
from tidegate.v1 import error_pb2

ROWS = np.random.default_rng(9).normal(size=(120, 2)).astype(np.float32)
PATIENCE = 120  # seconds


def unforeseen(*_: object) -> None:
    raise LookupError("nobody thought of this")


# A fault of the client itself.


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_whoever_waits_hears_of_a_fault_in_the_reader(
    server: FakeServer, client: tidegate.Client, timeout: float | None
) -> None:
    first, second = client.sequence("toy"), client.sequence("toy")
    first.step(ROWS[0])
    server.behaviour.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(one.step, ROWS[1], timeout=timeout) for one in (first, second)]
        first._connection.talk.receive = unforeseen
        server.behaviour.gate.set()
        for future in waiting:
            with pytest.raises(ConnectionLost, match="nobody thought of this"):
                future.result(PATIENCE)
    with client.sequence("toy") as another:
        assert another.step(ROWS[0]).step == 0


async def test_a_task_that_waits_hears_of_a_fault_in_the_reader(server: FakeServer) -> None:
    async with tidegate.AsyncClient(server.address, resuming=AT_ONCE) as client:
        sequence = await client.sequence("toy")
        sequence._connection.talk.receive = unforeseen
        with pytest.raises(ConnectionLost, match="nobody thought of this"):
            await asyncio.wait_for(sequence.step(ROWS[0]), PATIENCE)
        async with client.sequence("toy") as another:
            assert (await another.step(ROWS[0])).step == 0


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_a_sequence_whose_rows_the_next_server_takes_no_more_is_lost_alone(
    server: FakeServer, client: tidegate.Client, timeout: float | None
) -> None:
    large, small = client.sequence("pair"), client.sequence("toy")
    large.step({"a": [1], "token": 2})
    small.step(ROWS[0])
    server.behaviour.max_message = 112
    server.cut()
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(tidegate.SequenceLost, match="TOO_LARGE"):
            pool.submit(large.step, {"a": [1], "token": 2}, timeout=timeout).result(PATIENCE)
        answer = pool.submit(small.step, ROWS[1], timeout=timeout).result(PATIENCE)
    assert answer.output[0] == expected(ROWS[:2])[1]


# Event loops.


def test_an_asyncio_client_may_be_made_before_there_is_a_loop_and_belongs_to_the_first(server: FakeServer) -> None:
    client = tidegate.AsyncClient(server.address)

    async def use() -> int:
        async with client.sequence("toy") as sequence:
            return (await sequence.step(ROWS[0])).step

    assert asyncio.run(asyncio.wait_for(use(), PATIENCE)) == 0
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(use())


def test_a_loop_ends_although_its_client_was_not_closed(server: FakeServer) -> None:
    async def leave_open() -> tidegate.AsyncSequence:
        client = tidegate.AsyncClient(server.address, resuming=AT_ONCE)
        sequence = await client.sequence("toy")
        await sequence.step(ROWS[0])
        return sequence

    sequence = within_patience(lambda: asyncio.run(leave_open()))
    with pytest.raises(ConnectionLost, match="the event loop ended"):
        sequence._books.send_step(ROWS[1])


def within_patience(call: object) -> object:
    """What it gives, if it ends in time; it is not waited for at the end of the tests."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert results, "it does not end"
    return results[0]


async def test_a_client_whose_closing_is_cancelled_is_closed(server: FakeServer) -> None:
    client = tidegate.AsyncClient(server.address, resuming=AT_ONCE)
    async with client.sequence("toy") as sequence:
        await sequence.step(ROWS[0])
        server.behaviour.gate.clear()
    closing = asyncio.create_task(client.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait({sequence._connection._reader})
    with pytest.raises(ConnectionLost, match="this client was closed"):
        await client.sequence("toy")


async def test_a_wait_that_is_cancelled_as_its_answer_comes_is_cancelled(server: FakeServer) -> None:
    async with tidegate.AsyncClient(server.address) as client, client.sequence("toy") as sequence:
        promise: Promise[None] = Promise()
        waiting = asyncio.create_task(sequence._connection.wait(promise, PATIENCE))
        await asyncio.sleep(0)
        promise.resolve(None)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_several_wait_for_the_same_and_all_wake_up(server: FakeServer) -> None:
    promise: Promise[None] = Promise()
    async with tidegate.AsyncClient(server.address) as theirs, theirs.sequence("toy") as sequence:
        waiting = [asyncio.create_task(sequence._connection.wait(promise, limit)) for limit in (None, PATIENCE, None)]
        await asyncio.sleep(0)
        promise.resolve(None)
        await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)


# What a garbage collection may do anywhere.


def test_a_sequence_may_be_left_in_the_midst_of_whatever_the_client_does(
    server: FakeServer, client: tidegate.Client
) -> None:
    class Node:
        pass

    def answers() -> Iterator[tidegate.Answer]:
        with client.sequence("toy") as sequence:
            ids.append(sequence.id)
            for row in ROWS:
                yield sequence.step(row)

    def build() -> tuple[Promise[None], list[object]]:
        gc.collect()
        return Promise(), []

    ids: list[str] = []
    node = Node()
    node.steps = answers()
    node.me = node
    next(node.steps)
    with client.sequence("toy") as other:
        del node
        within_patience(lambda: other._connection.ask(build))
        assert other.step(ROWS[0], timeout=PATIENCE).step == 0
    client.close()
    assert server.behaviour.store.records[ids[0]].ended == error_pb2.REASON_SEQUENCE_ENDED


def test_what_was_left_ends_before_anything_that_is_said_later(server: FakeServer, client: tidegate.Client) -> None:
    left, other = client.sequence("toy"), client.sequence("toy")
    connection = left._connection

    def build() -> tuple[Promise[None], list[object]]:
        left.__exit__(None, None, None)
        return Promise(), []

    within_patience(partial(connection.ask, build))
    with pytest.raises(tidegate.SequenceEnded):
        left.step(ROWS[0])
    other.step(ROWS[0])
    assert server.servicer.requests[-2:] == ["close", "steps"]


# Processes.


def test_a_client_says_that_it_was_made_in_another_process(
    client: tidegate.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = client.sequence("toy")
    here = os.getpid()
    monkeypatch.setattr(process.os, "getpid", lambda: here + 1)
    for call in (lambda: sequence.step(ROWS[0]), sequence.close, lambda: client.sequence("toy"), client.models):
        with pytest.raises(RuntimeError, match="made in another process"):
            call()
    with client, sequence:
        pass  # they are left alone
    monkeypatch.undo()
    assert sequence.step(ROWS[0]).step == 0


# Limits.


@pytest.mark.parametrize("window", [0, -1])
async def test_a_stream_needs_a_window(server: FakeServer, client: tidegate.Client, window: int) -> None:
    with client.sequence("toy") as sequence, pytest.raises(ValueError, match="at least one step"):
        list(sequence.stream(ROWS[:3], window=window))
    async with tidegate.AsyncClient(server.address) as theirs, theirs.sequence("toy") as other:
        with pytest.raises(ValueError, match="at least one step"):
            await asyncio.wait_for(anext(other.stream(ROWS[:3], window=window)), PATIENCE)


def test_an_opening_takes_no_longer_than_its_limit_although_the_server_dies_meanwhile(server: FakeServer) -> None:
    client = tidegate.connect(server.address, resume_within=1_000, resuming=AT_ONCE)
    describe = client._describe

    async def dying(*what: object) -> tidegate.Model:
        if not server.servicer.dead:
            server.vanish()
        return await describe(*what)

    client._describe = dying
    with client, pytest.raises((ConnectionLost, tidegate.TimedOut)):
        client.sequence("toy", timeout=0.2)


async def test_the_same_limit_holds_for_an_opening_in_a_loop(server: FakeServer) -> None:
    client = tidegate.AsyncClient(server.address, resume_within=1_000, resuming=AT_ONCE)
    describe = client._describe

    async def dying(*what: object) -> tidegate.Model:
        if not server.servicer.dead:
            await asyncio.to_thread(server.vanish)
        return await describe(*what)

    client._describe = dying
    async with client:
        with pytest.raises((ConnectionLost, tidegate.TimedOut)):
            await asyncio.wait_for(client.sequence("toy", timeout=0.2), PATIENCE)


async def test_who_waits_for_room_in_vain_hears_which_bound_was_reached_and_leaves_nothing(server: FakeServer) -> None:
    server.behaviour.every = 0
    bound = tidegate.Resuming(keep_steps=3)
    with tidegate.connect(server.address, resuming=bound) as client, client.sequence("toy") as sequence:
        sequence.chunk(ROWS[:3])
        for _ in range(3):
            with pytest.raises(tidegate.TimedOut, match=r"not sent: 3 steps .*keep_steps=3"):
                sequence.step(ROWS[3], timeout=0.01)
        assert not sequence._connection.talk.budget._waiting
    async with tidegate.AsyncClient(server.address, resuming=bound) as theirs, theirs.sequence("toy") as other:
        await other.chunk(ROWS[:3])
        with pytest.raises(tidegate.TimedOut, match=r"not sent: 3 steps .*keep_steps=3"):
            await other.step(ROWS[3], timeout=0.01)
        assert not other._connection.talk.budget._waiting


# When it is tried again.


def test_the_time_to_resume_begins_with_the_first_attempt_which_is_always_made() -> None:
    now = [0.0]
    resuming = tidegate.Resuming(clock=lambda: now[0], chance=lambda: 0.0)
    recovery = Recovery(resuming, 60.0, "here", Conversation(), Pace(resuming))
    now[0] = 1_000.0  # whoever lost the stream was interrupted, and comes back later
    assert recovery.next_wait() == 0.0
    now[0] += 59.0
    assert recovery.next_wait() == 0.0
    now[0] += 2.0
    assert recovery.next_wait() is None


def test_time_in_which_nobody_calls_does_not_count_against_a_sequence() -> None:
    tried = threading.Semaphore(0)
    resuming = tidegate.Resuming(first_wait=0.0, clock=time.perf_counter, chance=lambda: tried.release() or 0.0)
    store = Store()
    with FakeServer(store=store) as first:
        client = tidegate.connect(first.address, resume_within=0.05, resuming=resuming)
        sequence = client.sequence("toy")
        sequence.step(ROWS[0])
        first.vanish()
        gone = time.perf_counter()
        while time.perf_counter() < gone + 0.2:
            assert tried.acquire(timeout=PATIENCE)
    with client, FakeServer(port=first.port, store=store):
        connection = sequence._connection
        while connection.talk.broken is not None or connection.talk.recovering:
            assert tried.acquire(timeout=0.01) or connection.alive
        assert sequence.step(ROWS[1]).step == 1


async def test_time_in_which_no_task_waits_does_not_count_either() -> None:
    tried = asyncio.Semaphore(0)
    resuming = tidegate.Resuming(first_wait=0.0, clock=time.perf_counter, chance=lambda: tried.release() or 0.0)
    store = Store()
    with FakeServer(store=store) as first:
        client = tidegate.AsyncClient(first.address, resume_within=0.05, resuming=resuming)
        sequence = await client.sequence("toy")
        await sequence.step(ROWS[0])
        await asyncio.to_thread(first.vanish)
        gone = time.perf_counter()
        while time.perf_counter() < gone + 0.2:
            await asyncio.wait_for(tried.acquire(), PATIENCE)
    with FakeServer(port=first.port, store=store):
        connection = sequence._connection
        while connection.talk.broken is not None or connection.talk.recovering:
            assert connection.alive
            await asyncio.sleep(0.01)  # nothing tells when it got on
        assert (await sequence.step(ROWS[1])).step == 1
        await client.close()


def test_where_one_loss_follows_the_other_it_is_tried_less_and_less_often_and_that_is_forgotten() -> None:
    now = [0.0]
    resuming = tidegate.Resuming(first_wait=0.1, longest_wait=1.0, clock=lambda: now[0], chance=lambda: 1.0)
    pace = Pace(resuming)

    def lost_and_found() -> float:
        recovery = Recovery(resuming, None, "here", Conversation(), pace)
        wait = recovery.next_wait()
        assert recovery.over(Conversation())
        return wait

    assert [lost_and_found() for _ in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    now[0] += 2.0
    assert lost_and_found() == pytest.approx(0.4)
    now[0] += 60.0
    assert lost_and_found() == pytest.approx(0.1)
