"""Clients with very many sequences, in one process.

It takes one question a line and gives one answer a line, both JSON; `model` and `port` say which server's:

  {"ask": "connect", "count": n}    so many connections are there afterwards, each with a sequence that took a step
  {"ask": "open", "count": n}       so many sequences are open afterwards, on few connections, each after a step
  {"ask": "turn", "pid": p}         each of them takes a step, as the answers before come: {"steps", "seconds" of p}
  {"ask": "more", "times": n}       as often, one more is connected or opened, steps and closes: {"took": [ms of each]}
  {"ask": "tick"}                   each takes a step once a second from now on: {}
  {"ask": "tock"}                   ends that: {"late": steps that were not answered a second after they were sent}
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from threading import Thread
from typing import Any

import numpy as np
import uvloop

from bench.attacks.speech import NONE
from bench.client.plain import Call, Plain
from bench.client.traffic import METHOD, rows
from bench.processes.processors import process_seconds
from bench.processes.worker import Json, work
from server.operations.connections import raise_descriptors
from tidegate import wire
from tidegate.v1 import sequence_pb2 as pb

PATIENCE = 300.0  # seconds
AT_ONCE = 64  # connections that are made, or step, at a time
CONNECTIONS = 4  # of a few
PIECE = 500  # sequences of a fleet's message
ROW = wire.encode("", rows(0, 1)[0])


def opening(model: str, handle: int = 0, count: int = 1) -> pb.StreamRequest:
    return pb.StreamRequest(open=pb.Open(model=model, handle=handle, count=count, trace=NONE))


def step(number: int) -> pb.StreamRequest:
    return pb.StreamRequest(steps=pb.Steps(first_step=number, inputs=[ROW], answered=number))


async def ask(call: Call, request: pb.StreamRequest) -> None:
    """Sends a request and waits for its answer. Raises RuntimeError: it is a refusal."""
    response = pb.StreamResponse.FromString(await call.ask(request.SerializeToString()))
    if response.HasField("failure"):
        raise RuntimeError(response.failure.error.message)


class One:
    """A connection with one sequence."""

    def __init__(self, plain: Plain) -> None:
        self._plain, self._call, self._step = plain, plain.begin(METHOD), 0

    @classmethod
    async def open(cls, port: int, model: str) -> "One":
        """Connects, opens, and takes a step."""
        one = cls(await Plain.connect(port))
        await ask(one._call, opening(model))
        await one.step()
        return one

    async def step(self) -> int:
        await ask(self._call, step(self._step))
        self._step += 1
        return 1

    def close(self) -> None:
        self._plain.close()


class Block:
    """A connection with many sequences, which take their steps together."""

    def __init__(self, plain: Plain) -> None:
        self._plain, self._call, self._count = plain, plain.begin(METHOD), 0
        self._due = np.zeros(0, np.uint64)  # the next step of each
        self._whole = asyncio.Event()  # nothing is missing, or never comes
        self._missing = 0
        self._error: Exception | None = None
        self._call.heard, self._call.ended = self._hear, self._end

    @classmethod
    async def connect(cls, port: int) -> "Block":
        return cls(await Plain.connect(port))

    @property
    def count(self) -> int:
        return self._count

    async def grow(self, model: str, count: int) -> None:
        """So many are open afterwards, each after as many steps as it took."""
        if count > self._count:
            await ask(self._call, opening(model, self._count, count - self._count))
            fresh = np.arange(self._count, count)
            self._due = np.append(self._due, np.zeros(len(fresh), np.uint64))
            self._count = count
            await self.take(fresh)

    async def step(self) -> int:
        return await self.take(np.arange(self._count))

    async def take(self, handles: "np.ndarray[Any, Any]") -> int:
        """One step of these, in several messages."""
        for first in range(0, len(handles), PIECE):
            await self._piece(handles[first : first + PIECE])
        return len(handles)

    async def _piece(self, handles: "np.ndarray[Any, Any]") -> None:
        fleet = pb.FleetSteps(handles=handles.astype("<u4").tobytes(), steps=self._due[handles].astype("<u8").tobytes())
        fleet.answered = fleet.steps
        fleet.inputs.append(wire.encode("", np.resize(rows(0, 1), (len(handles), rows(0, 1).shape[1]))))
        self._missing += len(handles)
        self._whole.clear()
        self._call.send(pb.StreamRequest(fleet=fleet).SerializeToString())
        self._due[handles] += np.uint64(1)
        await self._whole.wait()
        if self._error is not None:
            raise self._error

    def _hear(self, message: bytes) -> None:
        response = pb.StreamResponse.FromString(message)
        for each in (response, *response.more):
            if each.HasField("failure"):
                self._end(RuntimeError(each.failure.error.message))
            self._missing -= len(each.fleet.handles) // 4
        if not self._missing:
            self._whole.set()

    def _end(self, error: Exception) -> None:
        self._error = error
        self._whole.set()

    def close(self) -> None:
        self._plain.close()


class Many:
    """Answers the questions, in an event loop with a thread of its own, which goes on between two of them."""

    def __init__(self) -> None:
        raise_descriptors()
        self._loop = uvloop.new_event_loop()
        self._ones: list[One] = []
        self._blocks: list[Block] = []
        self._late = 0
        self._ticking: Future[None] | None = None
        Thread(target=self._loop.run_forever, daemon=True).start()

    def __call__(self, question: Json) -> Json:
        asked: Callable[[Json], Coroutine[Any, Any, Json | None]] = getattr(self, f"_{question['ask']}")
        return asyncio.run_coroutine_threadsafe(asked(question), self._loop).result(PATIENCE) or {}

    async def _connect(self, question: Json) -> None:
        while (missing := question["count"] - len(self._ones)) > 0:
            new = (One.open(question["port"], question["model"]) for _ in range(min(missing, AT_ONCE)))
            self._ones += await asyncio.gather(*new)

    async def _open(self, question: Json) -> None:
        while len(self._blocks) < CONNECTIONS:
            self._blocks.append(await Block.connect(question["port"]))
        for block in self._blocks:
            await block.grow(question["model"], question["count"] // CONNECTIONS)

    async def _turn(self, question: Json) -> Json:
        before, steps = process_seconds(question["pid"]), 0
        everybody: list[One | Block] = [*self._ones, *self._blocks]
        for first in range(0, len(everybody), AT_ONCE):
            steps += sum(await asyncio.gather(*(each.step() for each in everybody[first : first + AT_ONCE])))
        return {"steps": steps, "seconds": process_seconds(question["pid"]) - before}

    async def _more(self, question: Json) -> Json:
        took = []
        for _ in range(question["times"]):
            began = time.perf_counter()
            one = await One.open(question["port"], question["model"])
            took.append((time.perf_counter() - began) * 1e3)
            one.close()
        return {"took": took}

    async def _tick(self, _question: Json) -> None:
        self._late = 0
        self._ticking = asyncio.run_coroutine_threadsafe(self._for_ever(), self._loop)

    async def _for_ever(self) -> None:
        await asyncio.gather(*(self._steadily(block) for block in self._blocks))

    async def _steadily(self, block: Block) -> None:
        pieces = np.array_split(np.arange(block.count), max(1, block.count // PIECE))
        due = time.perf_counter()
        while True:
            for piece in pieces:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                await block.take(piece)
                due += 1.0 / len(pieces)
                self._late += len(piece) * (time.perf_counter() - due > 1.0)

    async def _tock(self, _question: Json) -> Json:
        assert self._ticking is not None, "it was begun"
        if self._ticking.done():
            self._ticking.result()
        self._ticking.cancel()
        return {"late": self._late}


if __name__ == "__main__":
    work(Many())
