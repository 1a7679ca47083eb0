"""How long it takes to go on with a sequence after a cut, for a young one and for an old one.

One server with its checkpoints in SQLite, two sequences of a 2 x 128 LSTM. Each is cut and resumed in turns: a new
connection, Resume, one step; the time runs from before the connection to the answer to the step.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import grpc
import numpy as np

from bench import machine
from bench.cache import Cache
from bench.child import Child, free_port
from bench.scenario import FEATURES, model_name
from tidegate import wire
from tidegate.v1 import sequence_pb2, tidegate_pb2_grpc

if TYPE_CHECKING:
    from bench.loop import Call

HIDDEN = 128
CHUNK = 1_000
LIMIT = 0.05  # seconds that a resume may take
PATIENCE = 60.0  # seconds for the server to start


class Sequence:
    """One sequence, with nothing but what its client knows of it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._rows = np.random.default_rng(0).standard_normal((CHUNK, FEATURES), dtype=np.float32)
        self._ids: list[str] = []
        self._token = ""
        self.step = 0
        self.times: list[float] = []

    async def grow(self, age: int) -> None:
        """Opens it, and takes so many steps."""
        async with connected(self._port) as call:
            wanted = sequence_pb2.Open(model=model_name(HIDDEN), trace=sequence_pb2.TraceSelection(none=True))
            opened = (await ask(call, sequence_pb2.StreamRequest(open=wanted))).opened
            self._ids, self._token = list(opened.sequence_ids), opened.resume_token
            while self.step < age:
                await self._take(call, min(CHUNK, age - self.step))

    async def resume(self) -> None:
        """Comes back to it after a cut, and takes a step."""
        start = time.perf_counter()
        async with connected(self._port) as call:
            wanted = sequence_pb2.Resume(sequence_ids=self._ids, resume_token=self._token, answered=[self.step])
            opened = (await ask(call, sequence_pb2.StreamRequest(resume=wanted))).opened
            if list(opened.next_steps) != [self.step]:
                raise RuntimeError(f"resumed at {list(opened.next_steps)}; expected {self.step}")
            await self._take(call, 1)
            self.times.append(time.perf_counter() - start)

    async def _take(self, call: "Call", count: int) -> None:
        inputs = [wire.encode("", self._rows[:count])]
        steps = sequence_pb2.Steps(first_step=self.step, answered=self.step, inputs=inputs)
        answered = (await ask(call, sequence_pb2.StreamRequest(steps=steps))).answers
        if not answered.outputs:
            raise RuntimeError(f"steps from {self.step} on were not answered")
        self.step += count


@asynccontextmanager
async def connected(port: int) -> AsyncIterator["Call"]:
    """A stream on a connection of its own, cut at the end."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        stub = cast("tidegate_pb2_grpc.TidegateAsyncStub", tidegate_pb2_grpc.TidegateStub(channel))
        call = stub.Stream()
        yield call
        call.cancel()


async def ask(call: "Call", request: sequence_pb2.StreamRequest) -> Any:  # noqa: ANN401 - one of several messages
    """Sends a request and waits for its answer."""
    await call.write(request)
    return await call.read()


async def ready(port: int) -> None:
    """Waits for a server that has its models."""
    wanted = sequence_pb2.StreamRequest(open=sequence_pb2.Open(model=model_name(HIDDEN)))
    patience = time.monotonic() + PATIENCE
    while time.monotonic() < patience:
        try:
            async with connected(port) as call:
                if (await ask(call, wanted)).WhichOneof("response") == "opened":
                    return
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.1)
    raise TimeoutError("the server did not start")


async def measure(port: int, ages: list[int], times: int) -> list[Sequence]:
    """Lets the sequences grow, and resumes each in its turn."""
    await ready(port)
    sequences = [Sequence(port) for _ in ages]
    for sequence, age in zip(sequences, ages, strict=True):
        await sequence.grow(age)
    for _ in range(times):
        for sequence in sequences:
            await sequence.resume()
    return sequences


def main() -> int:
    """Measures and prints; 1 if a resume takes longer than it may."""
    parser = argparse.ArgumentParser(prog="python -m bench.resuming", description=__doc__)
    parser.add_argument("--ages", type=int, nargs="+", default=[1_000, 1_000_000], help="steps of each sequence")
    parser.add_argument("--times", type=int, default=100, help="how often each is resumed (default: 100)")
    options = parser.parse_args()
    cache = Cache()
    subprocess.run([sys.executable, "-m", "bench.models", str(cache.root)], check=True, timeout=300)
    print(", ".join(f"{key} {value}" for key, value in machine.describe().items()))
    port = free_port()
    with TemporaryDirectory() as folder:
        store = f"sqlite:{Path(folder) / 'sequences.sqlite'}"
        command = ["server", "--models", str(cache.models), "--store", store, "--port", str(port)]
        with Child("resuming", command, cache.log("resuming")):
            sequences = asyncio.run(measure(port, options.ages, options.times))
    for age, sequence in zip(options.ages, sequences, strict=True):
        took = sorted(sequence.times)
        print(f"after {age:>9,} steps: median {median(took) * 1e3:6.2f} ms, longest {took[-1] * 1e3:6.2f} ms")
    first, last = median(sequences[0].times), median(sequences[-1].times)
    print(f"the oldest takes {last / first:.2f} times as long as the youngest")
    return int(max(first, last) > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
