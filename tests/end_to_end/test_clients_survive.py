"""Both clients and the real server: killed, stopped and started anew under loops that do not notice."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

import tidegate
from bench.processes.child import free_port
from tests.end_to_end.test_life import add
from tests.raw_stream import RawStream, close, open_
from tests.torch_models import Spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.running_server import RunningServer

ROWS = np.random.default_rng(8).standard_normal((4, 90, 3), dtype=np.float32)
SOON = tidegate.Resuming(longest_wait=0.5)
PATIENT = {"timeout": 240, "resume_within": 240, "resuming": SOON}


class Server:
    """One address and one store, and one process after the other."""

    def __init__(self, start: Callable[..., RunningServer], models: Path, folder: Path, *given: str) -> None:
        port = str(free_port())
        arguments = ("--port", port, "--store", f"sqlite:{folder / 'kept.sqlite'}", "--checkpoint-steps", "8", *given)
        self._begin = lambda: start(models, *arguments, "--keep-versions", "2", "--poll-seconds", "0.05")
        self.address = f"127.0.0.1:{port}"
        self.process = self._begin().ready()

    def kill(self) -> None:
        self.process.process.kill()
        self.process.wait()
        self.process = self._begin()

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait() == 0
        self.process = self._begin()


@pytest.fixture
def server(start: Callable[..., RunningServer], lstm_only: Path, tmp_path: Path) -> Server:
    return Server(start, lstm_only, tmp_path)


def undisturbed(address: str) -> list[np.ndarray]:
    with tidegate.connect(address) as client:
        answers = []
        for rows in ROWS:
            with client.sequence("lstm") as sequence:
                chunk = sequence.chunk(rows)
                answers.append(np.concatenate([chunk.output.reshape(len(rows), -1), chunk.trace], axis=1))
        return answers


def whole(answer: tidegate.Answer) -> np.ndarray:
    return np.concatenate([answer.output.ravel(), answer.trace])


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_threads_get_every_answer_once_and_to_the_bit_though_the_server_ends(server: Server, how: str) -> None:
    expected = undisturbed(server.address)
    with (
        tidegate.connect(server.address, **PATIENT) as client,
        client.fleet("lstm", 3) as fleet,
    ):
        one, other = client.sequence("lstm"), client.sequence("lstm")
        stepped, streamed, blocks = [], [], []
        stream = other.stream(ROWS[0], window=10)
        for step in range(90):
            if step in (10, 50):
                getattr(server, how)()
            stepped.append(whole(one.step(ROWS[0, step])))
            streamed.append(whole(next(stream)))
            if step % 9 == 0:
                blocks.append(fleet.step(ROWS[1:, step // 9]))
        one.close()
    np.testing.assert_array_equal(stepped, expected[0])
    np.testing.assert_array_equal(streamed, expected[0])
    for member in range(3):
        came = [np.concatenate([block.output[member].ravel(), block.trace[member]]) for block in blocks]
        np.testing.assert_array_equal(came, expected[1 + member][:10])
    assert "Traceback" not in server.process.log


async def test_tasks_get_every_answer_once_and_to_the_bit_though_the_server_ends(server: Server) -> None:
    expected = await asyncio.to_thread(undisturbed, server.address)
    middle = asyncio.Barrier(5)

    async def run(client: tidegate.AsyncClient, rows: np.ndarray) -> list[np.ndarray]:
        async with client.sequence("lstm") as sequence:
            answers = [whole(await sequence.step(row)) for row in rows[:40]]
            await middle.wait()
            return answers + [whole(answer) async for answer in sequence.stream(rows[40:], window=8)]

    async def disturb() -> None:
        await middle.wait()
        await asyncio.to_thread(server.kill)

    async with tidegate.AsyncClient(server.address, **PATIENT) as client:
        *answers, _ = await asyncio.gather(*(run(client, rows) for rows in ROWS), disturb())
    np.testing.assert_array_equal(answers, expected)


def test_a_state_a_fork_a_rewind_and_another_process_give_the_same_bits(server: Server, tmp_path: Path) -> None:
    expected = undisturbed(server.address)[0]
    client = tidegate.connect(server.address, resuming=SOON)
    sequence = client.sequence("lstm")
    for row in ROWS[0, :20]:
        sequence.step(row)
    sequence.state().save(tmp_path / "state")
    state = tidegate.State.load(tmp_path / "state")
    assert (state.step, {name for _, name in state.arrays}) == (20, {"hidden", "cell"})
    with sequence.fork() as fork, client.sequence("lstm", state=state) as other:
        for one in (fork, other):
            np.testing.assert_array_equal([whole(one.step(row)) for row in ROWS[0, 20:30]], expected[20:30])
    back = sequence.rewind(19)
    assert back <= 19
    np.testing.assert_array_equal([whole(sequence.step(row)) for row in ROWS[0, back:25]], expected[back:25])
    first, inputs = sequence.kept()
    place = (sequence.id, sequence.resume_token)
    client.close()
    with tidegate.connect(server.address) as elsewhere, elsewhere.resume(*place, answered=25) as taken:
        assert first <= taken.next_step <= 25
        (rows,) = inputs.values()
        for row in rows[taken.next_step - first :]:
            taken.step(row)
        np.testing.assert_array_equal([whole(taken.step(row)) for row in ROWS[0, 25:30]], expected[25:30])
    with tidegate.connect(server.address) as late, pytest.raises(tidegate.SequenceLost, match="SEQUENCE_ENDED"):
        late.resume(*place, answered=30)


def test_a_move_counts_from_its_step_on_though_the_server_goes_back_behind_it(server: Server, lstm_only: Path) -> None:
    add(Spec(hidden=8, layers=2, seed=50), lstm_only, "lstm", 2)
    server.process.line("serving lstm version 2")

    def run(disturb: Callable[[], None]) -> list[np.ndarray]:
        client = tidegate.connect(server.address, **PATIENT)
        with client, client.sequence("lstm", version=1) as sequence:
            answers = [whole(sequence.step(row)) for row in ROWS[0, :13]]
            assert (sequence.move(), sequence.version) == (13, 2)
            answers += [whole(sequence.step(row)) for row in ROWS[0, 13:15]]
            disturb()
            return answers + [whole(answer) for answer in sequence.stream(ROWS[0, 15:40])]

    expected = run(lambda: None)
    np.testing.assert_array_equal(run(server.kill), expected)


def test_members_of_a_fleet_that_rest_go_on_with_those_that_do_not(server: Server) -> None:
    expected = undisturbed(server.address)
    with (
        tidegate.connect(server.address, **PATIENT) as client,
        client.fleet("lstm", 3) as fleet,
    ):
        for step in range(40):
            fleet.step(ROWS[0, step : step + 1], members=[0])
        server.kill()
        blocks = [fleet.step(np.stack([ROWS[0, 40], ROWS[1, 0], ROWS[2, 0]]))]
        server.kill()
        blocks.append(fleet.step(np.stack([ROWS[0, 41], ROWS[1, 1], ROWS[2, 1]])))
    for at, block in enumerate(blocks):
        assert block.steps.tolist() == [40 + at, at, at]
        wanted = [expected[0][40 + at], expected[1][at], expected[2][at]]
        np.testing.assert_array_equal(np.concatenate([block.output.reshape(3, -1), block.trace], axis=1), wanted)


@pytest.fixture
def small(start: Callable[..., RunningServer], lstm_only: Path, tmp_path: Path) -> Server:
    """One that takes two sequences."""
    return Server(start, lstm_only, tmp_path, "--max-sequences", "2")


async def test_a_sequence_waits_for_room_where_it_is_resumed(small: Server) -> None:
    expected = undisturbed(small.address)[0]
    full = threading.Event()  # before that the client is not to come back
    late = replace(SOON, chance=lambda: 0.5 * full.wait(240))
    with tidegate.connect(small.address, timeout=240, resuming=late) as client, client.sequence("lstm") as sequence:
        sequence.chunk(ROWS[0, :5])
        small.kill()
        small.process.ready()
        async with RawStream(small.address) as others:
            await others.say(open_(count=2))
            await others.hear()
            full.set()
            step = asyncio.create_task(asyncio.to_thread(sequence.step, ROWS[0, 5]))
            while not sequence._connection.talk.resumption.deferred:  # noqa: ASYNC110 - a thread has no event to wait for
                await asyncio.sleep(0.01)
            await others.say(close(count=1))
            answer = await step
    np.testing.assert_array_equal(whole(answer), expected[5])


async def test_a_sequence_that_finds_no_room_in_time_is_lost_for_that_reason(small: Server) -> None:
    full = threading.Event()
    late = replace(SOON, chance=lambda: 0.5 * full.wait(240))
    client = tidegate.connect(small.address, timeout=240, resuming=late, resume_within=3.0)
    with client, client.sequence("lstm") as sequence:
        sequence.chunk(ROWS[0, :5])
        small.kill()
        small.process.ready()
        async with RawStream(small.address) as others:
            await others.say(open_(count=2))
            await others.hear()
            full.set()
            with pytest.raises(tidegate.SequenceLost, match="TOO_MANY_SEQUENCES"):
                await asyncio.to_thread(sequence.step, ROWS[0, 5])
