"""What narrower weights are worth: two LSTM layers with them, beside the same in single precision; in this process.

Processor time of the quickest of many runs, with all gates traced, by units, type and sequences in a batch; the memory
that a fresh process takes for the model; and how far the answers are from those that onnxruntime gives with the file.
"""

import argparse
import ctypes
import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import stepgraph.loading
from bench import report
from bench.models import Network, write
from bench.scenario import FEATURES
from stepgraph.file.precision import NAMES
from stepgraph.isolation.packing import pack, unpack
from stepgraph.isolation.verdict import Proved, put_together, taken_apart
from stepgraph.model import LoadedModel

UNITS, BATCHES = (128, 512, 1024), (1, 64)
RUNS, LENGTH = 15, 0.02  # how often a batch is timed, and for how many seconds at least


def loaded(folder: Path, units: int, precision: str | None) -> LoadedModel:
    """The network of so many units, the same for each precision; None is that of the file."""
    file = folder / f"{units}-{precision}" / "model.onnx"
    torch.manual_seed(units)
    write(Network(units).eval(), (torch.zeros(2, 3, FEATURES),), file, ["x"], ["y"])
    if precision:
        said = f'[weights]\nprecision = "{precision}"\n'
        file.with_name("model.toml").write_text(said, encoding="utf-8")
    return stepgraph.loading.load(file, 1, 0.0)


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


def memory(model: LoadedModel, folder: Path) -> float:
    """MiB that a process has more once it has the model as a server has it from its sandbox."""
    file = folder / "proved"
    file.write_bytes(pack(taken_apart(model)))
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_taken, file).result()


def _taken(file: Path) -> float:
    before = _resident()
    model = put_together(unpack(Proved, file.read_bytes()), 0.0, fresh=True)
    ctypes.CDLL(None).malloc_trim(0)
    more = _resident() - before
    del model
    return more


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def measured(folder: Path, units: int) -> Iterator[tuple[str, ...]]:
    """A row of the table for each precision."""
    exact: list[float] = []
    for precision in (None, *NAMES):
        model = loaded(folder, units, precision)
        times = [seconds(model, batch) for batch in BATCHES]
        exact = exact or times
        cells = (
            text for one, two in zip(exact, times, strict=True) for text in (f"{two * 1e6:.0f}", f"{two / one:.2f}")
        )
        narrowed = model.proof.narrowed
        apart = (f"{narrowed.error:.1e}", f"{100 * narrowed.share:.2g} %") if narrowed else ("", "")
        yield f"{units}", precision or "float32", *cells, f"{memory(model, folder):.0f}", *apart


def table(console: Console, units: Sequence[int]) -> Table:
    heads = (head for batch in BATCHES for head in (f"batch {batch}: us", "ratio"))
    title = "narrower weights; ratios to float32"
    made = report.drawn(title, "units", "weights", *heads, "MiB", "error", "of the range")
    with console.status("measuring") as status, TemporaryDirectory() as folder:
        for each in units:
            status.update(f"{each} units")
            for row in measured(Path(folder), each):
                made.add_row(*row)
    return made


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.weights", description=__doc__)
    parser.add_argument("--units", type=int, nargs="+", default=UNITS, help="of each layer (default: 128 512 1024)")
    options = parser.parse_args(given)
    console = report.begun()
    console.print(table(console, options.units))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
