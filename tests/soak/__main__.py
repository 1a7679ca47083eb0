"""Soaks one server: `make soak`. SOAK_MINUTES is how long, SOAK_SEED what is done.

500 sequences open, step, pause until they are parked, lose their connection or their client, and are resumed, at
random; every answer is compared with the file's. What the server holds is looked at all the while: its memory has to
be flat, and when all clients have gone, no slot, stream, task or descriptor may be left. `.soak/table.md` is what it
came to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.table import Table

from bench import report
from tests.running_server import ROOT, RunningServer
from tests.soak.gauges import Held, held
from tests.soak.population import Population

if TYPE_CHECKING:
    from rich.console import Console

MINUTES = float(os.environ.get("SOAK_MINUTES", "60"))
SEED = int(os.environ.get("SOAK_SEED", str(time.time_ns() % 10**6)))
SEQUENCES = 500
METRICS = 19_464
KEEPING = ("--idle-seconds", "5", "--metrics-port", str(METRICS))
WATCH = 5.0  # seconds between two looks
SETTLE = 60.0  # seconds within which everything of clients that are gone is given back
FLAT, SLACK = 0.05, 8.0  # by this part, and so many MiB, may memory grow from the second third of the run to the last
FOLDER = ROOT / ".soak"


class Soak:
    """One run."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._end = 0.0
        self._shown = 0
        self.seen: list[Held] = []

    async def run(self, folder: Path) -> None:
        """Until the time is over, and the server has settled."""
        with RunningServer(ROOT / "models", "--store", f"sqlite:{folder / 'store'}", *KEEPING) as server:
            await asyncio.to_thread(server.ready)
            warm = self._population(server.address, 20)
            self._end = time.monotonic() + 5
            await warm.run()
            self.before = await held(METRICS)
            self.population = self._population(server.address, SEQUENCES)
            self._end = time.monotonic() + 60 * MINUTES
            watching = asyncio.create_task(self._watch())
            await self.population.run()
            watching.cancel()
            await self._settle()

    def _population(self, address: str, count: int) -> Population:
        return Population(address, count, random.Random(SEED), pause=20, death=0.5, over=self._over)  # noqa: S311

    def _over(self) -> bool:
        return time.monotonic() > self._end

    async def _watch(self) -> None:
        self.seen.append(self.before)
        with self._console.status("") as status:
            while True:
                with suppress(OSError):  # the page comes late where the machine is busy
                    self.seen.append(await held(METRICS))
                left = (self._end - time.monotonic()) / 60
                text = f"{left:.1f} min left: {self.seen[-1]}; {self.population.counts['steps']:,} steps"
                status.update(text)
                if not self._console.is_terminal and len(self.seen) % 12 == 1:
                    self._console.print(text)
                self.print_faults()
                await asyncio.sleep(WATCH)

    def print_faults(self) -> None:
        """Those that were not printed yet, the first twenty of a run."""
        for fault in self.population.faults[self._shown : 20]:
            self._console.print(fault[:500])
        self._shown = len(self.population.faults)

    async def _settle(self) -> None:
        end = time.monotonic() + SETTLE
        self.after = await held(METRICS)
        while self.after.counts != self.before.counts and time.monotonic() < end:
            await asyncio.sleep(0.5)
            self.after = await held(METRICS)

    @property
    def thirds(self) -> tuple[float, float]:
        """The median memory of the second third of the run and of the last, in MiB."""
        memory = [each.memory for each in self.seen]
        third = max(1, len(memory) // 3)
        return median(memory[third : 2 * third] or memory), median(memory[2 * third :] or memory)

    @property
    def well(self) -> bool:
        """Whether all that was promised has held."""
        second, last = self.thirds
        flat = last <= second * (1 + FLAT) + SLACK
        return flat and self.after.counts == self.before.counts and not self.population.faults

    def rows(self) -> list[tuple[str, str]]:
        """What it came to."""
        second, last = self.thirds
        return [
            *((kind, f"{count:,}") for kind, count in sorted(self.population.counts.items())),
            ("answers that differ from the file's, or sequences that were lost", str(len(self.population.faults))),
            ("memory, second third and last", f"{second:.0f} MiB, {last:.0f} MiB"),
            *(
                (f"{name}: before, at most, after", self._spread(name))
                for name in ("slots", "streams", "tasks", "descriptors")
            ),
        ]

    def _spread(self, name: str) -> str:
        most = max(getattr(each, name) for each in self.seen)
        return f"{getattr(self.before, name)}, {most}, {getattr(self.after, name)}"


def main() -> int:
    """Runs and prints; 1 if a promise did not hold."""
    console = report.console()
    FOLDER.mkdir(exist_ok=True)
    logging.getLogger("tidegate").setLevel(logging.ERROR)  # it would tell of each connection that breaks
    console.print(f"SOAK_SEED={SEED}, {MINUTES:g} minutes, {SEQUENCES} sequences")
    soak = Soak(console)
    with TemporaryDirectory() as folder:
        asyncio.run(soak.run(Path(folder)))
    drawn = Table(title=f"soaked for {MINUTES:g} minutes", title_justify="left", box=None, pad_edge=False)
    drawn.add_column("")
    drawn.add_column("", justify="right")
    for row in soak.rows():
        drawn.add_row(*row)
    console.print(drawn)
    lines = [f"| soaked for {MINUTES:g} minutes | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in soak.rows()]
    (FOLDER / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    soak.print_faults()
    return int(not soak.well)


if __name__ == "__main__":
    sys.exit(main())
