import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

import tidegate
from tests.tidegate.fake_server import FakeServer, expected

ROWS = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)


@pytest.fixture
async def client(server: FakeServer) -> AsyncIterator[tidegate.AsyncClient]:
    async with tidegate.AsyncClient(server.address) as connected:
        yield connected


async def test_steps_chunks_and_streams_give_the_same_numbers(client: tidegate.AsyncClient) -> None:
    async with client.sequence("toy") as sequence:
        stepped = [(await sequence.step(row)).output[0] for row in ROWS[:50]]
        streamed = [answer.output[0] async for answer in sequence.stream(ROWS[50:100], window=7)]
        chunk = await sequence.chunk(ROWS[100:])
    np.testing.assert_array_equal([*stepped, *streamed, *chunk.output[:, 0]], expected(ROWS))
    assert chunk.layer[0].forget.shape == (100, 3)


async def test_many_sequences_run_at_once_on_one_stream(server: FakeServer, client: tidegate.AsyncClient) -> None:
    async def run(seed: int) -> bool:
        rows = np.random.default_rng(seed).normal(size=(30, 2)).astype(np.float32)
        async with client.sequence("toy") as sequence:
            answers = [answer.output[0] async for answer in sequence.stream(rows, window=4)]
        return np.array_equal(answers, expected(rows))

    assert all(await asyncio.gather(*(run(seed) for seed in range(50))))
    assert server.servicer.streams == 1


async def test_a_live_row_is_answered_while_the_next_one_is_not_there_yet(client: tidegate.AsyncClient) -> None:
    answered = asyncio.Event()

    async def rows() -> AsyncIterator[list[int]]:
        for row in range(3):
            yield [row, 0]
            await asyncio.wait_for(answered.wait(), 120)
            answered.clear()

    async with client.sequence("toy") as sequence:
        steps = []
        async for answer in sequence.stream(rows()):
            steps.append(answer.step)
            answered.set()
    assert steps == [0, 1, 2]


async def test_a_stream_reads_only_as_many_rows_ahead_as_its_window_holds(client: tidegate.AsyncClient) -> None:
    taken = 0

    async def rows() -> AsyncIterator[list[int]]:
        nonlocal taken
        while True:
            taken += 1
            yield [taken, 0]

    async with client.sequence("toy") as sequence:
        answered = 0
        async for _ in sequence.stream(rows(), window=5):
            answered += 1
            assert taken <= answered + 5
            if answered == 20:
                break


@pytest.mark.parametrize("bad", [[float("nan"), 0], [1, 2, 3]], ids=["refused by the server", "refused by the client"])
async def test_a_refused_row_raises_at_its_turn_and_the_sequence_goes_on(
    client: tidegate.AsyncClient, bad: list[float]
) -> None:
    rows = [*ROWS[:10].tolist(), bad, *ROWS[10:20].tolist()]
    steps = []
    async with client.sequence("toy") as sequence:
        with pytest.raises(tidegate.BadInput) as caught:  # noqa: PT012 - what came before counts
            async for answer in sequence.stream(rows):
                steps.append(answer.step)  # noqa: PERF401 - a comprehension would lose them
        steps += [answer.step async for answer in sequence.stream(rows[11:])]
    assert caught.value.expected_step == 10
    assert steps == list(range(20))


async def test_what_the_rows_raise_comes_out_of_the_stream(client: tidegate.AsyncClient) -> None:
    async def rows() -> AsyncIterator[list[int]]:
        yield [1, 1]
        raise LookupError("the sensor is gone")

    async with client.sequence("toy") as sequence:
        with pytest.raises(LookupError, match="sensor"):
            assert [answer.step async for answer in sequence.stream(rows())]


async def test_a_fleet_takes_a_step_of_each_of_its_sequences_in_one_message() -> None:
    with FakeServer(part=30, backwards=True) as server:
        async with tidegate.AsyncClient(server.address) as client, client.fleet("toy", 100) as fleet:
            block = await fleet.step(ROWS[:100])
            some = await fleet.step(ROWS[:2], members=[7, 5])
            await fleet.close()
    np.testing.assert_array_equal(block.output[:, 0], [expected(row[np.newaxis])[0] for row in ROWS[:100]])
    assert some.steps.tolist() == [1, 1]


