"""Python to Python: what a step costs our clients, over a connection of their own and over gRPC's channel.

One server, the two ways in turns: one sequence, and many, each stepped by a task or a thread of its own; two LSTM
layers of 128, no trace. `--beside DIR`: instead of the channel, the client and the server of another checkout.
"""

import argparse
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import uvloop
from rich.table import Table

from bench import report
from bench.client.connection import ready
from bench.processes import exports
from bench.processes.cache import Cache
from bench.processes.child import Child, checkout, free_port
from bench.processes.worker import Json
from bench.scenario import model_name

MODEL = model_name(128)
ROOT = Path(__file__).parents[1]
WALKER = ROOT / "bench" / "client" / "walker.py"
CHANNEL = (("grpc.enable_http_proxy", 0),)  # any option of gRPC has its channel taken
LOADS = (("asyncio", 1), ("asyncio", 64), ("threads", 1), ("threads", 16))


@dataclass(frozen=True)
class Figures:
    """Of one window: steps a second, the median of a step in ms, processor time a step in us."""

    speed: float
    median: float
    client: float
    server: float


class Way:
    """A client in a process of its own, and the server that it asks."""

    def __init__(self, walker: Child, server: Json, options: tuple[tuple[str, Any], ...] = ()) -> None:
        self._walker, self._asked = walker, {**server, "model": MODEL, "options": options}

    def measure(self, kind: str, count: int, seconds: float) -> Figures:
        return Figures(**self._walker.ask({"ask": kind, "count": count, "seconds": seconds, **self._asked}))


def opened(stack: ExitStack, cache: Cache, folder: Path, name: str) -> tuple[Child, Json]:
    """A client of a checkout, and where its server is."""
    port = free_port()
    store = ["--port", str(port), "--store", f"sqlite:{cache.store(name)}"]
    command = ["server", *cache.options, *store]
    server = stack.enter_context(Child(f"the server of {folder}", command, cache.log(name), folder))
    walker = stack.enter_context(Child(f"the client of {folder}", [str(WALKER)], cache.log(f"{name}-walker"), folder))
    uvloop.run(ready(port, MODEL))
    return walker, {"port": port, "pid": server.pid}


def ways(stack: ExitStack, cache: Cache, beside: Path | None) -> dict[str, Way]:
    """What is compared; the first is what the others are ratios of."""
    own, server = opened(stack, cache, ROOT, "clients")
    if beside is None:
        return {"gRPC's channel": Way(own, server, CHANNEL), "own connection": Way(own, server)}
    return {"before": Way(*opened(stack, cache, beside, "clients-before")), "this": Way(own, server)}


Found = dict[tuple[tuple[str, int], str], list[Figures]]


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.clients", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of each window (default: 1.5)")
    parser.add_argument("--rounds", type=int, default=5, help="windows of each (default: 5)")
    parser.add_argument("--beside", type=checkout, metavar="DIR", help="another checkout, measured in the same rounds")
    options = parser.parse_args(given)
    console = report.begun()
    found = Found()
    with console.status("exporting the models") as status, ExitStack() as stack:
        cache = exports.ready()
        status.update("starting the servers")
        compared = ways(stack, cache, options.beside)
        status.update("measuring")
        for _ in range(options.rounds):
            for load in LOADS:
                for name, way in compared.items():
                    found.setdefault((load, name), []).append(way.measure(*load, options.seconds))
    console.print(table(found))
    return 0


def table(found: Found) -> Table:
    """Draws medians of the rounds, and of their ratios to the first way."""
    drawn = Table(title="Python to Python, one client", title_justify="left", box=None, pad_edge=False)
    for name in ("client for", "sequences", "over", "steps/s", "ratio", "median ms", "ratio", "client us", "server us"):
        drawn.add_column(name, justify="left" if name in ("client for", "over") else "right")
    first = next(iter(found))[1]
    for ((kind, count), way), rounds in found.items():
        pairs = list(zip(rounds, found[(kind, count), first], strict=True))
        speed, latency, client, server = (statistics.median(each) for each in zip(*map(astuple, rounds), strict=True))
        faster = statistics.median(one.speed / other.speed for one, other in pairs)
        slower = statistics.median(one.median / other.median for one, other in pairs)
        shown = f"{speed:,.0f}", f"{faster:.2f}", f"{latency:.3f}", f"{slower:.2f}", f"{client:.0f}", f"{server:.0f}"
        drawn.add_row(kind, str(count), way, *shown)
    return drawn


if __name__ == "__main__":
    raise SystemExit(main())
