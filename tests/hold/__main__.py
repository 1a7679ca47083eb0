"""Holds servers to their promises for a long time: `make hold`. HOLD_MINUTES is how long, HOLD_SEED what is done.

In turns one server with SQLite and three replicas with a Valkey are killed, 1,000 times an hour, under clients that do
everything that a sequence can do; every answer is compared with one computed here. Beside them one server lives through
all of it, with the same clients, and with a million fuzzed messages an hour, floods and attacks; its memory is watched,
and what a bystander has to wait.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bench import report
from bench.attacks.speech import MODEL as ATTACKED
from bench.processes.cache import Cache
from bench.processes.child import Child
from tests.hold.cluster import OFTEN, Cluster
from tests.hold.fuzz import Fuzz
from tests.hold.tally import Tally, line, table
from tests.hold.wanderer import Wanderer
from tests.running_server import ROOT, RunningServer
from tests.server.world import SOURCE, versions
from tests.shelf import MODEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from stepgraph.model import LoadedModel

MINUTES = float(os.environ.get("HOLD_MINUTES", "60"))
SEED = int(os.environ.get("HOLD_SEED", str(time.time_ns() % 10**6)))
KILLS, FUZZED = 1_000, 1_000_000  # an hour
ROUND = 20  # kills between two moments at which everything has to be answered
CLIENTS = 3
SETTLE = 120.0  # seconds within which everything is answered once nobody is killed any more
WATCH = 5.0  # seconds between two looks at the memory and the bystander


class Hold:
    """One run."""

    def __init__(self, folder: Path, tally: Tally) -> None:
        self._folder, self._tally = folder, tally
        self._chance = random.Random(SEED)  # noqa: S311 - no secret
        self._end = time.monotonic() + MINUTES * 60
        self.loaded: Mapping[int, LoadedModel] = versions(folder)
        self.models = self._repository()

    def _repository(self) -> Path:
        """Both versions of one model, and the one that is attacked."""
        models = self._folder / "models"
        for version, file in ((1, SOURCE), (2, self._folder / "other.onnx")):
            (models / MODEL / str(version)).mkdir(parents=True)
            shutil.copy(file, models / MODEL / str(version) / "model.onnx")
        shutil.copytree(Cache().models / ATTACKED, models / ATTACKED)
        return models

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self._end

    # Servers that are killed ------------------------------------------------------------------------------------------

    async def killed(self) -> None:
        """In turns SQLite and Valkey, a round each."""
        while not self.over:
            folder = Path(self._folder, f"round{self._tally.rounds}")
            folder.mkdir()  # noqa: ASYNC240 - at once
            replicas = 1 if self._tally.rounds % 2 == 0 else 3
            async with Cluster(self.models, folder, replicas, self._chance, self._tally) as cluster:
                await self._round(cluster)
            self._tally.rounds += 1

    async def _round(self, cluster: Cluster) -> None:
        clients = [Wanderer(self.loaded, cluster.address, self._chance, self._tally) for _ in range(CLIENTS)]
        running = [asyncio.create_task(client.run()) for client in clients]
        for _ in range(ROUND):
            pause = 2 * self._chance.random() * 3600 / KILLS
            began = time.monotonic()
            await cluster.kill()
            await asyncio.sleep(max(self._chance.uniform(0.2, 1.5), pause - (time.monotonic() - began)))
            if self.over:
                break
        await self._finish(clients, running)

    async def _finish(self, clients: list[Wanderer], running: list[asyncio.Task[None]]) -> None:
        for client in clients:
            client.stop.set()
        _, waiting = await asyncio.wait(running, timeout=SETTLE)
        for task in waiting:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if waiting:
            left = [one for client in clients for one in client.client.all if not one.settled]
            self._tally.fault(f"not answered after {SETTLE:.0f} s: {left}")

    # The server that lives --------------------------------------------------------------------------------------------

    async def lived(self, server: RunningServer, bystander: Child) -> None:
        """Clients, fuzzed messages and attacks, until the time is up."""
        clients = [Wanderer(self.loaded, lambda: server.address, self._chance, self._tally)]
        running = [asyncio.create_task(client.run()) for client in clients]
        port = int(server.address.rpartition(":")[2])
        others = [
            asyncio.create_task(Fuzz(server.address, self._chance, self._tally).run(FUZZED / 3600)),
            asyncio.create_task(self._attack(port)),
        ]
        while not self.over:
            await asyncio.to_thread(bystander.ask, {"ask": "begin", "port": port, "model": ATTACKED})
            await asyncio.sleep(WATCH)
            self._tally.waited((await asyncio.to_thread(bystander.ask, {"ask": "end"}))["took"])
            self._tally.memory.append(server.resident)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._finish(clients, running)
        if server.process.poll() is not None:
            self._tally.fault(f"the server that was to live has ended:\n{server.log[-2000:]}")

    async def _attack(self, port: int) -> None:
        command = [sys.executable, "-m", "bench.attacks", str(port)]
        attacker = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        assert attacker.stdout is not None
        try:
            while await attacker.stdout.readline():
                self._tally.attacks += 1
        finally:
            attacker.kill()
            await attacker.wait()


async def show(hold: Hold, tally: Tally, console: Console) -> None:
    """Says where a run is, in place in a terminal, now and then elsewhere."""
    began = asyncio.get_running_loop().time()
    with console.status("starting") as status:
        while not hold.over:
            await asyncio.sleep(1 if console.is_terminal else 30)
            minutes = (asyncio.get_running_loop().time() - began) / 60
            status.update(said := f"{minutes:.1f} min: {line(tally)}")
            if not console.is_terminal:
                console.print(said)


async def run(tally: Tally, console: Console) -> None:
    """All of it at once."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        hold = Hold(folder, tally)
        server = stack.enter_context(
            RunningServer(hold.models, "--store", f"sqlite:{folder / 'lived.sqlite'}", "--idle-seconds", "2", *OFTEN)
        )
        await asyncio.to_thread(server.ready)
        bystander = stack.enter_context(Child("bystander", ["bench.client.bystander"], folder / "bystander.log"))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hold.killed())
            tasks.create_task(hold.lived(server, bystander))
            tasks.create_task(show(hold, tally, console))


def main() -> int:
    """Runs and prints; 1 if a promise did not hold."""
    console = report.console()
    console.print(f"HOLD_SEED={SEED}, {MINUTES:g} minutes")
    subprocess.run([sys.executable, "-m", "bench.models", str(Cache().root)], check=True, timeout=300)
    tally = Tally()
    try:
        asyncio.run(run(tally, console))
    except KeyboardInterrupt:
        console.print("interrupted")
    console.print(table(tally, MINUTES))
    for fault in tally.faults[:20]:
        console.print(fault[:500])
    return int(not tally.well)


if __name__ == "__main__":
    sys.exit(main())
