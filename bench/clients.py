"""Python to Python: what a step costs our client for asyncio, over a connection of its own and over gRPC's channel.

One server, the two in turns: one sequence, and 64, each stepped by a task of its own; two LSTM layers of 128, no trace.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import uvloop
from rich.table import Table

from bench import report
from bench.client.connection import ready
from bench.client.traffic import rows
from bench.processes import exports, machine
from bench.processes.cache import Cache
from bench.processes.child import Child, free_port
from bench.scenario import model_name
from tidegate import AsyncClient

HIDDEN, COUNTS, WARM = 128, (1, 64), 0.3  # WARM: seconds before what counts
WAYS: dict[str, tuple[tuple[str, Any], ...]] = {
    "gRPC's channel": (("grpc.enable_http_proxy", 0),),  # any option of gRPC has its channel taken
    "own connection": (),
}
ROWS = rows(0, 50)


async def stepped(
    port: int, options: Sequence[tuple[str, Any]], count: int, seconds: float
) -> tuple[float, float, float]:
    """Steps a second, the median of a step in ms, and the client's processor time a step in us."""
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
    return len(took) / elapsed, statistics.median(took) * 1e3, used / len(took) * 1e6


async def _walk(sequence: Any, ends: float, took: list[float]) -> None:  # noqa: ANN401 - an AsyncSequence
    number = 0
    while (sent := time.perf_counter()) < ends:
        await sequence.step(ROWS[number % len(ROWS)])
        took.append(time.perf_counter() - sent)
        number += 1


def main(given: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.clients", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of each window (default: 1.5)")
    parser.add_argument("--rounds", type=int, default=5, help="windows of each (default: 5)")
    options = parser.parse_args(given)
    console = report.console()
    console.print(report.machine(machine.describe()))
    cache, port = Cache(Path(".bench").resolve()), free_port()
    with console.status("exporting the models"):
        exports.write_missing(cache)
    command = ["server", "--models", str(cache.models), "--cache", str(cache.proofs), "--port", str(port)]
    command += ["--store", f"sqlite:{cache.store('clients')}"]
    found = dict[tuple[int, str], list[tuple[float, float, float]]]()
    with Child("server", command, cache.log("clients")), console.status("measuring"):
        uvloop.run(ready(port, model_name(HIDDEN)))
        for _ in range(options.rounds):
            for count in COUNTS:
                for way, of_grpc in WAYS.items():
                    figures = uvloop.run(stepped(port, of_grpc, count, options.seconds))
                    found.setdefault((count, way), []).append(figures)
    console.print(table(found))
    return 0


def table(found: dict[tuple[int, str], list[tuple[float, float, float]]]) -> Table:
    """Draws medians of the rounds, and of their ratios to gRPC's channel."""
    drawn = Table(title="Python to Python, one client for asyncio", title_justify="left", box=None, pad_edge=False)
    for name in ("sequences", "over", "steps/s", "ratio", "median ms", "ratio", "client us"):
        drawn.add_column(name, justify="left" if name == "over" else "right")
    for (count, way), rounds in found.items():
        speed, latency, used = (statistics.median(column) for column in zip(*rounds, strict=True))
        pairs = list(zip(rounds, found[count, next(iter(WAYS))], strict=True))
        faster, slower = (statistics.median(one[at] / other[at] for one, other in pairs) for at in (0, 1))
        shown = f"{speed:,.0f}", f"{faster:.2f}", f"{latency:.3f}", f"{slower:.2f}", f"{used:.0f}"
        drawn.add_row(str(count), way, *shown)
    return drawn


if __name__ == "__main__":
    raise SystemExit(main())
