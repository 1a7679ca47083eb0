# ruff: noqa: ANN401 - a response is one of five messages; the tests look which
"""A stream spoken by hand, message by message, with the generated stubs: also what no good client would say."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import grpc
import numpy as np

from tidegate import wire
from tidegate.v1 import error_pb2, sequence_pb2
from tidegate.v1.sequence_pb2 import StreamRequest, StreamResponse

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 120  # seconds
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def open_(handle: int = 0, model: str = "lstm", **fields: Any) -> StreamRequest:
    return StreamRequest(open=sequence_pb2.Open(handle=handle, model=model, **fields))


def steps(handle: int, first: int, array: np.ndarray, name: str = "") -> StreamRequest:
    inputs = [wire.encode(name, array)]
    return StreamRequest(steps=sequence_pb2.Steps(handle=handle, first_step=first, inputs=inputs))


def fleet(handles: Sequence[int], numbers: Sequence[int], array: np.ndarray) -> StreamRequest:
    message = sequence_pb2.FleetSteps(
        handles=np.asarray(handles, "<u4").tobytes(),
        steps=np.asarray(numbers, "<u8").tobytes(),
        inputs=[wire.encode("", array)],
    )
    return StreamRequest(fleet=message)


def close(handle: int = 0, count: int = 0) -> StreamRequest:
    return StreamRequest(close=sequence_pb2.Close(handle=handle, count=count))


def selection(**fields: Any) -> sequence_pb2.TraceSelection:
    return sequence_pb2.TraceSelection(**fields)


NO_TRACE = selection(none=True)


class RawStream:
    """One stream on a connection of its own."""

    def __init__(
        self,
        address: str,
        options: Sequence[tuple[str, Any]] = (),
        route: str | None = None,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        own = ("grpc.use_local_subchannel_pool", 1)
        self._channel = grpc.aio.insecure_channel(address, [*UNLIMITED, own, *options])
        self.call = self._channel.stream_stream(
            "/tidegate.v1.Tidegate/Stream", None, sequence_pb2.StreamResponse.FromString
        )(metadata=[*metadata, *([] if route is None else [("tidegate-sequence", route)])])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.call.cancel()
        await self._channel.close()

    async def say(self, *requests: StreamRequest | bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            for request in requests:
                await self.call.write(request if isinstance(request, bytes) else request.SerializeToString())

    async def hear(self) -> Any:
        """The next message: Opened, Answers, FleetAnswers, Closed or Failure."""
        async with asyncio.timeout(PATIENCE):
            response = await self.call.read()
        assert response is not grpc.aio.EOF, "the server ended the stream"
        return content(response)

    async def ask(self, request: StreamRequest | bytes) -> Any:
        await self.say(request)
        return await self.hear()

    async def rest(self) -> list[Any]:
        """Says that nothing more will come, and hears the server out."""
        async with asyncio.timeout(PATIENCE):
            await self.call.done_writing()
            heard = []
            while (response := await self.call.read()) is not grpc.aio.EOF:
                heard.append(content(response))
            assert await self.call.code() == grpc.StatusCode.OK
            return heard

    async def rows(self, count: int) -> list[bytes]:
        """Hears answers, one message or several, until there are `count` rows of them."""
        heard: list[bytes] = []
        while len(heard) < count:
            heard.extend(rows_of(await self.hear()))
        return heard

    async def chunk(self, handle: int, first: int, rows: np.ndarray) -> list[bytes]:
        """Takes steps that are sent together; the bytes of each answer."""
        await self.say(steps(handle, first, rows))
        return await self.rows(len(rows))

    async def run(self, handle: int, first: int, rows: np.ndarray) -> list[bytes]:
        """Takes single steps, one after the other; the bytes of each answer."""
        return [bits(await self.ask(steps(handle, first + i, row))) for i, row in enumerate(rows)]


async def pace(step: int) -> None:
    """Rests between steps that a client takes until it hears of something: the longer, the more there were.

    A server that has little time gets enough of it before some hundred rows are used up.
    """
    await asyncio.sleep(0.01 * 1.1 ** max(0, step - 30))


def content(response: StreamResponse) -> Any:
    return getattr(response, response.WhichOneof("response"))


def bits(answer: sequence_pb2.Answers) -> bytes:
    """What an answer to one step says, to the last bit."""
    assert isinstance(answer, sequence_pb2.Answers), answer
    return b"|".join([*(tensor.data for tensor in answer.outputs), answer.trace.data])


def rows_of(answer: Any) -> list[bytes]:
    """What an answer to many steps, or of a fleet, says of each row; as `bits`, where every row is traced."""
    tensors = [wire.decode(tensor) for tensor in answer.outputs]
    trace = wire.decode(answer.trace) if answer.HasField("trace") else None
    return [
        b"|".join([*(t[i].tobytes() for t in tensors), b"" if trace is None else trace[i].tobytes()])
        for i in range(len(tensors[0]))
    ]


def reason(failure: Any) -> str:
    assert isinstance(failure, sequence_pb2.Failure), failure
    assert failure.error.message
    return error_pb2.Reason.Name(failure.error.reason).removeprefix("REASON_")
