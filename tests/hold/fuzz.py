"""Messages that no client would send: valid ones with wild numbers, and bytes that are changed at random."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from tests.lab.streaming import LOST
from tests.raw_stream import RawStream, close, fleet, open_, steps
from tests.shelf import MODEL
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1 import tensor_pb2
from tidegate.v1.sequence_pb2 import StreamRequest, StreamResponse

if TYPE_CHECKING:
    import random

    from tests.hold.tally import Tally

WILD = (0, 1, 2, 3, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
WIDE = (*WILD, 2**63 - 1, 2**63, 2**64 - 1)
BATCH = 50  # messages that are sent before anything is read


class Fuzz:
    """One stream after the other, each with a sequence open."""

    def __init__(self, address: str, chance: random.Random, tally: Tally) -> None:
        self._address, self._chance, self._tally = address, chance, tally

    async def run(self, a_second: float) -> None:
        """For ever, about so many a second."""
        loop = asyncio.get_running_loop()
        began, sent = loop.time(), 0
        while True:
            with suppress(*LOST, TimeoutError, AssertionError):
                async with RawStream(self._address) as stream:
                    await stream.say(open_(0, MODEL))
                    await stream.hear()
                    reading = asyncio.create_task(self._read(stream))
                    for _ in range(20):
                        batch = [self.message() for _ in range(BATCH)]
                        self._tally.fuzzed += len(batch)
                        sent += len(batch)
                        await stream.say(*batch)
                        await asyncio.sleep(max(0.0, began + sent / a_second - loop.time()))
                        if reading.done():
                            break
                    reading.cancel()
            await asyncio.sleep(max(0.01, began + sent / a_second - loop.time()))

    async def _read(self, stream: RawStream) -> None:
        """Whatever comes, until the stream ends."""
        with suppress(*LOST):
            while isinstance(await stream.call.read(), StreamResponse):
                pass

    def message(self) -> bytes:
        """Any."""
        request = self._chance.choice((self._open, self._steps, self._fleet, self._resume, self._other))()
        if self._chance.random() < 0.1:
            request.more.extend([self._steps(), self._other()])
        data = request.SerializeToString()
        return self._changed(data) if self._chance.random() < 0.05 else data

    def _small(self) -> int:
        return self._chance.choice(WILD)

    def _large(self) -> int:
        return self._chance.choice(WIDE)

    def _open(self) -> StreamRequest:
        request = open_(self._small(), self._chance.choice((MODEL, "", "nobody", "x" * 300)), version=self._large())
        request.open.count = self._chance.choice((0, 1, 3, 2**31, 2**32 - 1))
        request.open.trace.CopyFrom(
            pb.TraceSelection(parts=[self._chance.randrange(6)], layers=[self._small()], every=self._small())
        )
        if self._chance.random() < 0.2:
            request.open.state.CopyFrom(pb.State(model=MODEL, version=self._large(), step=self._large()))
        return request

    def _steps(self) -> StreamRequest:
        request = steps(self._chance.choice((0, self._small())), self._large(), np.zeros(3, np.float32))
        tensor = request.steps.inputs[0]
        match self._chance.randrange(6):
            case 0:
                tensor.shape[:] = [self._chance.choice((-1, 0, 1, 3, 2**62)) for _ in range(self._chance.randrange(9))]
            case 1:
                tensor.type = self._chance.randrange(15)
            case 2:
                tensor.data = self._chance.randbytes(self._chance.randrange(40))
            case 3:
                tensor.data = np.array([np.nan, np.inf, 1], np.float32).tobytes()
            case 4:
                request.steps.inputs.append(tensor_pb2.Tensor(name="x"))
            case _:
                request.steps.answered = self._large()
        return request

    def _fleet(self) -> StreamRequest:
        count = self._chance.randrange(5)
        handles = [self._chance.choice((0, 1, self._small())) for _ in range(count)]
        request = fleet(
            handles, [self._chance.choice((0, 1, 7)) for _ in range(count)], np.zeros((count, 3), np.float32)
        )
        if self._chance.random() < 0.3:
            request.fleet.handles += b"x"
        return request

    def _resume(self) -> StreamRequest:
        ids = ["", "x", "\u2603", "0" * 32][: self._chance.randrange(5)]
        answered = [self._large() for _ in range(self._chance.randrange(5))]
        resume = pb.Resume(handle=self._small(), sequence_ids=ids, answered=answered, resume_token="no")
        return StreamRequest(resume=resume)

    def _other(self) -> StreamRequest:
        handle = self._small()
        return self._chance.choice(
            (
                StreamRequest(),
                close(handle, self._chance.choice((0, 1, 2**32 - 1))),
                StreamRequest(read_state=pb.ReadState(handle=self._chance.choice((0, handle)))),
                StreamRequest(rewind=pb.Rewind(handle=self._chance.choice((0, handle)), step=self._large())),
                StreamRequest(move=pb.Move(handle=self._chance.choice((0, handle)), version=self._large())),
            )
        )

    def _changed(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self._chance.randint(1, 4)):
            if changed:
                changed[self._chance.randrange(len(changed))] = self._chance.randrange(256)
        return bytes(changed)