async def test_chunks_and_fleets_larger_than_a_message_go_in_several() -> None:
    with FakeServer(max_message=400) as server:
        async with tidegate.AsyncClient(server.address) as client, client.fleet("toy", 100) as fleet:
            async with client.sequence("toy") as sequence:
                chunk = await sequence.chunk(ROWS)
            block = await fleet.step(ROWS[:100])
        assert server.servicer.requests.count("steps") > 200 * 8 / 400
    np.testing.assert_array_equal(chunk.output[:, 0], expected(ROWS))
    np.testing.assert_array_equal(block.output[:, 0], [expected(row[np.newaxis])[0] for row in ROWS[:100]])


async def test_models_and_whole_sequences_are_there_too(client: tidegate.AsyncClient) -> None:
    assert [model.name for model in await client.models()] == ["broken", "pair", "toy"]
    assert (await client.describe("toy")).layers[1].hidden_size == 3
    np.testing.assert_array_equal((await client.predict("toy", ROWS)).output[:, 0], expected(ROWS))
    with pytest.raises(tidegate.UnknownModel):
        await client.describe("nope")
    with pytest.raises(tidegate.UnknownModel):
        await client.sequence("nope")


async def test_an_awaited_sequence_is_closed_by_hand(client: tidegate.AsyncClient) -> None:
    sequence = await client.sequence("toy")
    assert (await sequence.step([1, 1])).step == 0
    await sequence.close()
    with pytest.raises(tidegate.SequenceEnded):
        await sequence.step([1, 1])


async def test_a_sequence_can_be_closed_again_and_by_many_at_once(client: tidegate.AsyncClient) -> None:
    neighbour = await client.sequence("toy")
    async with client.sequence("toy") as sequence:
        await asyncio.wait_for(asyncio.gather(sequence.close(), sequence.close()), 120)
    await sequence.close()
    async with client.sequence("toy") as sequence:
        closing = asyncio.create_task(sequence.close())
        await asyncio.sleep(0)
        closing.cancel()
    await asyncio.wait_for(sequence.close(), 120)
    assert (await neighbour.step([1, 0])).output == [6]


async def test_a_wait_has_a_limit_and_a_late_answer_is_not_taken_for_the_next(
    server: FakeServer, client: tidegate.AsyncClient
) -> None:
    async with client.sequence("toy") as sequence:
        server.behaviour.gate.clear()
        with pytest.raises(tidegate.TimedOut):
            await sequence.step([1, 1], timeout=0.1)
        server.behaviour.gate.set()
        assert (await sequence.step([2, 2])).step == 1


async def test_a_cancelled_wait_does_not_harm_the_stream(server: FakeServer, client: tidegate.AsyncClient) -> None:
    async with client.sequence("toy") as one, client.sequence("toy") as other:
        server.behaviour.gate.clear()
        waiting = asyncio.create_task(one.step([1, 1]))
        await asyncio.sleep(0.05)
        waiting.cancel()
        server.behaviour.gate.set()
        assert (await other.step([1, 1])).step == 0
        assert (await one.step([1, 1])).step == 1


async def test_a_client_finds_a_server_that_came_back(server: FakeServer, client: tidegate.AsyncClient) -> None:
    async with client.sequence("toy") as before:
        await asyncio.to_thread(server.vanish)
        with FakeServer(port=server.port):
            async with asyncio.timeout(120):
                while True:
                    try:
                        after = await client.sequence("toy")
                        break
                    except tidegate.ConnectionLost:
                        await asyncio.sleep(0.05)
            assert (await after.step([1, 1])).step == 0
            with pytest.raises(tidegate.ConnectionLost):
                await before.step([1, 1])


async def test_a_server_that_vanishes_ends_its_sequences(server: FakeServer, client: tidegate.AsyncClient) -> None:
    server.behaviour.silent = True
    async with client.sequence("toy") as sequence:
        waiting = asyncio.create_task(sequence.step([1, 1]))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(server.vanish)
        with pytest.raises(tidegate.ConnectionLost):
            await waiting
        with pytest.raises(tidegate.ConnectionLost):
            await sequence.step([1, 1])
        with pytest.raises(tidegate.ConnectionLost, match="no Tidegate server answers at"):
            await client.models()
