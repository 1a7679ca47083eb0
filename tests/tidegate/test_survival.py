"""Both clients over real gRPC against the fake server: streams break, servers vanish and come back, loops go on."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tidegate
from tests.tidegate.fake_server import AT_ONCE, FakeServer, Store, expected
from tidegate.v1 import error_pb2

ROWS = np.random.default_rng(9).normal(size=(120, 2)).astype(np.float32)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(store=Store()) as running:
        yield running


@pytest.fixture
def client(server: FakeServer) -> Iterator[tidegate.Client]:
    with tidegate.connect(server.address, resuming=AT_ONCE) as connected:
        yield connected


def breaking(server: FakeServer, at: set[int]) -> Callable[[int], None]:
    """Breaks the stream before these steps."""

    def look(step: int) -> None:
        if step in at:
            server.cut()

    return look


# Threads.


@pytest.mark.parametrize("timeout", [None, 120.0], ids=["whoever waits reads", "a thread reads"])
def test_a_loop_of_steps_does_not_notice_that_its_stream_breaks(server: FakeServer, timeout: float | None) -> None:
    look = breaking(server, {0, 1, 7, 30, 31, 32, 59})
    answers = []
    with tidegate.connect(server.address, timeout=timeout, resuming=AT_ONCE) as client, client.sequence("toy") as one:
        for step, row in enumerate(ROWS[:60]):
            look(step)
            answers.append(one.step(row))
    assert [answer.step for answer in answers] == list(range(60))
    np.testing.assert_array_equal([answer.output[0] for answer in answers], expected(ROWS[:60]))
    assert server.servicer.streams == 8
    assert server.behaviour.store.records[one.id].ended == error_pb2.REASON_SEQUENCE_ENDED


def test_streams_chunks_and_fleets_go_on_where_they_were(server: FakeServer, client: tidegate.Client) -> None:
    server.behaviour.part = 7
    with client.sequence("toy") as one, client.sequence("toy") as other, client.fleet("toy", 20) as fleet:
        streamed = []
        for answer in one.stream(ROWS, window=16):
            streamed.append(answer.output[0])
            if len(streamed) % 25 == 0:
                server.cut()
        server.behaviour.break_after = 5
        chunk = other.chunk(ROWS)
        blocks = []
        for at in range(0, 100, 20):
            server.behaviour.break_after = 2
            blocks.append(fleet.step(ROWS[at : at + 20]))
    np.testing.assert_array_equal(streamed, expected(ROWS))
    np.testing.assert_array_equal(chunk.output[:, 0], expected(ROWS))
    for member in range(20):
        np.testing.assert_array_equal([block.output[member, 0] for block in blocks], expected(ROWS[member:100:20]))


def test_a_server_that_is_killed_and_comes_back_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    caplog.set_level(logging.INFO, "tidegate")
    with FakeServer(store=store) as first, tidegate.connect(first.address, resuming=AT_ONCE) as client:
        one, never_written = client.sequence("toy"), client.sequence("toy")
        answers = [one.step(row).output[0] for row in ROWS[:10]]
        others = [never_written.step(ROWS[0]).output[0]]
        first.vanish()
        store.lose_the_unwritten()
        with FakeServer(port=first.port, store=store):
            answers += [one.step(row).output[0] for row in ROWS[10:20]]
            others.append(never_written.step(ROWS[1]).output[0])
        np.testing.assert_array_equal(answers, expected(ROWS[:20]))
        np.testing.assert_array_equal(others, expected(ROWS[:2]))
    lost, resumed, *_ = (record.getMessage() for record in caplog.records if record.name == "tidegate")
    assert f"connection to {first.address} lost" in lost
    assert "resumed 2 sequences" in resumed
    assert "sent 3 steps again" in resumed  # two since the checkpoint at 8, and one that was never written


def test_many_threads_go_on_over_losses_of_the_stream_that_they_share(server: FakeServer) -> None:
    breaks = threading.Lock()

    def run(client: tidegate.Client, seed: int) -> bool:
        rows = np.random.default_rng(seed).normal(size=(60, 2)).astype(np.float32)
        limit = 120.0 if seed % 2 else None
        with client.sequence("toy") as sequence:
            answers = []
            for row in rows[:30]:
                answers.append(sequence.step(row, timeout=limit).output[0])
                if seed == 3 and len(answers) % 6 == 0 and breaks.acquire(blocking=False):
                    server.cut()
                    breaks.release()
            answers += [answer.output[0] for answer in sequence.stream(rows[30:], window=8)]
        return np.array_equal(answers, expected(rows))

    with tidegate.connect(server.address, resuming=AT_ONCE) as client, ThreadPoolExecutor(6) as pool:
        assert all(pool.map(lambda seed: run(client, seed), range(12)))
    assert server.servicer.streams > 1


def test_a_limit_holds_while_there_is_no_server_and_the_next_call_goes_on(server: FakeServer) -> None:
    with tidegate.connect(server.address, resuming=AT_ONCE) as client, client.sequence("toy") as sequence:
        sequence.step(ROWS[0])
        server.vanish()
        with pytest.raises(tidegate.TimedOut):
            sequence.step(ROWS[1], timeout=0.2)
        with FakeServer(port=server.port, store=server.behaviour.store):
            answer = sequence.step(ROWS[2], timeout=120)
    assert answer.step == 2
    assert answer.output[0] == expected(ROWS[:3])[2]


def clock_of(seconds: float) -> Callable[[], float]:
    """A clock that is so much later each time that it is looked at."""
    now = iter(range(10**6))
    return lambda: next(now) * seconds


def test_when_the_time_to_resume_is_over_the_sequence_is_lost_and_says_so(server: FakeServer) -> None:
    hasty = tidegate.Resuming(clock=clock_of(20.0), chance=lambda: 0.0)
    with tidegate.connect(server.address, resume_within=60, resuming=hasty) as client:
        sequence = client.sequence("toy")
        sequence.step(ROWS[0])
        server.vanish()
        for _ in range(2):
            with pytest.raises(tidegate.SequenceLost, match="not resumed within 60 s: no Tidegate server") as caught:
                sequence.step(ROWS[1])
        assert (caught.value.reason, caught.value.answered) == ("UNREACHABLE", 1)
        with pytest.raises(tidegate.ConnectionLost):
            client.sequence("toy")


def test_a_client_that_is_not_to_resume_does_not(server: FakeServer) -> None:
    with tidegate.connect(server.address, resume_within=0) as client, client.sequence("toy") as sequence:
        sequence.step(ROWS[0])
        server.cut()
        with pytest.raises(tidegate.ConnectionLost):
            sequence.step(ROWS[1])


def test_a_balancer_can_lead_a_client_back_to_where_it_was(server: FakeServer, client: tidegate.Client) -> None:
    with client.sequence("toy") as sequence:
        sequence.step(ROWS[0])
        server.cut()
        sequence.step(ROWS[1])
    with tidegate.connect(server.address) as another, another.sequence("toy") as sequence:
        sequence.step(ROWS[0])
    first, again, other = server.servicer.routes
    assert first == again != other
    assert len({first, other, ""}) == 3


def test_a_new_client_that_resumes_a_sequence_comes_by_the_route_of_its_id(
    server: FakeServer, client: tidegate.Client
) -> None:
    mine = client.sequence("toy")
    mine.step(ROWS[0])
    with tidegate.connect(server.address, resuming=AT_ONCE) as another:
        theirs = another.resume(mine.id, mine.resume_token, answered=1)
        server.cut()
        theirs.step(ROWS[1])
        beside = another.sequence("toy")
        beside.step(ROWS[0])
    first, *others = server.servicer.routes
    assert others == [first, first]
    assert {one.id.partition("-")[0] for one in (mine, theirs, beside)} == {first}


def test_a_client_that_is_connected_resumes_by_the_route_that_it_has(
    server: FakeServer, client: tidegate.Client
) -> None:
    mine = client.sequence("toy")
    mine.step(ROWS[0])
    with tidegate.connect(server.address, resuming=AT_ONCE) as another:
        another.sequence("toy")
        theirs = another.resume(mine.id, mine.resume_token, answered=1)
        server.cut()
        theirs.step(ROWS[1])
    first, other, again = server.servicer.routes
    assert first != other == again
    assert theirs.id == mine.id


def test_waits_between_attempts_grow_vary_and_are_bounded() -> None:
    from tidegate.protocol.conversation import Conversation
    from tidegate.transport.recovery import Pace, Recovery

    resuming = tidegate.Resuming(first_wait=0.1, longest_wait=1.0, clock=lambda: 0.0, chance=lambda: 0.5)
    recovery = Recovery(resuming, None, "here", Conversation(), Pace(resuming))
    assert [recovery.next_wait() for _ in range(6)] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.5, 0.5])


def test_a_draining_server_is_left_without_a_word(server: FakeServer, client: tidegate.Client) -> None:
    with client.sequence("toy") as sequence:
        answers = [sequence.step(row).output[0] for row in ROWS[:5]]
        server.behaviour.refuse, server.behaviour.refused = [error_pb2.REASON_DRAINING], "steps"
        answers += [sequence.step(row).output[0] for row in ROWS[5:9]]
    np.testing.assert_array_equal(answers, expected(ROWS[:9]))


def test_sending_waits_for_a_checkpoint_when_enough_is_kept(server: FakeServer) -> None:
    server.behaviour.every = 0
    bound = tidegate.Resuming(keep_steps=5)
    with tidegate.connect(server.address, resuming=bound) as client, client.sequence("toy") as sequence:
        answers = [sequence.step(row).output[0] for row in ROWS[:5]]
        with pytest.raises(tidegate.TimedOut):
            sequence.step(ROWS[5], timeout=0.1)
        assert sequence.next_step == 5  # it was not sent
        server.behaviour.every = 1
        with client.sequence("toy") as other:
            assert other.step(ROWS[0]).step == 0
        assert answers == expected(ROWS[:5]).tolist()


def test_whoever_closes_a_client_ends_what_was_closed_on_a_stream_that_broke(server: FakeServer) -> None:
    with tidegate.connect(server.address, resuming=AT_ONCE) as client, client.sequence("toy") as sequence:
        sequence.step(ROWS[0])
        server.cut()
    assert server.behaviour.store.records[sequence.id].ended == error_pb2.REASON_SEQUENCE_ENDED


# State is a value.


def test_a_state_is_taken_out_kept_in_a_file_and_given_to_another_sequence(
    client: tidegate.Client, tmp_path: Path
) -> None:
    with client.sequence("toy") as sequence:
        for row in ROWS[:5]:
            sequence.step(row)
        state = sequence.state()
        state.save(tmp_path / "at5")
        loaded = tidegate.State.load(tmp_path / "at5")
        assert loaded == state
        assert (loaded.model, loaded.version, loaded.step) == ("toy", 1, 5)
        with client.sequence("toy", state=loaded) as other, sequence.fork() as fork:
            answers = [one.step(ROWS[5]) for one in (sequence, other, fork)]
        assert sequence.state() != state
    assert [answer.step for answer in answers] == [5, 5, 5]
    assert {float(answer.output[0]) for answer in answers} == {float(expected(ROWS[:6])[5])}


def test_a_state_of_another_shape_is_refused(client: tidegate.Client) -> None:
    state = tidegate.State("toy", 1, 5, {(0, "hidden"): np.zeros(99)})
    with pytest.raises(tidegate.Refused, match="WRONG_STATE"):
        client.sequence("toy", state=state)


def test_a_file_that_is_no_state_says_so(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for name in ("text", "other.npz"):
        with pytest.raises(tidegate.TidegateError, match="holds no state"):
            tidegate.State.load(tmp_path / name)


def test_a_sequence_is_rewound_and_moved(server: FakeServer, client: tidegate.Client) -> None:
    with client.sequence("toy") as sequence:
        for row in ROWS[:10]:
            sequence.step(row)
        assert sequence.rewind(9) == sequence.next_step == 8
        sequence.step(ROWS[8])
        server.cut()
        assert sequence.move(2) == 9
        assert sequence.version == 2
        answer = sequence.step(ROWS[9])
    assert answer.output[0] == expected(ROWS[:10], moved_at=9)[9]


def test_another_process_takes_a_sequence_up(client: tidegate.Client, server: FakeServer) -> None:
    mine = client.sequence("toy")
    for row in ROWS[:10]:
        mine.step(row)
    first, inputs = mine.kept()
    np.testing.assert_array_equal(inputs["x"], ROWS[first:10])
    with tidegate.connect(server.address) as elsewhere:
        theirs = elsewhere.resume(mine.id, mine.resume_token, answered=mine.answered)
        assert theirs.next_step == 8
        answers = [theirs.step(row) for row in ROWS[8:12]]
        with pytest.raises(tidegate.SequenceLost, match="TAKEN_OVER"):
            mine.step(ROWS[10])
        with pytest.raises(tidegate.SequenceLost, match="WRONG_TOKEN"):
            elsewhere.resume(mine.id, "guessed", answered=10)
        theirs.close()
    np.testing.assert_array_equal([answer.output[0] for answer in answers], expected(ROWS[:12])[8:])


# asyncio.


async def test_tasks_do_not_notice_that_their_stream_breaks(server: FakeServer) -> None:
    async def run(client: tidegate.AsyncClient, seed: int) -> bool:
        rows = np.random.default_rng(seed).normal(size=(40, 2)).astype(np.float32)
        async with client.sequence("toy") as sequence:
            answers = []
            for row in rows[:20]:
                answers.append((await sequence.step(row)).output[0])
                if seed == 0 and len(answers) % 5 == 0:
                    server.behaviour.break_after = 3
            answers += [answer.output[0] async for answer in sequence.stream(rows[20:], window=4)]
        return np.array_equal(answers, expected(rows))

    async with tidegate.AsyncClient(server.address, resuming=AT_ONCE) as client:
        assert all(await asyncio.gather(*(run(client, seed) for seed in range(20))))
    assert server.servicer.streams == 5
    assert {record.ended for record in server.behaviour.store.records.values()} == {error_pb2.REASON_SEQUENCE_ENDED}


async def test_a_balancer_can_lead_an_asyncio_client_back_to_where_it_was(server: FakeServer) -> None:
    async with tidegate.AsyncClient(server.address, resuming=AT_ONCE) as client:
        sequence = await client.sequence("toy")
        await sequence.step(ROWS[0])
        server.cut()
        await sequence.step(ROWS[1])
    async with tidegate.AsyncClient(server.address) as another:
        await another.resume(sequence.id, sequence.resume_token, answered=2)
    first, again, resumed = server.servicer.routes
    assert first == again == resumed != ""


async def test_requests_that_wait_together_go_in_one_message(server: FakeServer) -> None:
    async with tidegate.AsyncClient(server.address) as client:
        sequences = [await client.sequence("toy", trace=False) for _ in range(50)]
        before = len(server.servicer.bundles)
        answers = await asyncio.gather(*(sequence.step(ROWS[0]) for sequence in sequences))
        sent = server.servicer.bundles[before:]
        await sequences[0].step(ROWS[1])
    assert len(answers) == sum(sent) == 50
    assert len(sent) < 10
    assert server.servicer.bundles[-1] == 1


async def test_an_asyncio_client_goes_on_after_a_server_came_back_and_gives_up_in_time() -> None:
    store = Store()
    with FakeServer(store=store) as first:
        async with tidegate.AsyncClient(first.address, resuming=AT_ONCE, resume_within=None) as client:
            sequence, fleet = await client.sequence("toy"), await client.fleet("toy", 3)
            answers = [(await sequence.step(row)).output[0] for row in ROWS[:6]]
            await fleet.step(ROWS[:3])
            await asyncio.to_thread(first.vanish)
            with pytest.raises(tidegate.TimedOut):
                await sequence.step(ROWS[6], timeout=0.1)
            with FakeServer(port=first.port, store=store):
                answers.append((await sequence.step(ROWS[7])).output[0])
                assert (await fleet.step(ROWS[3:6])).steps.tolist() == [1, 1, 1]
    np.testing.assert_array_equal(answers, expected(ROWS[:8])[[0, 1, 2, 3, 4, 5, 7]])
    with FakeServer(store=store) as second:
        hasty = tidegate.Resuming(clock=clock_of(20.0), chance=lambda: 0.0)
        async with tidegate.AsyncClient(second.address, resuming=hasty) as client:
            sequence = await client.sequence("toy")
            await asyncio.to_thread(second.vanish)
            with pytest.raises(tidegate.SequenceLost, match="UNREACHABLE"):
                await sequence.step(ROWS[0])


async def test_values_of_a_sequence_are_there_for_asyncio_too(server: FakeServer) -> None:
    async with tidegate.AsyncClient(server.address, resuming=AT_ONCE) as client:
        sequence = await client.sequence("toy")
        for row in ROWS[:9]:
            await sequence.step(row)
        state = await sequence.state()
        fork = await sequence.fork()
        assert await sequence.rewind(8) == 8
        assert await sequence.move(2) == 8
        assert (await sequence.step(ROWS[8])).output[0] == expected(ROWS[:9], moved_at=8)[8]
        assert (await fork.step(ROWS[9])).output[0] == expected(ROWS[:10])[9]
        assert state.step == 9
        async with client.resume(fork.id, fork.resume_token, answered=10) as taken:
            assert taken.next_step == 9
