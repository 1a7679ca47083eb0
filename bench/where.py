"""Where a step's processor time goes in the server: of two LSTM layers, checkpoints in SQLite, without traces.

The server is looked at after every millisecond of its processor time, while the load of `python -m bench` runs.
"""

import argparse
import json
import os
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict

from rich.table import Table

from bench import report
from bench.figure import Figure
from bench.processes import exports
from bench.processes.cache import Cache
from bench.processes.child import Child, free_port
from bench.processes.worker import Json
from bench.scenario import Scenario

WAYS = {
    "1": Scenario(128, 1),
    "16, a connection each": Scenario(128, 16, "connections"),
    "64, a connection each": Scenario(128, 64, "connections"),
    "64 on one stream": Scenario(128, 64, "multiplexed"),
    "64, bundled": Scenario(128, 64, "bundled"),
    "a fleet of 1,000": Scenario(128, 1000, "fleet"),
    "a chunk of 100": Scenario(128, 1, steps=100),
}
WARM = 1.0  # seconds before what counts

Spent = dict[str, float]  # microseconds a step, by place


class Looked:
    """A server that is looked at, and its load."""

    def __init__(self, stack: ExitStack, cache: Cache) -> None:
        self._counts = cache.root / "where.json"
        self._counts.unlink(missing_ok=True)
        port = free_port()
        store = ["--port", str(port), "--store", f"sqlite:{cache.store('where')}"]
        self._load = stack.enter_context(Child("load", ["bench.client.load"], cache.log("load")))
        command = ["bench.processes.sampled", str(self._counts), *cache.options, *store]
        self._server = stack.enter_context(Child("where", command, cache.log("where")))
        self._target = {"port": port, "pid": self._server.pid, "ca": ""}

    def ready(self, model: str) -> None:
        self._server.serves(self._load, self._target, [model])

    def measure(self, scenario: Scenario, length: float) -> Spent:
        question: Json = {"ask": "measure", "target": self._target, "scenario": asdict(scenario)}
        os.kill(self._server.pid, signal.SIGUSR1)
        figure = Figure(**self._load.ask({**question, "warm": WARM, "length": length}))
        os.kill(self._server.pid, signal.SIGUSR2)
        while not self._counts.exists():
            time.sleep(0.01)
        counts = json.loads(self._counts.read_text(encoding="utf-8"))
        self._counts.unlink()
        each = figure.server / figure.steps_per_second * 1e6 / sum(counts.values())
        return {place: count * each for place, count in counts.items()}


def table(spent: dict[str, Spent]) -> Table:
    """Draws what was measured, the most first."""
    drawn = report.drawn("processor time of the server a step, in us", "sequences", *spent)
    places = {place for each in spent.values() for place in each}
    for place in sorted(places, key=lambda place: -sum(each.get(place, 0.0) for each in spent.values())):
        drawn.add_row(place, *(f"{each.get(place, 0.0):.1f}" for each in spent.values()))
    drawn.add_section()
    drawn.add_row("all", *(f"{sum(each.values()):.1f}" for each in spent.values()))
    return drawn


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.where", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each window (default: 8)")
    options = parser.parse_args(given)
    console = report.begun()
    with console.status("exporting the models") as status, ExitStack() as stack:
        cache = exports.ready()
        status.update("starting the server")
        looked = Looked(stack, cache)
        spent = {}
        for way, scenario in WAYS.items():
            looked.ready(scenario.model)
            status.update(f"sequences: {way}")
            spent[way] = looked.measure(scenario, options.seconds)
    console.print(table(spent))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
