"""`python -m tests.lab.loads OTHER [MODULE:FUNCTION] [WORDS]`: what it costs to load the models of the tests.

Loads each file that toolkits wrote, and each official vector of a recurrent operator, in this checkout and in OTHER, in
turns, and prints the processor milliseconds of both. The function is what loads a file in the other,
`stepgraph.loading:load` if it is not said. Files that one of them refuses are left out.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

from tests.models import test_official_vectors as vectors
from tests.models.makers import torch_exporters

ROOT = Path(__file__).parents[2]
MADE = ROOT / "tests" / "models" / "made"
LOAD, ROUNDS = "stepgraph.loading:load", 3
SLOWER = 1.2  # times the other's is marked

LOADS = """
import sys, time
from importlib import import_module
from pathlib import Path
module, name = sys.argv[1].split(":")
load = getattr(import_module(module), name)
for line in sys.stdin:
    began = time.process_time()
    try:
        load(Path(line.strip()), 1, 0.0)
        print(time.process_time() - began, flush=True)
    except Exception:
        print(flush=True)
"""


class Checkout:
    """A process that loads files with the code of a checkout."""

    def __init__(self, folder: Path, load: str) -> None:
        command = [sys.executable, "-W", "ignore", "-c", LOADS, load]
        pipe, environment = subprocess.PIPE, {"PYTHONPATH": str(folder)}
        self.process = subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, text=True, env=environment)

    def seconds(self, path: Path) -> float | None:
        """Of a processor, to load a file; None if it is refused."""
        print(path, file=self.process.stdin, flush=True)
        said = self.process.stdout.readline().strip()
        return float(said) if said else None


def compared(path: Path, checkouts: tuple[Checkout, Checkout]) -> list[float] | None:
    """The least seconds of each checkout in all rounds; None if one of them refuses the file."""
    least = [float("inf")] * len(checkouts)
    for _ in range(ROUNDS):
        for i, checkout in enumerate(checkouts):
            seconds = checkout.seconds(path)
            if seconds is None:
                return None
            least[i] = min(least[i], seconds)
    return least


def write(folder: Path) -> None:
    """What the tests make as they need it: official vectors, and networks by torch's older exporter."""
    for name in vectors.FORWARDS:
        model, inputs, _ = vectors.OFFICIAL[name]
        onnx.save(vectors.servable(model, inputs), folder / f"vector-{name}.onnx")
    for name in sorted(torch_exporters.CASES.keys() - torch_exporters.NOT_BY_TORCHSCRIPT):
        torch_exporters.make(name, folder / f"torchscript-{name}.onnx", dynamo=False)


def main(other: Path, load: str, words: list[str]) -> None:
    """Prints the table, and what all files together cost."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        found = [*sorted(MADE.rglob("*.onnx")), *sorted(Path(folder).iterdir())]
        compare(other, load, [path for path in found if not words or any(word in str(path) for word in words)])


def compare(other: Path, load: str, chosen: list[Path]) -> None:
    """Prints a line for each file that both load, and what all together cost."""
    checkouts = Checkout(ROOT, LOAD), Checkout(other, load)
    totals = [0.0, 0.0]
    with checkouts[0].process, checkouts[1].process:
        for path in chosen:
            least = compared(path, checkouts)
            if least is None:
                continue
            totals = [total + seconds for total, seconds in zip(totals, least, strict=True)]
            print(_line(f"{path.parent.name}/{path.stem}" if MADE in path.parents else path.stem, *least), flush=True)
        for checkout in checkouts:
            checkout.process.stdin.close()
    print(_line("all", *totals))


def _line(name: str, here: float, there: float) -> str:
    marked = "  slower" if here > SLOWER * there else ""
    return f"{name:45} {here * 1e3:8.0f} ms {there * 1e3:8.0f} ms  {here / max(there, 1e-9):5.2f}{marked}"


if __name__ == "__main__":
    folder, *rest = sys.argv[1:]
    named = rest[:1] if rest and ":" in rest[0] else []
    main(Path(folder).resolve(), named[0] if named else LOAD, rest[len(named) :])
