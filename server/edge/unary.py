"""A call of one request and one answer, as every protocol serves it: asked for its caller, counted, bounded, read."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from server.caller import Caller
from server.edge import status
from server.edge.backend import Backend
from server.edge.fields import parsed

Context = Any  # grpc.aio.ServicerContext: its type parameters differ between releases
Answer = Callable[[Any, Caller, Context], Awaitable[bytes]]


def unary(backend: Backend, kind: type[Message], answer: Answer) -> Any:  # noqa: ANN401 # gRPC's
    """The handler of a call whose requests are of this kind."""
    name = kind.__name__.removesuffix("Request")

    async def call(_: object, context: Context) -> bytes:
        async with status.told(context, backend.noted(context, name)):
            caller = backend.caller(context)
            left = backend.admission.answer(caller)
            context.add_done_callback(lambda _: left())
            async with backend.incoming.message(caller, context.read) as data:
                caller.check_message(len(data))
                request = parsed(kind, data)
                await asyncio.sleep(0)  # to read a large one takes a millisecond
                return await answer(request, caller, context)
        raise AssertionError("an error ends the call")

    return grpc.stream_unary_rpc_method_handler(call)  # the same on the wire, and read when it may come
