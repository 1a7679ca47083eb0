"""What attacks are made of: a stream that takes bytes, and the messages that open and close.

An attack is over when the server has answered all of it, or has refused it in whatever way. What it answered is not
looked at: the bystander's latency is what counts.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np

from bench.client.traffic import METHOD
from bench.scenario import FEATURES, model_name
from tidegate import wire
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1 import tidegate_pb2

if TYPE_CHECKING:
    Unary = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    Call = grpc.aio.StreamStreamCall[bytes, pb.StreamResponse]

HIDDEN = 32
MODEL = model_name(HIDDEN)
CROWD = 10_000
QUIET = 1.0  # seconds
IDLE = 2.0  # seconds without a step after which the server parks a sequence
NONE = pb.TraceSelection(none=True)
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

Attack = Callable[[int], Awaitable[None]]  # takes the server's port


@asynccontextmanager
async def stream(port: int, compression: grpc.Compression | None = None) -> AsyncIterator["Call"]:
    """A stream on a connection of its own that takes bytes; cut at the end."""
    options: Any = [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options, compression=compression) as own:
        call: Call = own.stream_stream(METHOD, None, pb.StreamResponse.FromString)()
        yield call
        call.cancel()


async def heard(call: "Call", count: int) -> list[pb.StreamResponse]:
    """The next responses, those in bundles counted one by one; fewer if the server ends the stream."""
    found: list[pb.StreamResponse] = []
    with suppress(grpc.aio.AioRpcError):
        while len(found) < count and isinstance(response := await call.read(), pb.StreamResponse):
            found += [response, *response.more]
    return found


async def until_quiet(call: "Call") -> None:
    """Reads whatever comes, until nothing has come for a second; the call is over then."""
    with suppress(TimeoutError, grpc.aio.AioRpcError):
        while isinstance(await asyncio.wait_for(call.read(), QUIET), pb.StreamResponse):
            pass


async def until_answered(call: "Call", rows: np.ndarray, trace: pb.TraceSelection = NONE) -> None:
    """Sends a chunk of steps of a new sequence, and reads all of its answers."""
    await call.write(opening(trace=trace))
    await heard(call, 1)
    await call.write(pb.StreamRequest(steps=pb.Steps(inputs=[wire.encode("", rows)])).SerializeToString())
    answered = 0
    while answered < len(rows) and (found := await heard(call, 1)) and found[0].HasField("answers"):
        answered = found[0].answers.first_step + found[0].answers.outputs[0].shape[0]


async def ask(port: int, request: pb.StreamRequest, answers: int = 1) -> None:
    """One message on a stream with an open sequence, and so many answers."""
    async with stream(port) as call:
        await call.write(opening())
        await heard(call, 1)
        await call.write(request.SerializeToString())
        await heard(call, answers)


def opening(first: int = 0, count: int = 1, trace: pb.TraceSelection = NONE) -> bytes:
    return pb.StreamRequest(open=pb.Open(handle=first, count=count, model=MODEL, trace=trace)).SerializeToString()


def closing(first: int = 0, count: int = 1, park: bool = False) -> bytes:
    return pb.StreamRequest(close=pb.Close(handle=first, count=count, park=park)).SerializeToString()


def bundle(requests: Iterable[pb.StreamRequest]) -> bytes:
    first, *rest = requests
    first.more.extend(rest)
    return first.SerializeToString()


async def predict(port: int, steps: int, trace: pb.TraceSelection) -> None:
    """Asks for the answers to a whole sequence."""
    rows = wire.encode("", np.zeros((steps, FEATURES), np.float32))
    request = tidegate_pb2.PredictRequest(model=MODEL, inputs=[rows], trace=trace).SerializeToString()
    options: Any = [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as own:
        with suppress(grpc.aio.AioRpcError):
            call: Unary = own.unary_unary("/tidegate.v1.Tidegate/Predict", None, None)
            await call(request)
