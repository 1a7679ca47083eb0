"""How long it takes to go on with a sequence after a cut, for a young one and for an old one.

One server with its checkpoints in SQLite, two sequences of a 2 x 128 LSTM. Each is cut and resumed in turns: a new
connection, Resume, one step; the time runs from before the connection to the answer to the step.
"""

import argparse
import asyncio
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.client.connection import ready
from bench.client.sequence import Sequence
from bench.processes import exports, machine
from bench.processes.cache import Cache
from bench.processes.child import Child, free_port
from bench.scenario import model_name

HIDDEN = 128
LIMIT = 0.05  # seconds that a resume may take


async def measure(port: int, ages: list[int], times: int) -> list[list[float]]:
    """Lets sequences grow, and resumes each in its turn; how long each took, in seconds."""
    await ready(port, model_name(HIDDEN))
    sequences = [Sequence(port) for _ in ages]
    for sequence, age in zip(sequences, ages, strict=True):
        await sequence.grow(model_name(HIDDEN), age)
    turns = [[await sequence.resume() for sequence in sequences] for _ in range(times)]
    return [list(took) for took in zip(*turns, strict=True)]


def main() -> int:
    """Measures and prints; 1 if a resume takes longer than it may."""
    parser = argparse.ArgumentParser(prog="python -m bench.resuming", description=__doc__)
    parser.add_argument("--ages", type=int, nargs="+", default=[1_000, 1_000_000], help="steps of each sequence")
    parser.add_argument("--times", type=int, default=100, help="how often each is resumed (default: 100)")
    options = parser.parse_args()
    cache = Cache()
    exports.write_missing(cache)
    print(", ".join(f"{key} {value}" for key, value in machine.describe().items()))
    port = free_port()
    with TemporaryDirectory() as folder:
        store = f"sqlite:{Path(folder) / 'sequences.sqlite'}"
        command = ["server", "--models", str(cache.models), "--store", store, "--port", str(port)]
        with Child("resuming", command, cache.log("resuming")):
            resumed = asyncio.run(measure(port, options.ages, options.times))
    for age, took in zip(options.ages, resumed, strict=True):
        print(f"after {age:>9,} steps: median {median(took) * 1e3:6.2f} ms, longest {max(took) * 1e3:6.2f} ms")
    first, last = median(resumed[0]), median(resumed[-1])
    print(f"the oldest takes {last / first:.2f} times as long as the youngest")
    return int(max(first, last) > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
