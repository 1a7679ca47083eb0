"""What parked sequences cost a store: their place on disk, and the time to claim one of ten and one of very many.

Fills two SQLite files with sequences of a 2 x 128 LSTM, a thousand to a write, as a busy server does. Then the two take
turns: claims of random sequences, one at a time, and writes of a checkpoint each for 64 random ones. Both wait for the
disk, whose mood the turns share.
"""

import argparse
import os
import resource
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from server.checkpoint import encode_many
from server.sqlite_store import SqliteStore
from server.store import Birth, Claim, Claimed, Terms, Write

WIDTH = 2 * 2 * 128  # h and c of two layers
BATCH = 1_000
FLEET = 64
TURNS = 200
LATEST = 2**52  # no clock gets as far, so claims raise such a fence by one


class Parked:
    """A file with so many sequences, and how long its calls took, in seconds."""

    def __init__(self, path: Path, sequences: int, checkpoints: int) -> None:
        self.sequences = sequences
        self._random = np.random.default_rng(0)
        self._store = SqliteStore(path, Terms(keep=checkpoints))
        self._step = self._turn = 0
        start = time.perf_counter()
        for self._step in range(checkpoints):
            for first in range(0, sequences, BATCH):
                self._write(range(first, min(first + BATCH, sequences)), 1)
        self.seconds_to_fill = time.perf_counter() - start
        self._store.close()  # carries the log over
        self.bytes_each = path.stat().st_size / sequences
        self.times: dict[str, list[float]] = {"read": [], "claim": [], "write": [], "usage": []}

    def take_turn(self) -> None:
        """Makes each call once, with random sequences."""
        self._turn += 1
        one = name(int(self._random.integers(self.sequences)))
        fleet = self._random.choice(self.sequences, min(FLEET, self.sequences), replace=False).tolist()
        self._time("read", lambda: found(self._store.read([Claim(one, token(one))], time.time())))
        self._time("claim", lambda: found(self._store.claim([Claim(one, token(one))], time.time())))
        self._time("write", lambda: self._write(fleet, LATEST + 2 * self._turn))
        self._time("usage", self._store.usage)

    def close(self) -> None:
        """Lets go of the file."""
        self._store.close()

    def __str__(self) -> str:
        calls = ", ".join(f"{call} {median(times) * 1e3:.3f} ms" for call, times in self.times.items())
        return (
            f"{self.sequences:>9,} sequences, {self.bytes_each / 1024:.2f} KiB each on disk, filled in "
            f"{self.seconds_to_fill:.0f} s: {calls}"
        )

    def _write(self, numbers: Sequence[int], fence: int) -> None:
        states = np.random.default_rng(0).standard_normal((len(numbers), WIDTH), np.float32)
        ids, steps = [name(number) for number in numbers], [self._step] * len(numbers)
        births = [Birth(token(id_), "bench", "parked") for id_ in ids]
        data = encode_many("parked", 1, "00" * 32, steps, states)
        writes = [Write(i, fence, self._step, d, b) for i, d, b in zip(ids, data, births, strict=True)]
        refused = self._store.write(writes, time.time())
        assert not refused, refused

    def _time(self, call: str, make: Callable[[], object]) -> None:
        start = time.perf_counter()
        make()
        self.times[call].append(time.perf_counter() - start)


def name(number: int) -> str:
    """An id without any order."""
    return sha256(b"%d" % number).hexdigest()[:32]


def token(id_: str) -> bytes:
    """The digest of a sequence's token."""
    return sha256(id_.encode()).digest()


def found(answers: Sequence[object]) -> None:
    """Make sure that it was worth the time."""
    assert all(isinstance(answer, Claimed) for answer in answers), answers


def main() -> None:
    """Measure a small store beside a large one."""
    parser = argparse.ArgumentParser(prog="python -m bench.parked", description=__doc__)
    parser.add_argument("--sequences", type=int, default=1_000_000, help="in the large store (default: 1,000,000)")
    parser.add_argument("--checkpoints", type=int, default=1, help="of each sequence (default: 1)")
    parser.add_argument("--folder", type=Path, help="where the files are made, and removed (default: the system's)")
    options = parser.parse_args()
    with TemporaryDirectory(dir=options.folder) as place:
        few = Parked(Path(place) / "few.db", 10, options.checkpoints)
        many = Parked(Path(place) / "many.db", options.sequences, options.checkpoints)
        os.sync()  # what was filled is not written out at the expense of what is timed
        for _ in range(TURNS):
            few.take_turn()
            many.take_turn()
        few.close()
        many.close()
    print(f"{few}\n{many}")
    ratio = median(many.times["claim"]) / median(few.times["claim"])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"a claim among the many takes {ratio:.2f} times as long; this process took {memory:.0f} MiB at most")


if __name__ == "__main__":
    main()
