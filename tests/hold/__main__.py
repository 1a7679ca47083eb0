"""Holds servers to their promises for a long time: `make hold`. HOLD_MINUTES is how long, HOLD_SEED what is done.

A server with SQLite and three replicas with a Valkey are killed, 1,000 times an hour, under clients that do everything
that a sequence can do, natively and by the Open Inference Protocol; every answer is compared with one computed here.
Beside them one server lives through all of it, with such a client, and with a million fuzzed messages an hour, floods
and attacks; its memory is watched, and what a bystander has to wait. `.hold/log` says where a run is, `.hold/table.md`
what it came to.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bench import report
from bench.attacks.speech import MODEL as ATTACKED
from bench.processes import exports
from bench.processes.cache import Cache
from tests.hold.cluster import KINDS, Cluster
from tests.hold.goal import Goal
from tests.hold.lived import Lived
from tests.hold.tally import Tally, line, markdown, table
from tests.hold.wanderer import Wanderer
from tests.running_server import ROOT
from tests.server.world import SOURCE, versions
from tests.shelf import MODEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from stepgraph.model import LoadedModel

MINUTES = float(os.environ.get("HOLD_MINUTES", "60"))
SEED = int(os.environ.get("HOLD_SEED", str(time.time_ns() % 10**6)))
CLIENTS = 2  # at a time, of each cluster
LIFE = (10.0, 60.0)  # seconds of a client
SETTLE = 120.0  # seconds within which everything is answered that a client has asked, whoever is killed meanwhile
SAY = 15.0  # seconds between two lines of the log
FOLDER = ROOT / ".hold"


class Hold:
    """One run."""

    def __init__(self, folder: Path, tally: Tally, goal: Goal) -> None:
        self._folder, self._tally, self._goal = folder, tally, goal
        self._chance = random.Random(SEED)  # noqa: S311 - no secret
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

    async def run(self) -> None:
        """All of it at once."""
        async with AsyncExitStack() as stack:
            clusters = [
                Cluster(kind, self.models, self._folder / kind.name, self._chance, self._tally) for kind in KINDS
            ]
            for cluster in clusters:
                await stack.enter_async_context(cluster)
            lived = await stack.enter_async_context(Lived(self.models, self._folder, self._chance, self._tally))
            self._goal.begin()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._clients(lived, for_ever=True))
                tasks.create_task(lived.trouble(self._goal))
                for cluster in clusters:
                    tasks.create_task(cluster.kill(self._goal))
                    for _ in range(CLIENTS):
                        tasks.create_task(self._clients(cluster))
            lived.check()

    async def _clients(self, servers: Cluster | Lived, *, for_ever: bool = False) -> None:
        """One client after the other; some take up the sequences that the one before has left."""
        before = None
        while not self._goal.over(self._tally):
            client = Wanderer(self.loaded, servers.address, self._chance, self._tally, before)
            self._tally.clients += 1
            running = asyncio.create_task(client.run())
            end = time.monotonic() + self._chance.uniform(*LIFE)
            while not self._goal.over(self._tally) and (for_ever or time.monotonic() < end):
                if running in (await asyncio.wait((running,), timeout=0.2))[0]:
                    break
            if not await self._settled(client, running, servers):
                return
            before = client
            if self._goal.over(self._tally) or self._chance.random() < 0.5:
                client.compare()  # and leaves nothing

    async def _settled(self, client: Wanderer, running: asyncio.Task[None], servers: Cluster | Lived) -> bool:
        """Whether it had all its answers, if need be once its servers are left alone for a while."""
        client.stop.set()
        _, waiting = await asyncio.wait((running,), timeout=SETTLE)
        if waiting:
            began, story = time.monotonic(), client.story
            with servers.spared():
                _, waiting = await asyncio.wait((running,), timeout=SETTLE)
            self._tally.late.append(SETTLE + time.monotonic() - began)
            self._tally.notes.append(f"late: {story}")
        if waiting:
            self._tally.fault(f"not answered after {2 * SETTLE:.0f} s: {client.story}")
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        return not waiting


async def show(goal: Goal, tally: Tally, console: Console) -> None:
    """Writes into the log where a run is, and shows it in place in a terminal."""
    said, faults = 0.0, 0
    with console.status("starting") as status, (FOLDER / "log").open("w", encoding="utf-8", buffering=1) as log:
        while True:
            text = f"{goal.lasted:.1f} min: {line(tally)}"
            status.update(text)
            now = time.strftime("%H:%M:%S")
            for fault in tally.faults[faults:]:
                log.write(f"{now} FAULT: {fault[:8000]}\n")
            while tally.notes:
                log.write(f"{now} {tally.notes.pop(0)[:8000]}\n")
            faults = len(tally.faults)
            if time.monotonic() - said > SAY:
                said = time.monotonic()
                log.write(f"{now} {text}\n")
                if not console.is_terminal:
                    console.print(text)
            await asyncio.sleep(1)


async def run(goal: Goal, tally: Tally, console: Console) -> None:
    """Until it is over."""
    with TemporaryDirectory() as folder:
        showing = asyncio.create_task(show(goal, tally, console))
        try:
            await Hold(Path(folder), tally, goal).run()
        finally:
            showing.cancel()


def main() -> int:
    """Runs and prints; 1 if a promise did not hold."""
    console = report.console()
    FOLDER.mkdir(exist_ok=True)
    console.print(f"HOLD_SEED={SEED}, {MINUTES:g} minutes; {FOLDER / 'log'}")
    exports.write_missing(Cache())
    tally, goal = Tally(), Goal(MINUTES)
    try:
        asyncio.run(run(goal, tally, console))
    except KeyboardInterrupt:
        console.print("interrupted")
    minutes = goal.lasted
    console.print(table(tally, minutes))
    (FOLDER / "table.md").write_text(markdown(tally, minutes), encoding="utf-8")
    for fault in tally.faults[:20]:
        console.print(fault[:500])
    if not goal.reached(tally):
        console.print(f"the counts were not reached: {goal.kills:,} kills, {goal.fuzzed:,} fuzzed messages")
    return int(not (tally.well and goal.reached(tally)))


if __name__ == "__main__":
    sys.exit(main())
