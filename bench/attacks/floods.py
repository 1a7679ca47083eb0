"""Many requests of an ordinary kind, as quickly as a client can send them."""

import asyncio
from contextlib import suppress

import grpc
import numpy as np

from bench.attacks.speech import NONE, Attack, heard, opening, predict, stream
from bench.client.connection import channel
from bench.scenario import FEATURES
from tidegate import wire
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1 import tidegate_pb2


async def refusals(port: int) -> None:
    """The refusals wait to be written."""
    wrong = pb.StreamRequest(steps=pb.Steps(first_step=9, inputs=[wire.encode("", np.zeros(FEATURES, np.float32))]))
    data = wrong.SerializeToString()
    async with stream(port) as call:
        await call.write(opening())
        with suppress(TimeoutError, grpc.aio.AioRpcError):
            async with asyncio.timeout(5):
                for _ in range(20_000):
                    await call.write(data)


async def bombs(port: int) -> None:
    async def one() -> None:
        async with stream(port, grpc.Compression.Gzip) as call:
            with suppress(grpc.aio.AioRpcError):
                await call.write(bytes(16 * 2**20 - 64))
            await heard(call, 1)

    await asyncio.gather(*(one() for _ in range(30)))


async def lists(port: int) -> None:
    async def one() -> None:
        async with channel(port) as stub:
            for _ in range(62):
                await stub.ListModels(tidegate_pb2.ListModelsRequest())

    await asyncio.gather(*(one() for _ in range(8)))


async def predictions(port: int) -> None:
    async def one() -> None:
        for _ in range(12):
            await predict(port, 2_000, NONE)

    await asyncio.gather(*(one() for _ in range(8)))


FLOODS: dict[str, Attack] = {
    "20,000 steps under a wrong number, unread": refusals,
    "30 compressed messages of 16 MiB of zeros": bombs,
    "500 lists of all models, eight at a time": lists,
    "100 predictions of 2,000 steps, eight at a time": predictions,
}
