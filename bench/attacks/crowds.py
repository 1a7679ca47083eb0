"""Ten thousand sequences that do the same thing at the same moment: open, close, leave, are parked, come back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import numpy as np

from bench.attacks.speech import CROWD, IDLE, UNLIMITED, Attack, closing, heard, opening, stream, until_quiet
from bench.scenario import FEATURES
from tidegate import wire
from tidegate.v1 import sequence_pb2 as pb

if TYPE_CHECKING:
    from bench.attacks.speech import Call

    Lists = grpc.aio.UnaryStreamMultiCallable[bytes, bytes]


async def openings(port: int) -> None:
    async with stream(port) as call:
        for message in (opening(count=50_000), closing(count=50_000)):
            await call.write(message)
            await heard(call, 1)


async def groups(port: int) -> None:
    opens = (opening(n, 1, pb.TraceSelection(every=n + 1)) for n in range(CROWD))
    async with stream(port) as call:
        for message in opens:
            await call.write(message)
        await until_quiet(call)
    await asyncio.sleep(1)  # their leaving is part of it


async def comeback(port: int) -> None:
    async with crowd(port) as (_, opened):
        pass
    async with stream(port) as call:
        resume = pb.Resume(sequence_ids=opened.sequence_ids, resume_token=opened.resume_token, answered=[1] * CROWD)
        await call.write(pb.StreamRequest(resume=resume).SerializeToString())
        await heard(call, 1)
        await call.write(closing(count=CROWD))
        await heard(call, 1)


async def parking(port: int) -> None:
    async with crowd(port) as (call, _):
        await call.write(closing(count=CROWD, park=True))
        await heard(call, 1)


async def idle(port: int) -> None:
    async with crowd(port):
        await asyncio.sleep(3 * IDLE)


async def connections(port: int) -> None:
    async def one() -> None:
        async with stream(port) as call:
            await call.write(opening())
            await heard(call, 1)

    await asyncio.gather(*(one() for _ in range(300)))


async def listing(port: int) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=UNLIMITED) as channel:
        pages: Lists = channel.unary_stream("/tidegate.v1.Admin/ListSequences")
        async for _ in pages(b""):
            pass


@asynccontextmanager
async def crowd(port: int) -> AsyncIterator[tuple["Call", pb.Opened]]:
    """10,000 sequences of one stream, each with one step taken; cut at the end."""
    rows = wire.encode("", np.zeros((CROWD, FEATURES), np.float32))
    fleet = pb.FleetSteps(handles=np.arange(CROWD, dtype="<u4").tobytes(), steps=bytes(8 * CROWD), inputs=[rows])
    async with stream(port) as call:
        await call.write(opening(count=CROWD))
        (opened,) = await heard(call, 1)
        if not opened.HasField("opened"):
            raise RuntimeError(f"{CROWD:,} sequences were refused: {opened.failure.error.message}")
        await call.write(pb.StreamRequest(fleet=fleet).SerializeToString())
        answered = 0
        while answered < CROWD:
            (response,) = await heard(call, 1)
            answered += len(response.fleet.handles) // 4
        yield call, opened.opened


CROWDS: dict[str, Attack] = {
    "50,000 opened by one message, closed by another": openings,
    "10,000 sequences traced in 10,000 ways, cut": groups,
    "10,000 stepped, cut, resumed and closed at once": comeback,
    "10,000 parked by one message": parking,
    "10,000 idle for so long that they are parked": idle,
    "all that is parked, listed": listing,
    "300 connections opened and cut at once": connections,
}
