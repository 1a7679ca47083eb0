"""One of our Python clients, a process of its own: it walks through sequences step by step, in closed loops.

It takes one question a line and gives one answer a line, both JSON:

  {"ask": "asyncio" or "threads", "port": p, "pid": of the server, "model": name, "count": n, "seconds": s,
   "options": [[name, value], ...]}
      each of n sequences takes steps for s seconds: {"speed", "median", "client", "server"}, see bench.clients

It is run as a file, with the code of whatever checkout comes first on PYTHONPATH: it uses little of it.
"""

import asyncio
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import Any

import numpy as np
import uvloop

from bench.processes.processors import process_seconds
from bench.processes.worker import Json, work
from tidegate import AsyncClient, Client

WARM = 0.3  # seconds before what counts
ROWS = np.random.default_rng(0).standard_normal((50, 8), dtype=np.float32)

Opened = Callable[[Any], Any]  # a client, given its class


def answer(question: Json) -> Json:
    options = tuple(map(tuple, question["options"]))
    given: Json = {"options": options} if options else {}

    def client(kind: Any) -> Any:  # noqa: ANN401 - either client
        return kind(f"127.0.0.1:{question['port']}", **given)

    window = Window(question["pid"])
    what = client, question["model"], question["count"], question["seconds"], window
    if question["ask"] == "asyncio":
        uvloop.run(tasks(*what))
    else:
        threads(*what)
    return window.figures()


class Window:
    """What is measured, from `begin` to `end`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.took: list[float] = []

    def begin(self) -> float:
        """Forgets what was; gives the time."""
        self.took.clear()
        self._began = self._now()
        return self._began[0]

    def end(self) -> None:
        self._ended = self._now()

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), process_seconds(self._pid)

    def figures(self) -> Json:
        elapsed, own, server = (after - before for after, before in zip(self._ended, self._began, strict=True))
        count = len(self.took)
        each = {"client": own / count * 1e6, "server": server / count * 1e6}
        return {"speed": count / elapsed, "median": statistics.median(self.took) * 1e3, **each}


async def tasks(client: Opened, model: str, count: int, seconds: float, window: Window) -> None:
    """A client for asyncio; each sequence is stepped by a task of its own."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(client(AsyncClient))
        opened = [await stack.enter_async_context(one.sequence(model, trace=False)) for _ in range(count)]
        for length in (WARM, seconds):
            ends = window.begin() + length
            await asyncio.gather(*(_walk(sequence, ends, window.took) for sequence in opened))
            window.end()


async def _walk(sequence: Any, ends: float, took: list[float]) -> None:  # noqa: ANN401 - an AsyncSequence
    number = 0
    while (sent := time.perf_counter()) < ends:
        await sequence.step(ROWS[number % len(ROWS)])
        took.append(time.perf_counter() - sent)
        number += 1


def threads(client: Opened, model: str, count: int, seconds: float, window: Window) -> None:
    """A client for threads; one sequence is stepped by the main thread, as a program does."""
    with ExitStack() as stack:
        one = stack.enter_context(client(Client))
        opened = [stack.enter_context(one.sequence(model, trace=False)) for _ in range(count)]
        pool = stack.enter_context(ThreadPoolExecutor(count))
        for length in (WARM, seconds):
            run = partial(_run, ends=window.begin() + length, took=window.took)
            list(pool.map(run, opened) if count > 1 else map(run, opened))
            window.end()


def _run(sequence: Any, ends: float, took: list[float]) -> None:  # noqa: ANN401 - a Sequence
    number = 0
    while (sent := time.perf_counter()) < ends:
        sequence.step(ROWS[number % len(ROWS)])
        took.append(time.perf_counter() - sent)
        number += 1


if __name__ == "__main__":
    work(answer)
