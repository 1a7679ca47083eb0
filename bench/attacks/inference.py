"""Requests in the words of the Open Inference Protocol, and answers of 30 MiB in those of either protocol."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np

from bench.attacks.speech import MODEL, UNLIMITED, Attack, stream, until_answered
from bench.scenario import FEATURES
from server.edge.oip.stubs import grpc_service_pb2 as pb
from tidegate import wire
from tidegate.v1 import sequence_pb2, tidegate_pb2

if TYPE_CHECKING:
    from bench.attacks.speech import Unary

SERVICE = "/inference.GRPCInferenceService/"
STEPS = 20_000  # whose answers with all of their trace take 30 MiB
ROWS = 256  # of a batch
# a client that takes all of a message at once
GREEDY: Any = [*UNLIMITED, ("grpc.http2.lookahead_bytes", 2**26), ("grpc.use_local_subchannel_pool", 1)]


def asking(steps: int, rows: int = 1, **sequence: object) -> pb.ModelInferRequest:
    """For steps of so many rows, or of a sequence."""
    numbers = np.zeros((rows, steps, FEATURES), "<f4")
    request = pb.ModelInferRequest(model_name=MODEL, raw_input_contents=[numbers.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=numbers.shape)
    for name, value in sequence.items():
        kind = "bool_param" if isinstance(value, bool) else "int64_param"
        setattr(request.parameters[name], kind, value)
    return request


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Callable[[str], "Unary"]]:
    """The calls of a connection of its own, of bytes, by the name of the method."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=GREEDY) as channel:
        yield lambda method: channel.unary_unary(method if "/" in method else SERVICE + method, None, None)


async def prediction(port: int) -> None:
    rows = wire.encode("", np.zeros((STEPS, FEATURES), np.float32))
    async with connected(port) as call:
        request = tidegate_pb2.PredictRequest(model=MODEL, inputs=[rows])
        await call("/tidegate.v1.Tidegate/Predict")(request.SerializeToString())


async def inference(port: int) -> None:
    """With all states and gates, each an output."""
    async with connected(port) as call:
        described = pb.ModelConfigResponse.FromString(await call("ModelConfig")(_named("ModelConfigRequest")))
        request = asking(STEPS)
        for name in described.config.parameters["trace_outputs"].string_value.split(", "):
            request.outputs.add(name=name)
        await call("ModelInfer")(request.SerializeToString())


async def batches(port: int) -> None:
    """Each row is a sequence of its own to the server."""
    request = asking(8, ROWS).SerializeToString()

    async def one() -> None:
        async with connected(port) as call:
            for _ in range(4):
                await call("ModelInfer")(request)

    await asyncio.gather(*(one() for _ in range(4)))


async def asked(port: int, method: str) -> None:
    """500 times, eight at a time, by a message that asks for all models."""

    async def one() -> None:
        async with connected(port) as call:
            for _ in range(62):
                await call(method)(b"")

    await asyncio.gather(*(one() for _ in range(8)))


async def sequences(port: int) -> None:
    """All by one client, each with one step, and left at its end."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=GREEDY) as channel:
        serialise, parse = pb.ModelInferRequest.SerializeToString, pb.ModelStreamInferResponse.FromString
        call: Any = channel.stream_stream(SERVICE + "ModelStreamInfer", serialise, parse)()

        async def begin() -> None:
            for number in range(1, 5_001):
                await call.write(asking(1, sequence_id=number, sequence_start=True))

        beginning = asyncio.ensure_future(begin())
        with suppress(grpc.aio.AioRpcError):
            for _ in range(5_000):
                await call.read()
        await beginning
        call.cancel()


async def chunk(port: int) -> None:
    """With its trace: messages of a MiB."""
    rows = np.zeros((STEPS, FEATURES), np.float32)
    async with stream(port) as call:
        await until_answered(call, rows, sequence_pb2.TraceSelection())


def _named(kind: str) -> bytes:
    return bytes(getattr(pb, kind)(name=MODEL).SerializeToString())


INFERENCE: dict[str, Attack] = {
    "a prediction whose answer takes 30 MiB": prediction,
    "a ModelInfer whose answer takes 30 MiB": inference,
    "a chunk whose answers take 30 MiB": chunk,
    "16 batches of 256 rows by ModelInfer, four at a time": batches,
    "500 RepositoryIndex, eight at a time": partial(asked, method="RepositoryIndex"),
    "500 ModelStatistics, eight at a time": partial(asked, method="ModelStatistics"),
    "5,000 sequences begun by ModelStreamInfer": sequences,
}
