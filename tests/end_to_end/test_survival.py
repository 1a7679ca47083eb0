"""Fifty sequences, and servers, connections and stores that do not last: every answer once, in order, to the bit."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import tidegate
from tests.end_to_end.traffic import COUNT, Traffic
from tests.raw_stream import RawStream, bits, open_, pace, steps
from tests.running_server import PATIENCE, ROOT, RunningServer
from tests.valkey_server import RunningValkey
from tidegate.v1 import error_pb2, sequence_pb2
from tidegate.v1.sequence_pb2 import StreamRequest

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = ROOT / "models"
STEPS = 100
SHARED = 66  # of the steps, those that two servers take
KILLS = 10  # of a server; `make hold` has a thousand
CUTS = 20  # of connections
SEED = int(os.environ.get("TIDEGATE_TEST_SEED", str(time.time_ns() % 10**6)))
OUTAGE = float(os.environ.get("TIDEGATE_TEST_OUTAGE", "1"))  # seconds that a store is dead, at least
OFTEN = ("--checkpoint-ms", "20", "--checkpoint-steps", "16")
ROWS = np.random.default_rng(11).normal(size=(COUNT, STEPS, 3)).astype(np.float32)
FACTOR = 5  # of a step's median time, in the same run
BUSY = 0.1  # seconds more, in which the machine may be busy; who waited for a store would wait far longer


@pytest.fixture
def chance() -> random.Random:
    print(f"TIDEGATE_TEST_SEED={SEED}")
    return random.Random(SEED)  # noqa: S311 - no secret


@pytest.fixture(scope="module")
def expected() -> list[list[bytes]]:
    """What an undisturbed run answers."""
    with RunningServer(MODELS) as server:
        server.ready()
        traffic = Traffic(ROWS, lambda: server.address, patience=PATIENCE)
        asyncio.run(traffic.run())
        assert traffic.streams == 1
        return traffic.answers


class Moments:
    """Calls at random numbers of answers, `count` times before the end."""

    def __init__(self, chance: random.Random, count: int, call: Callable[[], None]) -> None:
        self._at = sorted(chance.sample(range(COUNT, COUNT * STEPS - COUNT), count), reverse=True)
        self._call = call

    def heard(self, answers: int) -> None:
        if self._at and answers >= self._at[-1]:
            while self._at and answers >= self._at[-1]:
                self._at.pop()
                self._call()

    @property
    def left(self) -> int:
        return len(self._at)


async def test_fifty_sequences_outlive_kills_of_their_server(
    start: Callable[..., RunningServer], chance: random.Random, expected: list[list[bytes]], tmp_path: Path
) -> None:
    def server() -> RunningServer:
        return start(MODELS, "--store", f"sqlite:{tmp_path / 'sequences.sqlite'}", *OFTEN)

    running = [server().ready()]

    def kill() -> None:
        running[-1].process.kill()
        running.append(server().ready())

    moments = Moments(chance, KILLS, kill)
    traffic = Traffic(ROWS, lambda: running[-1].address, heard=moments.heard)
    await traffic.run()
    assert traffic.answers == expected
    assert (moments.left, len(running)) == (0, KILLS + 1)
    assert traffic.client.replayed > 0


class Proxy:
    """Passes bytes on until a random number of them; then it cuts the connection, or goes silent and keeps it open."""

    def __init__(self, chance: random.Random, cuts: int, target: str) -> None:
        self._chance, self._left = chance, cuts
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._tasks: set[asyncio.Task[None]] = set()
        self.cuts = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there, back = await asyncio.open_connection(self._host, self._port)
        up, down, silent = self._lot(), self._lot(), self._chance.random() < 0.3
        passing = [asyncio.create_task(self._pass(*way)) for way in ((reader, back, up), (there, writer, down))]
        with suppress(asyncio.CancelledError):  # at the end of the test
            done, _ = await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
            if any(one.exception() is None and one.result() for one in done):
                self.cuts += 1
                if silent:
                    await asyncio.wait(passing, timeout=5)  # the other direction goes on
        for one in passing:
            one.cancel()
        await asyncio.gather(*passing, return_exceptions=True)
        for end in (writer, back):
            end.transport.abort()

    def _lot(self) -> int:
        if self.cuts >= self._left:
            return 10**12
        return self._chance.randrange(1, 33_000)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int) -> bool:
        """Whether it stopped by itself."""
        while data := await reader.read(min(65_536, most)):
            writer.write(data)
            await writer.drain()
            most -= len(data)
            if not most:
                return True
        return False


async def test_fifty_sequences_outlive_connections_that_are_cut_at_random_bytes(
    start: Callable[..., RunningServer], chance: random.Random, expected: list[list[bytes]]
) -> None:
    server = start(MODELS, *OFTEN).ready()
    async with Proxy(chance, CUTS, server.address) as proxy:
        traffic = Traffic(ROWS, lambda: proxy.address)
        await traffic.run()
    assert traffic.answers == expected
    assert proxy.cuts >= CUTS


# Three replicas -------------------------------------------------------------------------------------------------------


@pytest.fixture
def valkey(tmp_path: Path) -> RunningValkey:
    with RunningValkey(tmp_path) as running:
        yield running


async def test_fifty_sequences_outlive_replicas_that_are_killed_and_paused(
    start: Callable[..., RunningServer], chance: random.Random, expected: list[list[bytes]], valkey: RunningValkey
) -> None:
    def replica() -> RunningServer:
        return start(MODELS, "--store", valkey.url, *OFTEN)

    replicas = [replica() for _ in range(3)]
    for one in replicas:
        one.ready()
    at, paused, done = 0, -1, {"kill": 0, "pause": 0}

    def address() -> str:
        nonlocal at
        at = chance.choice([i for i in range(3) if i != paused])
        return replicas[at].address

    def disturb() -> None:
        nonlocal paused
        if paused >= 0:
            replicas[paused].process.send_signal(signal.SIGCONT)
            paused = -1
        if done["pause"] < done["kill"]:
            done["pause"] += 1
            paused = at
            replicas[at].process.send_signal(signal.SIGSTOP)
        else:
            done["kill"] += 1
            replicas[at].process.kill()
            replicas[at] = replica().ready()

    moments = Moments(chance, 8, disturb)
    traffic = Traffic(ROWS, address, heard=moments.heard)
    await traffic.run()
    for one in replicas:
        one.process.send_signal(signal.SIGCONT)
    assert traffic.answers == expected
    assert (moments.left, done) == (0, {"kill": 4, "pause": 4})


async def test_a_server_that_slept_while_another_took_its_sequence_is_refused_and_lets_go(
    start: Callable[..., RunningServer], valkey: RunningValkey
) -> None:
    first, second = (start(MODELS, "--store", valkey.url, *OFTEN) for _ in range(2))
    first.ready()
    second.ready()
    rows = ROWS[0]
    async with RawStream(first.address) as old, RawStream(second.address) as new:
        opened = await old.ask(open_(0, "recall"))
        heard = []
        while (answer := await old.ask(steps(0, len(heard), rows[len(heard)]))).checkpointed == 0:
            heard.append(bits(answer))
            await pace(len(heard))
        heard.append(bits(answer))
        first.process.send_signal(signal.SIGSTOP)
        resume = sequence_pb2.Resume(
            sequence_ids=opened.sequence_ids, resume_token=opened.resume_token, answered=[len(heard)]
        )
        begin = (await new.ask(StreamRequest(resume=resume))).next_steps[0]
        theirs = await new.run(0, begin, rows[begin:SHARED])
        first.process.send_signal(signal.SIGCONT)
        await old.say(steps(0, len(heard), rows[len(heard)]))
        said = {type(one).__name__: one for one in (await old.hear(), await old.hear())}
        assert said["Released"].error.reason == error_pb2.REASON_TAKEN_OVER
        if "Answers" in said:  # the step was answered before the store refused the next checkpoint
            assert bits(said["Answers"]) == theirs[len(heard) - begin]
        else:
            assert said["Failure"].error.reason == error_pb2.REASON_UNKNOWN_HANDLE
        again = await old.ask(steps(0, len(heard) + 1, rows[0]))
        assert again.error.reason == error_pb2.REASON_UNKNOWN_HANDLE
        theirs += await new.run(0, SHARED, rows[SHARED:])  # nothing of the sleeper's came in between
    async with RawStream(first.address) as undisturbed:
        await undisturbed.ask(open_(0, "recall"))
        assert await undisturbed.run(0, 0, rows) == heard[:begin] + theirs


# A store that dies ----------------------------------------------------------------------------------------------------


class StoreHealth:
    """What a server says of its store."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._watch = health_pb2_grpc.HealthStub(self._channel).Watch(
            health_pb2.HealthCheckRequest(service="tidegate.store")
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watch.cancel()
        await self._channel.close()

    async def until(self, serving: bool) -> None:
        wanted = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        async with asyncio.timeout(120):
            while (await self._watch.read()).status != wanted:
                pass


