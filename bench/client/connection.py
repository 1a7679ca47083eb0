"""A stream of the contract on a connection of its own, without a client's books: what is asked, and what comes."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import grpc

from tidegate.v1 import model_pb2, sequence_pb2, tidegate_pb2, tidegate_pb2_grpc

if TYPE_CHECKING:
    Call: TypeAlias = grpc.aio.StreamStreamCall[sequence_pb2.StreamRequest, sequence_pb2.StreamResponse]

PATIENCE = 60.0  # seconds for the server to start


@asynccontextmanager
async def channel(port: int) -> AsyncIterator["tidegate_pb2_grpc.TidegateAsyncStub"]:
    """A connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as opened:
        yield cast("tidegate_pb2_grpc.TidegateAsyncStub", tidegate_pb2_grpc.TidegateStub(opened))


@asynccontextmanager
async def connected(port: int) -> AsyncIterator["Call"]:
    """A stream on a connection of its own, cut at the end."""
    async with channel(port) as stub:
        call = stub.Stream()
        yield call
        call.cancel()


async def ask(call: "Call", request: sequence_pb2.StreamRequest) -> Any:  # noqa: ANN401 - one of several messages
    """Sends a request and waits for its answer."""
    await call.write(request)
    return await call.read()


async def ready(port: int, model: str) -> None:
    """Waits for a server that serves a model."""
    wanted = tidegate_pb2.DescribeModelRequest(model=model)
    patience = time.monotonic() + PATIENCE
    while time.monotonic() < patience:
        try:
            async with channel(port) as stub:
                found = (await stub.DescribeModel(wanted)).model
            if found.status == model_pb2.MODEL_STATUS_READY:
                return
        except grpc.aio.AioRpcError:
            pass
        await asyncio.sleep(0.02)
    raise TimeoutError("the server did not start")
