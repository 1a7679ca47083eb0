"""What parked sequences cost a store: their place on disk, and the time to claim one of ten and one of very many.

Fills a SQLite file with sequences of a 2 x 128 LSTM, a thousand to a write, as a busy server does. Then claims are
timed with random ids, one at a time, and writes of a checkpoint each for 64 random sequences.
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np

from server.checkpoint import encode_many
from server.sqlite_store import SqliteStore
from server.store import Birth, Claim, Claimed, Terms, Write

Given = TypeVar("Given")

WIDTH = 2 * 2 * 128  # h and c of two layers
BATCH = 1_000
FLEET = 64
CALLS = 200
LATEST = 2**52  # a fence above those that the claims give


@dataclass(frozen=True)
class Costs:
    """Of a store with so many sequences; times are medians of single calls, in milliseconds."""

    sequences: int
    seconds_to_fill: float
    bytes_each: float
    claim: float
    write: float
    usage: float

    def __str__(self) -> str:
        return (
            f"{self.sequences:>9,} sequences: {self.bytes_each / 1024:6.2f} KiB each on disk, filled in "
            f"{self.seconds_to_fill:.1f} s; a claim {self.claim:.3f} ms, {min(FLEET, self.sequences)} checkpoints "
            f"{self.write:.2f} ms, usage {self.usage:.3f} ms"
        )


def measured(sequences: int, checkpoints: int, folder: Path | None) -> Costs:
    """Fill a store and use it."""
    random = np.random.default_rng(0)
    with TemporaryDirectory(dir=folder) as place:
        store = SqliteStore(Path(place) / "parked.db", Terms(keep=checkpoints))
        start = time.perf_counter()
        for step in range(checkpoints):
            for first in range(0, sequences, BATCH):
                write(store, range(first, min(first + BATCH, sequences)), step, 1)
        filled = time.perf_counter() - start
        each = sum(file.stat().st_size for file in Path(place).iterdir()) / sequences
        chosen = [name(number) for number in random.integers(sequences, size=CALLS)]
        fleets = [random.choice(sequences, min(FLEET, sequences), replace=False).tolist() for _ in range(CALLS)]
        claims = timed(lambda id_: claim(store, id_), chosen)
        writes = timed(lambda fleet: write(store, fleet, checkpoints, LATEST), fleets)
        counts = timed(lambda _: store.usage(), chosen)
        store.close()
    return Costs(sequences, filled, each, claims, writes, counts)


def name(number: int) -> str:
    """An id as a server draws it: of no order."""
    return sha256(b"%d" % number).hexdigest()[:32]


def token(id_: str) -> bytes:
    """The digest of a sequence's token."""
    return sha256(id_.encode()).digest()


def write(store: SqliteStore, numbers: Sequence[int], step: int, fence: int) -> None:
    """One checkpoint each."""
    states = np.random.default_rng(step).standard_normal((len(numbers), WIDTH), np.float32)
    ids, steps = [name(number) for number in numbers], [step] * len(numbers)
    checkpoints = encode_many("parked", 1, "00" * 32, steps, states)
    births = [Birth(token(id_), "bench", "parked") for id_ in ids]
    given = zip(ids, checkpoints, births, strict=True)
    refused = store.write([Write(id_, fence, step, data, birth) for id_, data, birth in given], time.time())
    assert not refused, refused


def claim(store: SqliteStore, id_: str) -> None:
    """As when a client comes back."""
    (answer,) = store.claim([Claim(id_, token(id_))], time.time())
    assert isinstance(answer, Claimed), answer


def timed(call: Callable[[Given], object], each: Iterable[Given]) -> float:
    """The median of single calls in milliseconds."""
    times = []
    for given in each:
        start = time.perf_counter()
        call(given)
        times.append(time.perf_counter() - start)
    return median(times) * 1e3


def main() -> None:
    """Measure a small store and a large one."""
    parser = argparse.ArgumentParser(prog="python -m bench.parked", description=__doc__)
    parser.add_argument("--sequences", type=int, default=1_000_000, help="in the large store (default: 1,000,000)")
    parser.add_argument("--checkpoints", type=int, default=1, help="of each sequence (default: 1)")
    parser.add_argument("--folder", type=Path, help="where the files are made, and removed (default: the system's)")
    options = parser.parse_args()
    few = measured(10, options.checkpoints, options.folder)
    print(few)
    many = measured(options.sequences, options.checkpoints, options.folder)
    print(many)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"a claim among the many takes {many.claim / few.claim:.2f} times as long; {memory:.0f} MiB of memory at most"
    )


if __name__ == "__main__":
    main()
