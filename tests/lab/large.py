"""`python -m tests.lab.large [GIB ...]`: what it costs to look at files of half a GiB to three, with data beside them.

Makes each in a temporary folder, as torch's exporter writes it (`model.onnx` and `model.onnx.data`), loads it in the
server's sandbox and prints its size, seconds, the memory that was needed by the file's size, and the outcome. Takes
minutes, and up to three and a half times the size in memory.
"""

from __future__ import annotations

import math
import resource
import sys
import tempfile
import time
from pathlib import Path

import onnx

from stepgraph.errors import ModelRefused
from stepgraph.isolation.sandbox import Limits, Sandbox
from stepgraph.isolation.verdict import Refused, Verdict
from tests.lab.looks import stack

GIB, SIZES = 2**30, (0.5, 1.0, 3.0)
LAYERS, SECONDS = 4, 580


def written(gib: float, folder: Path) -> Path:
    """Layers of LSTM, all of one width, so that their weights have that size."""
    numbers = gib * GIB / 4 / LAYERS / 8  # of one gate of a layer, of its input or its state
    width = 8 * round(math.sqrt(numbers) / 8)
    path = folder / "model.onnx"
    onnx.save(stack("LSTM", LAYERS, width, width), path, save_as_external_data=True, location="model.onnx.data")
    return path


def look(path: Path) -> str:
    """One line: size, seconds, memory and outcome."""
    size = sum(each.stat().st_size for each in path.parent.iterdir())
    with Sandbox(Limits(SECONDS, math.ceil(4096 + 3 * size / 2**20))) as sandbox:
        started = time.perf_counter()
        try:
            outcome = sandbox.ask(Verdict, "load", path, max_batch=2, patience=0.0).outcome
            said = f"refused: {outcome.message:.150}" if isinstance(outcome, Refused) else "proved"
        except ModelRefused as refused:
            said = f"refused: {refused}"
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return f"{size / GIB:5.2f} GiB {seconds:6.1f} s {peak / size:5.2f} times its size  {said}"


def main(sizes: list[float]) -> None:
    """Prints the table."""
    for gib in sizes:
        with tempfile.TemporaryDirectory() as folder:
            print(look(written(gib, Path(folder))), flush=True)


if __name__ == "__main__":
    main([float(word) for word in sys.argv[1:]] or list(SIZES))
