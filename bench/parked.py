"""What parked sequences cost a server: a million of a 2 x 128 LSTM, beside ten.

Fills two SQLite files as a busy server does, and takes them out of the machine's cache: what was parked long ago is on
the disk. Then a server is started on each, and once both have looked after their stores they take turns: a new
connection, Resume of a random sequence, one step.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from bench.client.connection import ready
from bench.client.sequence import Sequence as Kept
from bench.processes import exports, machine
from bench.processes.cache import Cache
from bench.processes.child import Child, free_port
from bench.processes.gauges import gauges, most_memory
from bench.scenario import LAYERS, model_name
from server.durability.checkpoint import encode_many
from server.durability.sequence import digest_of
from server.stores.sqlite.store import SqliteStore
from server.stores.store import Creation, Write
from server.stores.terms import Terms
from stepgraph.file import content

HIDDEN = 128
FEW = 10
BATCH = 1_000
MOST_MEMORY = 500.0  # MB that a server may take
MOST_TIMES = 1.5  # so many times as long may it take to resume one of the many
PATIENCE = 60.0  # seconds for a server to look after its store


@dataclass(frozen=True)
class Parked:
    """A file with so many parked sequences, each after so many steps."""

    path: Path
    sequences: int
    steps: int
    hidden: int = HIDDEN  # units of their model

    @property
    def bytes_each(self) -> float:
        """What one takes on the disk."""
        return self.path.stat().st_size / self.sequences

    def fill(self, sha256_: str) -> None:
        """Writes a checkpoint of every step of every sequence, many to a write."""
        store = SqliteStore(self.path, Terms())
        for step in range(1, self.steps + 1):
            for first in range(0, self.sequences, BATCH):
                ids = [name(number) for number in range(first, min(first + BATCH, self.sequences))]
                store.write(list(written(ids, step, sha256_, self.hidden)), time.time())
        store.close()  # carries the log over

    def cool(self) -> None:
        """Takes the file out of the machine's cache."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Host:
    """A server on such a file."""

    def __init__(self, parked: Parked, cache: Cache, times: int) -> None:
        self.parked, self.port, self._page = parked, free_port(), free_port()
        store = ["--store", f"sqlite:{parked.path}", "--max-parked", str(parked.sequences)]
        self._start = time.perf_counter()
        self.child = Child(f"parked-{parked.sequences}", self._command(cache, store), cache.log(parked.path.stem))
        # what is found out
        numbers = np.random.default_rng(0).permutation(parked.sequences)[:times]
        self._turns = iter(np.resize(numbers, times).tolist())
        self._resumed: dict[int, Kept] = {}
        self.seconds_to_start = self.memory = 0.0
        self.times: list[float] = []

    def _command(self, cache: Cache, store: list[str]) -> list[str]:
        ports = ["--port", str(self.port), "--metrics-port", str(self._page)]
        return ["server", *cache.options, *ports, *store]

    async def serve(self) -> None:
        """Until it serves the model."""
        await ready(self.port, model_name(HIDDEN))
        self.seconds_to_start = time.perf_counter() - self._start

    async def keep_house(self) -> None:
        """Until it has looked after its store, which it does every so many seconds."""
        patience = time.monotonic() + PATIENCE
        while gauges(self._page)["tidegate_store_sequences"] != self.parked.sequences:
            if time.monotonic() > patience:
                raise TimeoutError(f"nobody looked after {self.parked.path}")
            await asyncio.sleep(0.5)

    async def resume(self) -> None:
        """Goes on with a random sequence."""
        number = next(self._turns)
        sequence = Kept(self.port, name(number), name(number), self.parked.steps)
        self.times.append(await self._resumed.setdefault(number, sequence).resume())

    def look(self) -> None:
        """At what it took."""
        self.memory = most_memory(self.child.pid)

    def __str__(self) -> str:
        return (
            f"{self.parked.sequences:>9,} sequences: {self.parked.bytes_each / 1024:5.2f} KiB each on disk, "
            f"{self.memory:.0f} MB of memory at most, serves after {self.seconds_to_start:.2f} s, "
            f"resumes in {median(self.times) * 1e3:.2f} ms (longest {max(self.times) * 1e3:.1f} ms)"
        )


