"""`python -m tests.lab.served [GIB]`: a file of 2.7 GiB, or so many, through a running server.

Makes it in a temporary folder, as torch's exporter writes it, starts `python -m server` with the limits that
docs/models.md says, streams some steps, and prints the memory that the processes took by the file's size, and the
largest difference from onnxruntime with the untouched file. Takes minutes, and some ten GiB of memory for 2.7.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Self

import numpy as np
import onnxruntime

import tidegate
from tests.lab.growth import mib
from tests.lab.large import GIB, written
from tests.running_server import RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS, SECONDS, TIMES = 20, 3600, 3.5


def family(pid: int) -> Iterator[int]:
    """A process and those that it has started."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text(encoding="ascii").split():
            yield from family(int(child))


class Watch:
    """The most memory that the processes behind a server have had."""

    def __init__(self, pid: int) -> None:
        self.most: dict[int, float] = {}
        self._pid, self._ended = pid, Event()
        self._thread = Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.5):
            try:
                self.most |= {pid: mib(pid, "VmHWM") for pid in family(self._pid)}
            except (OSError, AssertionError):  # one has just ended
                continue


def streamed(server: RunningServer) -> tuple[np.ndarray, np.ndarray]:
    """Random steps, and what the server answers to them."""
    with tidegate.connect(server.address) as client:
        model = client.describe("big", ready=True)
        if model.status != "ready":
            sys.exit(f"{model.status}: {model.reason}")
        x = np.random.default_rng(0).standard_normal((STEPS, *model.inputs[0].shape), np.float32)
        with client.sequence("big") as sequence:
            return x, np.stack([sequence.step(row).outputs["y"] for row in x])


def main(gib: float) -> None:
    """Prints what it took, and how far the answers were from the file's."""
    with tempfile.TemporaryDirectory() as models:
        folder = Path(models) / "big" / "1"
        folder.mkdir(parents=True)
        path = written(gib, folder)
        size = sum(each.stat().st_size for each in folder.iterdir()) / GIB
        memory = max(4096, math.ceil(TIMES * size * 1024))
        limits = "--load-memory-mib", str(memory), "--load-seconds", str(SECONDS)
        with RunningServer(Path(models), *limits, fresh=True) as server, Watch(server.process.pid) as watch:
            server.ready(SECONDS)
            x, got = streamed(server)
            now = mib(server.process.pid, "VmRSS")
            own = watch.most.pop(server.process.pid)
        print(f"{size:.2f} GiB, looked at in {max(watch.most.values()) / 1024 / size:.1f} times its size")
        most, after = (each / 1024 / size for each in (own, now))
        print(f"the server took {most:.1f} times its size at most, and {after:.1f} after it had streamed")
        (wanted,) = onnxruntime.InferenceSession(path).run(None, {"x": x[np.newaxis]})
        print(f"{STEPS} steps: at most {np.abs(got - wanted[0]).max():.1e} from the file's answers", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if sys.argv[1:] else 2.7)
