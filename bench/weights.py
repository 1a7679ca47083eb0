"""What weights of 8 bits are worth: a step of two LSTM layers with them, beside single precision; in this process.

Processor time of the quickest of many runs, with all gates traced, by the number of units and of sequences in a batch.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.table import Table

import stepgraph.loading
from bench import report
from bench.models import Network, write
from bench.processes import machine
from bench.scenario import FEATURES
from stepgraph.model import LoadedModel

UNITS, BATCHES = (64, 128, 256, 512), (1, 16, 64)
RUNS, LENGTH = 15, 0.02  # how often a batch is timed, and for how many seconds at least
SAID = "[weights]\nbits = 8\n"


def loaded(folder: Path, units: int) -> tuple[LoadedModel, LoadedModel]:
    """The same network in single precision and in 8 bits."""
    exact, rounded = folder / f"{units}" / "model.onnx", folder / f"{units}-rounded" / "model.onnx"
    for file in (exact, rounded):
        torch.manual_seed(units)
        write(Network(units).eval(), (torch.zeros(2, 3, FEATURES),), file, ["x"], ["y"])
    rounded.with_name("model.toml").write_text(SAID, encoding="utf-8")
    one, other = (stepgraph.loading.load(file, max(BATCHES), 0.0) for file in (exact, rounded))
    return one, other


def seconds(model: LoadedModel, batch: int) -> float:
    """Processor time of a step."""
    rows = np.random.default_rng(0).standard_normal((1, batch, 1, FEATURES), np.float32)
    inputs, state = {model.graph.inputs[0].name: rows}, model.graph.start(batch)
    best, times = float("inf"), 1
    for _ in range(RUNS):
        began = time.process_time()
        for _ in range(times):
            model.engine.run(inputs, state, trace=True)
        took = time.process_time() - began
        best = min(best, took / times)
        times = max(1, int(LENGTH / best))
    return best


def main(given: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.weights", description=__doc__)
    parser.add_argument("--units", type=int, nargs="+", default=UNITS, help="of each layer (default: 64 128 256 512)")
    options = parser.parse_args(given)
    console = report.console()
    console.print(report.machine(machine.describe()))
    table = Table(title="8 bits / single precision, processor time of a step", title_justify="left", box=None)
    table.add_column("units", justify="right")
    for batch in BATCHES:
        table.add_column(f"batch {batch}: us", justify="right")
        table.add_column("ratio", justify="right")
    with console.status("measuring") as status, TemporaryDirectory() as folder:
        for units in options.units:
            status.update(f"{units} units")
            exact, rounded = loaded(Path(folder), units)
            pairs = [(seconds(exact, batch), seconds(rounded, batch)) for batch in BATCHES]
            cells = (cell for one, two in pairs for cell in (f"{one * 1e6:.0f}, {two * 1e6:.0f}", f"{two / one:.2f}"))
            table.add_row(f"{units}", *cells)
            console.print(*(note for note in rounded.facts.untold), sep="\n")
    console.print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