def name(number: int) -> str:
    """An id without any order; as a token it is as good."""
    return sha256(b"%d" % number).hexdigest()[:32]


def written(ids: Sequence[str], step: int, sha256_: str, hidden: int) -> Iterator[Write]:
    """A checkpoint of each, as the server writes them: h and c of every layer."""
    model, width = model_name(hidden), 2 * LAYERS * hidden
    states = np.random.default_rng(step).standard_normal((len(ids), width), np.float32)
    data = encode_many(model, 1, sha256_, [step] * len(ids), states)
    for id_, bytes_ in zip(ids, data, strict=True):
        yield Write(id_, 1, step, bytes_, Creation(digest_of(id_), "", model), awake=False)


async def measure(stores: Sequence[Parked], cache: Cache, times: int) -> list[Host]:
    """Starts one server after the other, and has them take turns."""
    await prove(cache)
    with ExitStack() as stack:
        hosts = []
        for parked in stores:
            hosts.append(Host(parked, cache, times))
            stack.enter_context(hosts[-1].child)
            await hosts[-1].serve()
        await asyncio.gather(*(host.keep_house() for host in hosts))
        for _ in range(times):
            for host in hosts:
                await host.resume()
        for host in hosts:
            host.look()
    return hosts


async def prove(cache: Cache) -> None:
    """Has the models proved, once: a start is to be about the store."""
    port = free_port()
    command = ["server", *cache.options, "--store", "none"]
    with Child("prove", [*command, "--port", str(port)], cache.log("prove")):
        await ready(port, model_name(HIDDEN))


def main() -> int:
    """Measures a small store beside a large one; 1 if the large one takes more memory or time than it may."""
    parser = argparse.ArgumentParser(prog="python -m bench.parked", description=__doc__)
    parser.add_argument("--sequences", type=int, default=1_000_000, help="in the large store (default: 1,000,000)")
    parser.add_argument("--checkpoints", type=int, default=1, help="of each sequence (default: 1)")
    parser.add_argument("--times", type=int, default=200, help="how many are resumed of each store (default: 200)")
    parser.add_argument("--folder", type=Path, help="where the files are made, and removed (default: the system's)")
    options = parser.parse_args()
    cache = Cache()
    exports.write_missing(cache)
    print(", ".join(f"{key} {value}" for key, value in machine.describe().items()))
    with TemporaryDirectory(dir=options.folder) as place:
        sizes = (FEW, options.sequences)
        stores = [Parked(Path(place) / f"{size}.sqlite", size, options.checkpoints) for size in sizes]
        for parked in stores:
            parked.fill(content.hashed(cache.served_file(HIDDEN)))
            parked.cool()
        few, many = asyncio.run(measure(stores, cache, options.times))
        print(f"{few}\n{many}")
    return int(not all([fits(few, many), is_quick(few, many)]))


def fits(few: Host, many: Host) -> bool:
    """Whether a server with many takes no more memory than it may."""
    met = many.memory <= MOST_MEMORY
    print(
        f"the many take {many.memory - few.memory:+.0f} MB of memory, {many.memory:.0f} MB with the server; "
        f"at most {MOST_MEMORY:.0f}: {'met' if met else 'missed'}"
    )
    return met


def is_quick(few: Host, many: Host) -> bool:
    """Whether resuming one of the many takes not much longer."""
    ratio = median(many.times) / median(few.times)
    met = ratio <= MOST_TIMES
    print(
        f"resuming one of the many takes {ratio:.2f} times as long; at most {MOST_TIMES}: {'met' if met else 'missed'}"
    )
    return met


if __name__ == "__main__":
    raise SystemExit(main())
