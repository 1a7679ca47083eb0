"""The page for Prometheus, read over HTTP from the real server, beside numbers that the client counted itself."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from bench.processes.child import free_port
from tests.raw_stream import RawStream, close, fleet, open_, steps
from tests.valkey_server import RunningValkey
from tidegate.v1 import error_pb2, sequence_pb2
from tidegate.v1.sequence_pb2 import StreamRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.running_server import RunningServer

ROWS = np.random.default_rng(8).standard_normal((8, 3), dtype=np.float32)
SELDOM = ("--checkpoint-ms", "100000", "--checkpoint-steps", "100000")


class Page:
    """One scrape."""

    def __init__(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as page:
            text = page.read().decode()
        self.samples = [s for family in text_string_to_metric_families(text) for s in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The one sample of this name, of model lstm unless there is a reason."""
        wanted = (
            labels
            if {"reason", "state"} & set(labels) or not self._by_model(name)
            else {"model": "lstm", "version": "1", **labels}
        )
        (value,) = (s.value for s in self.samples if s.name == f"tidegate_{name}" and s.labels == wanted)
        return value

    def _by_model(self, name: str) -> bool:
        return any(s.name == f"tidegate_{name}" and "model" in s.labels for s in self.samples)


async def page(port: int) -> Page:
    return await asyncio.to_thread(Page, port)


def resume(ids: list[str], token: str, answered: list[int]) -> StreamRequest:
    return StreamRequest(resume=sequence_pb2.Resume(sequence_ids=ids, resume_token=token, answered=answered))


async def test_steps_batches_sequences_and_lag_are_those_that_the_client_counts(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    port = free_port()
    server = start(lstm_only, "--metrics-port", str(port), *SELDOM).ready()
    async with RawStream(server.address) as stream:
        await stream.ask(open_(count=3))
        await stream.run(0, 0, ROWS[:5])
        await stream.ask(steps(1, 0, ROWS[:7]))
        await stream.ask(fleet([0, 1, 2], [5, 7, 0], ROWS[:3]))
        behind = await page(port)
        await stream.ask(close(2))
        seen = await page(port)
    assert seen("streams_open") == 1
    assert seen("streams_limit") >= 16
    assert seen("sequences_limit") == 65_536
    assert seen("loop_late_seconds_count") >= 0
    assert [seen("models", state=state) for state in ("ready", "refused", "loading")] == [1, 0, 0]
    assert seen("sequences_opened_total") == 3
    assert seen("sequences_closed_total") == 1
    assert seen("sequences_open") == 2
    assert seen("sequences_asleep") == 0
    assert seen("steps_total") == seen("batch_rows_sum") == 5 + 7 + 3
    assert seen("batch_rows_count") == seen("step_running_seconds_count") == 5 + 7 + 1
    assert seen("batch_rows_bucket", le="1.0") == seen("batch_rows_bucket", le="2.0") == 5 + 7
    assert seen("batch_rows_bucket", le="4.0") == seen("batch_rows_bucket", le="+Inf") == 13
    assert seen("step_waiting_seconds_count") == 7  # messages
    assert 0 < seen("step_running_seconds_sum") < 10
    assert behind("checkpoint_lag_steps") == 8
    assert 0 < behind("checkpoint_lag_seconds") < 60


async def test_what_is_resumed_taken_over_and_replayed_is_counted(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    port = free_port()
    server = start(lstm_only, "--metrics-port", str(port), *SELDOM).ready()
    async with RawStream(server.address) as first, RawStream(server.address) as second:
        opened = await first.ask(open_(count=2))
        await first.run(0, 0, ROWS[:6])
        again = await second.ask(resume(list(opened.sequence_ids), opened.resume_token, [4, 0]))
        assert (await first.hear()).error.reason == error_pb2.REASON_TAKEN_OVER
        begin = again.next_steps[0]
        assert begin < 4
        before = await page(port)
        await second.run(0, begin, ROWS[begin:3])
        half_way = await page(port)
        await second.run(0, 3, ROWS[3:])
        await second.ask(close(0, 2))
        seen = await page(port)
    assert seen("sequences_resumed_total") == 2
    assert seen("sequences_lost_total", reason="taken_over") == 2
    assert [p("steps_replayed_total") for p in (before, half_way, seen)] == [0, 3 - begin, 4 - begin]
    assert seen("checkpoints_written_total") >= 2
    assert seen("store_up") == 1
    assert seen("store_errors_total") == 0
    took, waited = seen("store_seconds_count"), seen("store_waiting_seconds_count")
    assert 2 < took <= waited <= took + 1, "one call may be under way"
    assert seen("store_limit_bytes") == 16_384 * 2**20
    labels = {label for s in seen.samples if s.name.startswith("tidegate_") for label in s.labels}
    assert labels == {"model", "version", "reason", "owner", "state", "le"}


async def test_a_client_that_claims_to_have_every_answer_is_served_and_counted_by_what_it_sends(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    port = free_port()
    server = start(lstm_only, "--metrics-port", str(port), *SELDOM).ready()
    async with RawStream(server.address) as stream:
        opened = await stream.ask(open_())
        heard = await stream.run(0, 0, ROWS[:3])
    async with RawStream(server.address) as stream:
        again = await stream.ask(resume(list(opened.sequence_ids), opened.resume_token, [2**64 - 1]))
        begin = again.next_steps[0]
        await stream.run(0, begin, ROWS[begin:])
        seen = await page(port)
    assert len(heard) == 3
    assert seen("steps_replayed_total") == len(ROWS) - begin


async def test_a_dead_store_shows_and_so_does_its_recovery(
    start: Callable[..., RunningServer], lstm_only: Path, tmp_path: Path
) -> None:
    port = free_port()
    with RunningValkey(tmp_path) as valkey:
        server = start(lstm_only, "--metrics-port", str(port), "--store", valkey.url).ready()
        async with RawStream(server.address) as stream:
            await stream.ask(open_())
            valkey.kill()
            await stream.run(0, 0, ROWS)
            await asyncio.to_thread(server.line, "store of checkpoints fails")
            dead = await page(port)
            valkey.start()
            await asyncio.to_thread(server.line, "store of checkpoints answers again")
            alive = await page(port)
    assert (dead("store_up"), alive("store_up")) == (0, 1)
    assert dead("store_errors_total") >= 1
    assert dead("checkpoint_lag_steps") == len(ROWS)
    assert dead("checkpoint_lag_seconds") > 0


def test_a_port_for_metrics_that_is_taken_ends_the_server_with_a_sentence(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = start(lstm_only, "--metrics-port", str(taken.getsockname()[1]))
        assert server.wait() == 1
    assert "for metrics: another program listens there already" in server.lines[-1]
