"""One of our Python clients, a process of its own: it walks through sequences step by step, in closed loops.

It takes one question a line and gives one answer a line, both JSON:

  {"ask": "asyncio" or "threads", "port": p, "model": name, "count": n, "seconds": s, "options": [[name, value], ...]}
      each of n sequences takes steps for s seconds: {"speed", "median", "used"}, see bench.clients

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

from bench.processes.worker import Json, work
from tidegate import AsyncClient, Client

WARM = 0.3  # seconds before what counts
ROWS = np.random.default_rng(0).standard_normal((50, 8), dtype=np.float32)

Opened = Callable[[Any], Any]  # a client, given its class


def answer(question: Json) -> Json:
    """Answer one question."""
    options = tuple(map(tuple, question["options"]))
    given: Json = {"options": options} if options else {}

    def client(kind: Any) -> Any:  # noqa: ANN401 - either client
        return kind(f"127.0.0.1:{question['port']}", **given)

    what = question["model"], question["count"], question["seconds"]
    return uvloop.run(tasks(client, *what)) if question["ask"] == "asyncio" else threads(client, *what)


async def tasks(client: Opened, model: str, count: int, seconds: float) -> Json:
    """A client for asyncio; each sequence is stepped by a task of its own."""
    took = list[float]()
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(client(AsyncClient))
        opened = [await stack.enter_async_context(one.sequence(model, trace=False)) for _ in range(count)]
        for length in (WARM, seconds):
            took.clear()
            began, used = time.perf_counter(), time.process_time()
            await asyncio.gather(*(_walk(sequence, began + length, took) for sequence in opened))
            elapsed, used = time.perf_counter() - began, time.process_time() - used
    return figures(took, elapsed, used)


async def _walk(sequence: Any, ends: float, took: list[float]) -> None:  # noqa: ANN401 - an AsyncSequence
    number = 0
    while (sent := time.perf_counter()) < ends:
        await sequence.step(ROWS[number % len(ROWS)])
        took.append(time.perf_counter() - sent)
        number += 1


def threads(client: Opened, model: str, count: int, seconds: float) -> Json:
    """A client for threads; one sequence is stepped by the main thread, as a program does."""
    took = list[float]()
    with ExitStack() as stack:
        one = stack.enter_context(client(Client))
        opened = [stack.enter_context(one.sequence(model, trace=False)) for _ in range(count)]
        pool = stack.enter_context(ThreadPoolExecutor(count))
        for length in (WARM, seconds):
            took.clear()
            began, used = time.perf_counter(), time.process_time()
            run = partial(_run, ends=began + length, took=took)
            list(pool.map(run, opened) if count > 1 else map(run, opened))
            elapsed, used = time.perf_counter() - began, time.process_time() - used
    return figures(took, elapsed, used)


def _run(sequence: Any, ends: float, took: list[float]) -> None:  # noqa: ANN401 - a Sequence
    number = 0
    while (sent := time.perf_counter()) < ends:
        sequence.step(ROWS[number % len(ROWS)])
        took.append(time.perf_counter() - sent)
        number += 1


def figures(took: list[float], elapsed: float, used: float) -> Json:
    """Sums up a window."""
    return {
        "speed": len(took) / elapsed,
        "median": statistics.median(took) * 1e3,
        "used": used / len(took) * 1e6,
    }


if __name__ == "__main__":
    work(answer)
