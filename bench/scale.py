"""What very many cost, beside few: connections with a sequence each, and open sequences on four connections.

The memory of the server, the processor time of a step when all take one in turn, how long one more takes to connect,
open and step, and what a lone client waits for a step meanwhile. Then 50,000 sequences take a step a second each: what
a lone client waits beside them, with a store and without.
"""

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from time import sleep

import numpy as np
from rich.status import Status
from rich.table import Table

from bench import report
from bench.client.connection import ready
from bench.processes import exports
from bench.processes.cache import Cache
from bench.processes.child import Child, free_port
from bench.processes.gauges import memory
from bench.processes.worker import Json
from bench.scenario import model_name

MODEL = model_name(128)
CONNECTIONS = (100, 1_000, 10_000)
OPEN = (1_000, 10_000, 100_000)
TICKING = 50_000
TURNS, TIMES = 3, 20
LIMITS = "--max-streams 16000 --max-share 100 --max-per-address 0 --max-per-owner 0 --max-sequences 131072"
SETTLE = 1.0  # seconds
HEADINGS = ("server's memory, MB", "KiB each", "us of its processor a step", "one more, ms", "lone step, ms", "p99")


@dataclass(frozen=True)
class Size:
    """What was measured at one size: `memory` in bytes, `step` in seconds of the server's processor, others in ms."""

    count: int
    memory: int
    step: float
    more: tuple[float, ...]
    alone: tuple[float, ...]

    def cells(self, least: "Size") -> tuple[str, ...]:
        """A row of a table whose first row is `least`."""
        grown = self.count - least.count
        each = f"{(self.memory - least.memory) / grown / 1024:.1f}" if grown else ""
        return (
            f"{self.count:,}",
            f"{self.memory / 1e6:.0f}",
            each,
            f"{self.step * 1e6:.0f}",
            f"{np.median(self.more):.2f}",
            f"{np.median(self.alone):.2f}",
            f"{np.percentile(self.alone, 99):.1f}",
        )


class Place:
    """A server, a process that holds the many, and a lone client."""

    def __init__(self, server: Child, many: Child, lone: Child, port: int) -> None:
        self._server, self._many, self._lone, self._port = server, many, lone, port

    def ask(self, ask: str, **more: int) -> Json:
        """Of the process that holds the many."""
        question = {"ask": ask, "port": self._port, "model": MODEL, "pid": self._server.pid, **more}
        return self._many.ask(question, patience=600)

    def alone(self, seconds: float) -> tuple[float, ...]:
        """What each step of the lone client takes, in ms."""
        self._lone.ask({"ask": "begin", "port": self._port, "model": MODEL})
        sleep(seconds)
        return tuple(self._lone.ask({"ask": "end"})["took"])

    def measure(self, kind: str, count: int) -> Size:
        """Lets them become as many as `count`."""
        self.ask(kind, count=count)
        turns = [self.ask("turn") for _ in range(TURNS)]
        step = float(np.median([turn["seconds"] / turn["steps"] for turn in turns]))
        alone = self.alone(2 * SETTLE)  # by then what the turns left is written
        return Size(count, memory(self._server.pid), step, tuple(self.ask("more", times=TIMES)["took"]), alone)


@contextmanager
def place(cache: Cache, *options: str) -> Iterator[Place]:
    """From the server's start to its stop."""
    port = free_port()
    command = ["server", *cache.options, "--port", str(port)]
    with (
        Child("server", [*command, *LIMITS.split(), *options], cache.log("scale")) as server,
        Child("many", ["bench.client.many"], cache.log("many")) as many,
        Child("lone", ["bench.client.bystander"], cache.log("lone")) as lone,
    ):
        asyncio.run(ready(port, MODEL))
        yield Place(server, many, lone, port)


def sizes(cache: Cache, kind: str, counts: Sequence[int], status: Status) -> list[Size]:
    """One server, with ever more."""
    found = []
    with TemporaryDirectory() as folder, place(cache, "--store", f"sqlite:{folder}/store") as server:
        for count in counts:
            status.update(f"{count:,} {'connections' if kind == 'connect' else 'open sequences'}")
            found.append(server.measure(kind, count))
    return found


def beside(cache: Cache, count: int, seconds: float, status: Status) -> list[tuple[str, tuple[float, ...], int]]:
    """What a lone client waits beside so many that take a step a second each; and how many of those were late."""
    found = []
    with TemporaryDirectory() as folder:
        for name, store in (("no store", "none"), ("SQLite", f"sqlite:{folder}/store")):
            status.update(f"{count:,} sequences that take a step a second, {name}")
            with place(cache, "--store", store) as server:
                server.ask("open", count=count)
                server.ask("tick")
                sleep(2 * SETTLE)
                took = server.alone(seconds)
                found.append((name, took, server.ask("tock")["late"]))
    return found


def table(title: str, measured: Sequence[Size]) -> Table:
    drawn = report.drawn(title, "how many", *HEADINGS)
    for one in measured:
        drawn.add_row(*one.cells(measured[0]))
    return drawn


def ticking(measured: Sequence[tuple[str, tuple[float, ...], int]], count: int) -> Table:
    title = f"a lone step beside {count:,} sequences that take a step a second each, in ms"
    drawn = report.drawn(title, "", "median", "p99", "worst", "steps of the many a second late")
    for name, took, late in measured:
        drawn.add_row(name, *(f"{np.percentile(took, at):.2f}" for at in (50, 99, 100)), f"{late:,}")
    return drawn


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the numbers that it is about (default: 1)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the last table looks (default: 10)")
    options = parser.parse_args(given)
    console = report.begun()
    with console.status("exporting the models") as status:
        cache = exports.ready()
        connections = sizes(cache, "connect", [int(n * options.share) for n in CONNECTIONS], status)
        console.print(table("connections with one sequence each", connections))
        opened = sizes(cache, "open", [int(n * options.share) for n in OPEN], status)
        console.print(table("open sequences on four connections", opened))
        count = int(TICKING * options.share)
        console.print(ticking(beside(cache, count, options.seconds, status), count))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
