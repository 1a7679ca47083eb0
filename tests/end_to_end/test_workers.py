"""`--workers 2`: two real servers on one port and one store; what happens when one, or their parent, is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from tests.raw_stream import RawStream, open_, rows_of, steps
from tidegate.v1 import sequence_pb2
from tidegate.v1.sequence_pb2 import StreamRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.running_server import RunningServer

ROWS = np.random.default_rng(13).standard_normal((40, 3), dtype=np.float32)
CUT = 20
MANY = 24  # connections: that the kernel gives them all to one of two workers does not happen


@pytest.fixture
def pair(start: Callable[..., RunningServer], lstm_only: Path, tmp_path: Path) -> RunningServer:
    server = start(lstm_only, "--workers", "2", "--store", f"sqlite:{tmp_path / 'sequences.sqlite'}").ready()
    server.line("worker 1 serves")
    return server


def process_of(server: RunningServer, worker: int) -> int:
    return int(server.line(rf"worker {worker} serves \(process (\d+)\)").group(1))


async def test_the_sequences_of_a_killed_worker_go_on_at_the_other_to_the_last_bit(pair: RunningServer) -> None:
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(RawStream(pair.address)) for _ in range(MANY)]
        opened = [await stream.ask(open_(announce=True)) for stream in streams]
        heard = [await begun(stream) for stream in streams]
        os.kill(process_of(pair, 0), signal.SIGKILL)
        await asyncio.to_thread(pair.line, "worker 0 has ended")
        orphans = [i for i, stream in enumerate(streams) if not await goes_on(stream, heard[i])]
        assert 0 < len(orphans) < len(streams)
        for i in orphans:
            heard[i] = await resumed(pair, opened[i], heard[i])
    async with RawStream(pair.address) as stream:
        await stream.ask(open_())
        assert heard == [await stream.run(0, 0, ROWS)] * len(heard)


async def test_a_worker_that_was_killed_is_started_again(pair: RunningServer) -> None:
    before = len(pair.lines)
    os.kill(process_of(pair, 1), signal.SIGKILL)
    await asyncio.to_thread(pair.line, r"worker 1 has ended \(exit status -9\)", before)
    again = await asyncio.to_thread(pair.line, r"worker 1 serves \(process (\d+)\)", before)
    os.kill(process_of(pair, 0), signal.SIGKILL)
    await asyncio.to_thread(pair.line, "worker 0 has ended", before)
    async with RawStream(pair.address) as stream:
        await stream.ask(open_())
        assert len(await stream.run(0, 0, ROWS)) == len(ROWS)
    assert int(again.group(1)) != process_of(pair, 0)


def test_sigterm_stops_every_worker_in_order(pair: RunningServer) -> None:
    pair.terminate()
    assert pair.wait() == 0
    assert len([line for line in pair.lines if line.endswith("server.operations.lifecycle: stopped\n")]) == 2
    assert "all 2 workers have stopped" in pair.lines[-1]


def test_workers_whose_parent_is_killed_stop_by_themselves(pair: RunningServer) -> None:
    pair.process.kill()
    pair.wait()  # reads the log until the last of them has closed it
    assert len([line for line in pair.lines if line.endswith("server.operations.lifecycle: stopped\n")]) == 2


def test_a_port_that_another_server_has_is_not_shared(
    start: Callable[..., RunningServer], lstm_only: Path, pair: RunningServer, tmp_path: Path
) -> None:
    port = pair.address.rpartition(":")[2]
    other = start(lstm_only, "--workers", "2", "--port", port, "--store", f"sqlite:{tmp_path / 'sequences.sqlite'}")
    assert other.wait() == 1
    assert other.lines[-1].endswith(f"cannot listen on 127.0.0.1:{port}: another program listens there already\n")


def test_workers_that_cannot_start_end_with_the_reason_of_the_first(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    server = start(lstm_only, "--workers", "2", "--store", f"sqlite:{lstm_only}")
    assert server.wait() == 1
    reasons = [line for line in server.lines if "ERROR worker 0 server:" in line]
    assert len(reasons) == 1
    assert str(lstm_only) in reasons[0]
    assert "worker 0 could not start" in server.lines[-1]


async def begun(stream: RawStream) -> list[bytes]:
    """Takes the first steps, and waits until a checkpoint of them is written."""
    await stream.say(steps(0, 0, ROWS[:CUT]))
    heard: list[bytes] = []
    safe = False
    while not safe or len(heard) < CUT:
        message = await stream.hear()
        if isinstance(message, sequence_pb2.Answers):
            heard.extend(rows_of(message))
        safe = safe or isinstance(message, sequence_pb2.Checkpointed) or message.checkpointed > 0
    return heard


async def goes_on(stream: RawStream, heard: list[bytes]) -> bool:
    """Takes the rest of the steps, if its worker lives."""
    try:
        heard.extend(await stream.run(0, CUT, ROWS[CUT:]))
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return False
    return True


async def resumed(server: RunningServer, opened: sequence_pb2.Opened, heard: list[bytes]) -> list[bytes]:
    claim = sequence_pb2.Resume(
        sequence_ids=opened.sequence_ids, resume_token=opened.resume_token, answered=[len(heard)]
    )
    async with RawStream(server.address) as stream:
        again = await stream.ask(StreamRequest(resume=claim))
        assert list(again.sequence_ids) == list(opened.sequence_ids)
        begin = again.next_steps[0]
        return heard[:begin] + await stream.run(0, begin, ROWS[begin:])
