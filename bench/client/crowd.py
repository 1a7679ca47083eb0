"""Clients in one process, each with a token of its own: some that want little, or one with thousands of steps ready.

It takes one question a line and gives one answer a line, both JSON:

  {"ask": "few", "port": p, "tokens": [...], "length": seconds}   each takes a step, and rests before the next
  {"ask": "many", "port": p, "tokens": [...], "sequences": n}     the first has a step of each of these ready, for ever
  {"ask": "end"}                                                  of "many": ends it

"few" and "end" answer {"took": [milliseconds of each step], "steps": how many were answered, "seconds": in how long}.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from threading import Thread
from typing import Any

import grpc
import uvloop

from bench.attacks.speech import MODEL, NONE, UNLIMITED, heard
from bench.client.traffic import METHOD, rows
from bench.processes.worker import Json, work
from tidegate import wire
from tidegate.v1 import sequence_pb2 as pb

REST = 0.02  # seconds between a step's answer and the next step of one that wants little
BUNDLE = 500  # steps in one message of the one that wants much
PATIENCE = 120.0  # seconds
WARM = 5  # steps that do not count
ROW = wire.encode("", rows(0, 1)[0])


@asynccontextmanager
async def stream(port: int, token: str) -> AsyncIterator[Any]:
    """A stream of a connection of its own that takes bytes."""
    options: Any = [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)]
    metadata = [("authorization", f"Bearer {token}")] if token else []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call: Any = channel.stream_stream(METHOD, None, pb.StreamResponse.FromString)(metadata=metadata)
        yield call
        call.cancel()


def step(handle: int, number: int) -> pb.StreamRequest:
    return pb.StreamRequest(steps=pb.Steps(handle=handle, first_step=number, inputs=[ROW], answered=number))


async def little(port: int, token: str, start: float, length: float) -> list[float]:
    """One sequence, a step from time to time; what each took, in ms."""
    took = []
    async with stream(port, token) as call:
        await call.write(pb.StreamRequest(open=pb.Open(model=MODEL, trace=NONE)).SerializeToString())
        await heard(call, 1)
        number, ends = 0, start + length
        while (sent := time.perf_counter()) < ends:
            await call.write(step(0, number).SerializeToString())
            (answer,) = await heard(call, 1)
            if not answer.HasField("answers"):
                raise RuntimeError(f"a step was refused: {answer}")
            number += 1
            if sent >= start and number > WARM:
                took.append((time.perf_counter() - sent) * 1e3)
            await asyncio.sleep(REST)
    return took


async def few(port: int, tokens: Sequence[str], length: float) -> Json:
    """All that want little, side by side."""
    start = time.perf_counter() + 1.0  # by then all are open
    took = await asyncio.gather(*(little(port, token, start, length) for token in tokens))
    return {"took": [ms for each in took for ms in each], "steps": sum(map(len, took)), "seconds": length}


class Many:
    """One stream with many sequences, each of which always has a step ready or running."""

    def __init__(self, sequences: int) -> None:
        self._count = sequences
        self._answered = 0
        self._fewer = asyncio.Event()  # steps are ready
        self._began = 0.0

    async def run(self, port: int, token: str, going: asyncio.Event) -> None:
        async with stream(port, token) as call:
            opening = pb.Open(model=MODEL, count=self._count, trace=NONE, bundle=True)
            await call.write(pb.StreamRequest(open=opening).SerializeToString())
            await heard(call, 1)
            self._began = time.perf_counter()
            going.set()
            await asyncio.gather(self._send(call), self._hear(call))

    async def _send(self, call: Any) -> None:  # noqa: ANN401 # a call of grpc.aio
        """Two rounds ahead of the answers: there are always as many steps ready as there are sequences."""
        number = 0
        while True:
            while number * self._count > self._answered + self._count:
                self._fewer.clear()
                await self._fewer.wait()
            for first in range(0, self._count, BUNDLE):
                bundle = step(first, number)
                bundle.more.extend(step(h, number) for h in range(first + 1, min(first + BUNDLE, self._count)))
                await call.write(bundle.SerializeToString())
            number += 1

    async def _hear(self, call: Any) -> None:  # noqa: ANN401 # likewise
        while answers := await heard(call, 1):
            self._answered += len(answers)
            self._fewer.set()

    def summary(self) -> Json:
        return {"took": [], "steps": self._answered, "seconds": time.perf_counter() - self._began}


class Crowd:
    """Answers the questions, in an event loop with a thread of its own, which goes on between two of them."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._many = Many(0)
        self._running: Future[None] | None = None
        Thread(target=self._loop.run_forever, daemon=True).start()

    def __call__(self, question: Json) -> Json:
        if question["ask"] == "few":
            took: Json = self._do(few(question["port"], question["tokens"], question["length"]))
            return took
        if question["ask"] == "many":
            self._many, going = Many(question["sequences"]), asyncio.Event()
            work = self._many.run(question["port"], question["tokens"][0], going)
            self._running = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._do(going.wait())
            return {}
        assert self._running is not None, "it was begun"
        if self._running.done():
            self._running.result()
        summary = self._many.summary()
        self._running.cancel()
        return summary

    def _do(self, call: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 # what it returns
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(PATIENCE)


if __name__ == "__main__":
    work(Crowd())
