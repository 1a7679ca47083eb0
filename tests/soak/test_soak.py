"""The short form of `make soak`: what a server holds for its clients is gone when they are."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from bench.processes.child import free_port
from tests.running_server import ROOT, RunningServer
from tests.soak.gauges import Held, held
from tests.soak.population import Population

if TYPE_CHECKING:
    from pathlib import Path

SEQUENCES = 500
STEPS = 15_000


def population(address: str, count: int, steps: int, resumes: int) -> Population:
    """So many sequences, until they have taken so many steps, and clients have taken up those of so many others.

    On a machine where all clients die late the latter take longer, ten times as many steps at most.
    """

    def over() -> bool:
        taken = made.counts["steps"]
        return taken > 10 * steps or (taken > steps and made.counts["resumes by another client"] >= resumes)

    chance = random.Random(count)  # noqa: S311 - no secret
    made = Population(address, count, chance, pause=2, death=0.1, over=over)
    return made


async def settled(metrics: int, before: Held) -> Held:
    """What is held once the server has noticed that its clients are gone."""
    async with asyncio.timeout(120):
        after = await held(metrics)
        while after.counts != before.counts:
            await asyncio.sleep(0.1)
            after = await held(metrics)
    return after


async def test_sequences_that_open_step_die_and_are_resumed_at_random_leave_no_slot_task_or_descriptor(
    tmp_path: Path,
) -> None:
    metrics = free_port()
    keeping = ("--store", f"sqlite:{tmp_path / 'store'}", "--idle-seconds", "0.5", "--metrics-port", str(metrics))
    with RunningServer(ROOT / "models", *keeping) as server:
        await asyncio.to_thread(server.ready)
        await population(server.address, 20, 100, 0).run()  # what is made once is made now
        before = await held(metrics)
        soaked = population(server.address, SEQUENCES, STEPS, 1)
        await soaked.run()
        assert not soaked.faults
        assert soaked.counts["resumes by another client"] > 0
        assert (await settled(metrics, before)).counts == before.counts
