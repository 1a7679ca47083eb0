"""The log of the real server: a line for each sequence that leaves, and for each refusal, as JSON."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.processes.child import free_port
from tests.observing.test_metrics import page, resume
from tests.raw_stream import RawStream, close, open_, steps

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.running_server import RunningServer

ROWS = np.random.default_rng(8).standard_normal((8, 3), dtype=np.float32)


def records(server: RunningServer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.lines]


async def test_each_sequence_leaves_a_line_that_says_whose_it_was_how_many_steps_and_why(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    server = start(lstm_only, "--log-format", "json", "--log-level", "debug").ready()
    async with RawStream(server.address) as first, RawStream(server.address) as second:
        opened = await first.ask(open_(count=3, owner="press 4"))
        await first.run(0, 0, ROWS[:5])
        await first.ask(close(2))
        taken = await second.ask(resume([opened.sequence_ids[0]], opened.resume_token, [5]))
        at = taken.next_steps[0]  # of the newest checkpoint that there was
        await first.hear()
        await second.run(0, at, ROWS[at:])
    await asyncio.to_thread(server.line, '"why": "disconnected".*|disconnected')
    server.terminate()
    assert server.wait() == 0
    said = [record for record in records(server) if record.get("event") == "sequence"]
    lives = [(one["id"], one["why"], one["steps"], one["resumed"], one["owner"].split(" ", 1)[1]) for one in said]
    a, b, c = opened.sequence_ids
    assert sorted(lives) == sorted(
        [
            *((each, "opened", 0, False, "press 4") for each in (a, b, c)),
            (c, "closed", 0, False, "press 4"),
            (a, "taken_over", 5, False, "press 4"),
            (a, "resumed", at, True, "press 4"),
            (a, "disconnected", 8, True, "press 4"),
            (b, "disconnected", 0, False, "press 4"),
        ]
    )
    assert {(one["model"], one["version"]) for one in said} == {("lstm", 1)}
    assert {record["logger"].split(".")[0] for record in records(server)} <= {"server", "stepgraph"}
    assert opened.resume_token not in server.log


async def test_refusals_have_lines_with_their_reason_and_sequence_and_are_counted_by_reason_and_token(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    port = free_port()
    server = start(lstm_only, "--metrics-port", str(port)).ready()
    async with RawStream(server.address) as stream:
        opened = await stream.ask(open_())
        await stream.ask(steps(0, 0, ROWS[:2, :2]))
        for _ in range(200):
            await stream.ask(steps(0, 3, ROWS[:1]))
        await stream.ask(open_(1, "nothing"))
        seen = await page(port)
    line = await asyncio.to_thread(server.line, "steps of ip.*WRONG_SHAPE.*")
    assert line.string.rstrip().endswith(f"(sequence {opened.sequence_ids[0]})")
    assert seen("refusals_total", reason="wrong_shape", owner="none") == 1
    assert seen("refusals_total", reason="wrong_step", owner="none") == 200
    assert seen("refusals_total", reason="unknown_model", owner="none") == 1
    server.terminate()
    server.wait()
    assert len(re.findall("WRONG_STEP: ", server.log)) < 100
    assert re.search(r"\d+ more refusals have no line of their own: \d+ WRONG_STEP of none", server.log)