async def outlive(server: RunningServer, die: Callable[[], None], revive: Callable[[], None]) -> None:
    """A store dies under load: steps go on as quickly as before, its health is told, and it comes back by itself."""
    rows = np.random.default_rng(3).normal(size=(100_000, 3)).astype(np.float32)
    took: dict[str, list[float]] = {"before": [], "dead": [], "after": []}
    when, over, enough = "before", False, asyncio.Event()

    async def reached(name: str) -> None:
        while len(took[name]) < 100:
            enough.clear()
            await enough.wait()

    async with RawStream(server.address) as stream, StoreHealth(server.address) as health:
        opened = await stream.ask(open_(0, "recall"))
        await health.until(serving=True)

        async def run() -> list[bytes]:
            heard: list[bytes] = []
            while not over:
                began = time.perf_counter()
                request = steps(0, len(heard), rows[len(heard)])
                request.steps.answered = len(heard)
                heard.append(bits(await stream.ask(request)))
                took[when].append(time.perf_counter() - began)
                enough.set()
                await asyncio.sleep(0.005)  # a client that has something else to do
            return heard

        running = asyncio.create_task(run())
        await reached("before")
        die()
        when, began = "dead", time.monotonic()
        await health.until(serving=False)
        await asyncio.sleep(max(0.0, OUTAGE - (time.monotonic() - began)))  # how long it is dead, no synchronisation
        await reached("dead")
        when = "after"
        revive()
        await health.until(serving=True)
        over = True
        heard = await running
    assert np.median(took["dead"]) < FACTOR * np.median(took["before"]) + BUSY
    server.process.kill()
    assert len(heard) > 200
    assert opened.resume_token
    undisturbed = await asyncio.to_thread(_undisturbed, rows[: len(heard)])
    assert heard == undisturbed


