"""Python to Python: what a step costs our clients, over a connection of their own and over gRPC's channel.

One server, the two ways in turns: one sequence, and many, each stepped by a task or a thread of its own; two LSTM
layers of 128, no trace.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import uvloop
from rich.table import Table

from bench import report
from bench.client.connection import ready
from bench.client.traffic import rows
from bench.processes import exports
from bench.processes.child import Child, free_port
from bench.scenario import model_name
from tidegate import AsyncClient, Client

HIDDEN, WARM = 128, 0.3  # WARM: seconds before what counts
Options = tuple[tuple[str, Any], ...]
WAYS: dict[str, Options] = {
    "gRPC's channel": (("grpc.enable_http_proxy", 0),),  # any option of gRPC has its channel taken
    "own connection": (),
}
ROWS = rows(0, 50)


@dataclass(frozen=True)
class Figures:
    """Of one window: steps a second, the median of a step in ms, the client's processor time a step in us."""

    speed: float
    median: float
    used: float

    @classmethod
    def of(cls, took: list[float], elapsed: float, used: float) -> "Figures":
        return cls(len(took) / elapsed, statistics.median(took) * 1e3, used / len(took) * 1e6)


async def tasks(port: int, options: Options, count: int, seconds: float) -> Figures:
    """A client for asyncio."""
    took = list[float]()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(AsyncClient(f"127.0.0.1:{port}", options=options))
        opened = [
            await stack.enter_async_context(client.sequence(model_name(HIDDEN), trace=False)) for _ in range(count)
        ]
        for length in (WARM, seconds):
            took.clear()
            began, used = time.perf_counter(), time.process_time()
            await asyncio.gather(*(_walk(sequence, began + length, took) for sequence in opened))
            elapsed, used = time.perf_counter() - began, time.process_time() - used
    return Figures.of(took, elapsed, used)


async def _walk(sequence: Any, ends: float, took: list[float]) -> None:  # noqa: ANN401 - an AsyncSequence
    number = 0
    while (sent := time.perf_counter()) < ends:
        await sequence.step(ROWS[number % len(ROWS)])
        took.append(time.perf_counter() - sent)
        number += 1


def threads(port: int, options: Options, count: int, seconds: float) -> Figures:
    """A client for threads; one sequence is stepped by the main thread, as a program does."""
    took = list[float]()
    with ExitStack() as stack:
        client = stack.enter_context(Client(f"127.0.0.1:{port}", options=options))
        opened = [stack.enter_context(client.sequence(model_name(HIDDEN), trace=False)) for _ in range(count)]
        pool = stack.enter_context(ThreadPoolExecutor(count))
        for length in (WARM, seconds):
            took.clear()
            began, used = time.perf_counter(), time.process_time()
            run = partial(_run, ends=began + length, took=took)
            list(pool.map(run, opened) if count > 1 else map(run, opened))
            elapsed, used = time.perf_counter() - began, time.process_time() - used
    return Figures.of(took, elapsed, used)


def _run(sequence: Any, ends: float, took: list[float]) -> None:  # noqa: ANN401 - a Sequence
    number = 0
    while (sent := time.perf_counter()) < ends:
        sequence.step(ROWS[number % len(ROWS)])
        took.append(time.perf_counter() - sent)
        number += 1


LOADS: dict[tuple[str, int], Callable[[int, Options, float], Figures]] = {
    ("asyncio", 1): lambda port, options, seconds: uvloop.run(tasks(port, options, 1, seconds)),
    ("asyncio", 64): lambda port, options, seconds: uvloop.run(tasks(port, options, 64, seconds)),
    ("threads", 1): lambda port, options, seconds: threads(port, options, 1, seconds),
    ("threads", 16): lambda port, options, seconds: threads(port, options, 16, seconds),
}
Found = dict[tuple[tuple[str, int], str], list[Figures]]


def main(given: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.clients", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of each window (default: 1.5)")
    parser.add_argument("--rounds", type=int, default=5, help="windows of each (default: 5)")
    options = parser.parse_args(given)
    console, port = report.begun(), free_port()
    with console.status("exporting the models"):
        cache = exports.ready()
    store = ["--port", str(port), "--store", f"sqlite:{cache.store('clients')}"]
    found = Found()
    with Child("server", ["server", *cache.options, *store], cache.log("clients")), console.status("measuring"):
        uvloop.run(ready(port, model_name(HIDDEN)))
        for _ in range(options.rounds):
            for load, measure in LOADS.items():
                for way, of_grpc in WAYS.items():
                    found.setdefault((load, way), []).append(measure(port, of_grpc, options.seconds))
    console.print(table(found))
    return 0


def table(found: Found) -> Table:
    """Draws medians of the rounds, and of their ratios to gRPC's channel."""
    drawn = Table(title="Python to Python, one client", title_justify="left", box=None, pad_edge=False)
    for name in ("client for", "sequences", "over", "steps/s", "ratio", "median ms", "ratio", "client us"):
        drawn.add_column(name, justify="left" if name in ("client for", "over") else "right")
    for ((kind, count), way), rounds in found.items():
        pairs = list(zip(rounds, found[(kind, count), next(iter(WAYS))], strict=True))
        speed, latency, used = (
            statistics.median(figures) for figures in zip(*((r.speed, r.median, r.used) for r in rounds), strict=True)
        )
        faster = statistics.median(one.speed / other.speed for one, other in pairs)
        slower = statistics.median(one.median / other.median for one, other in pairs)
        shown = f"{speed:,.0f}", f"{faster:.2f}", f"{latency:.3f}", f"{slower:.2f}", f"{used:.0f}"
        drawn.add_row(kind, str(count), way, *shown)
    return drawn


if __name__ == "__main__":
    raise SystemExit(main())
