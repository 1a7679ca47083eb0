"""One sequence, with nothing but what its client knows of it: it is opened, cut, and resumed on a new connection."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.client.connection import ask, connected
from bench.scenario import FEATURES
from tidegate import wire
from tidegate.v1 import sequence_pb2

if TYPE_CHECKING:
    from bench.client.connection import Call

CHUNK = 1_000
ROWS = np.random.default_rng(0).standard_normal((CHUNK, FEATURES), dtype=np.float32)


@dataclass
class Sequence:
    """At a server on this machine, after so many answered steps."""

    port: int
    id: str = ""
    token: str = ""
    step: int = 0

    async def grow(self, model: str, age: int) -> None:
        """Opens it, and takes so many steps."""
        async with connected(self.port) as call:
            wanted = sequence_pb2.Open(model=model, trace=sequence_pb2.TraceSelection(none=True))
            opened = (await ask(call, sequence_pb2.StreamRequest(open=wanted))).opened
            self.id, self.token = opened.sequence_ids[0], opened.resume_token
            while self.step < age:
                await self._take(call, min(CHUNK, age - self.step))

    async def resume(self) -> float:
        """Comes back to it after a cut, and takes a step; how long that took, in seconds."""
        start = time.perf_counter()
        async with connected(self.port) as call:
            wanted = sequence_pb2.Resume(sequence_ids=[self.id], resume_token=self.token, answered=[self.step])
            answer = await ask(call, sequence_pb2.StreamRequest(resume=wanted))
            if list(answer.opened.next_steps) != [self.step]:
                raise RuntimeError(f"{self.id} was to be resumed at step {self.step}, got {answer}")
            await self._take(call, 1)
            return time.perf_counter() - start

    async def _take(self, call: "Call", count: int) -> None:
        inputs = [wire.encode("", ROWS[:count])]
        steps = sequence_pb2.Steps(first_step=self.step, answered=self.step, inputs=inputs)
        answered = (await ask(call, sequence_pb2.StreamRequest(steps=steps))).answers
        if not answered.outputs:
            raise RuntimeError(f"steps from {self.step} on were not answered")
        self.step += count