def _undisturbed(rows: np.ndarray) -> list[bytes]:
    async def run() -> list[bytes]:
        async with RawStream(server.address) as stream:
            await stream.ask(open_(0, "recall"))
            return await stream.chunk(0, 0, rows)

    with RunningServer(MODELS) as server:
        server.ready()
        return asyncio.run(run())


async def test_a_valkey_that_dies_and_comes_back_empty_stops_nobody(
    start: Callable[..., RunningServer], valkey: RunningValkey
) -> None:
    await outlive(start(MODELS, "--store", valkey.url, *OFTEN).ready(), valkey.kill, valkey.start)


async def test_a_valkey_that_hangs_stops_nobody(start: Callable[..., RunningServer], valkey: RunningValkey) -> None:
    url = f"{valkey.url}?socket_timeout=0.3"
    await outlive(start(MODELS, "--store", url, *OFTEN).ready(), valkey.pause, valkey.go_on)


async def test_a_server_whose_store_hangs_stops_within_its_grace(
    start: Callable[..., RunningServer], valkey: RunningValkey
) -> None:
    url = f"{valkey.url}?socket_timeout=1000"
    server = start(MODELS, "--store", url, "--grace-seconds", "60", "--store-seconds", "0.5", *OFTEN).ready()
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0, "recall"))
        await stream.ask(steps(0, 0, ROWS[0, 0]))
        valkey.pause()
        await stream.ask(steps(0, 1, ROWS[0, 1]))
        server.terminate()
        released = await stream.hear()
        assert released.error.reason == error_pb2.REASON_DRAINING
        assert await asyncio.to_thread(server.wait) == 0  # long before the store's own patience ends
    assert "the last checkpoints could not be written" in server.log
    valkey.go_on()


async def test_a_sqlite_file_that_another_process_holds_stops_nobody(
    start: Callable[..., RunningServer], tmp_path: Path
) -> None:
    file = tmp_path / "sequences.sqlite"
    server = start(MODELS, "--store", f"sqlite:{file}", *OFTEN).ready()
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        await outlive(server, lambda: other.execute("BEGIN IMMEDIATE"), lambda: other.execute("ROLLBACK"))


def test_a_client_that_keeps_no_more_inputs_waits_for_the_store_and_goes_on(
    start: Callable[..., RunningServer], valkey: RunningValkey
) -> None:
    server = start(MODELS, "--store", valkey.url, *OFTEN).ready()
    few = tidegate.Resuming(keep_steps=20)
    with tidegate.connect(server.address, resuming=few) as client, client.sequence("recall") as sequence:
        first = [sequence.step(row).output for row in ROWS[0, :10]]
        valkey.kill()
        with suppress(tidegate.TimedOut):
            first.extend(sequence.step(row, timeout=4).output for row in ROWS[0, 10:100])
        assert 10 <= len(first) <= 40
        valkey.start()
        rest = [sequence.step(row, timeout=PATIENCE).output for row in ROWS[0, len(first) : 100]]
    with tidegate.connect(server.address) as client, client.sequence("recall") as undisturbed:
        np.testing.assert_array_equal([*first, *rest], undisturbed.chunk(ROWS[0, :100]).output)
