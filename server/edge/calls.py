"""Calls as every protocol serves them: their caller is looked up, they are counted and bounded, errors end them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from server.caller import Caller, Right
from server.edge import pieces, status
from server.edge.backend import Backend
from server.edge.exchanges.exchange import Exchange
from server.edge.fields import Buffer, parsed
from server.streams.allowance import Allowance

Context = Any  # grpc.aio.ServicerContext: its type parameters differ between releases
Answer = Callable[[Any, Caller, Context], Awaitable[pieces.Message]]


def unary(
    backend: Backend, kind: type[Message], answer: Answer, parse: Callable[[type[Message], Buffer], Any] = parsed
) -> Any:  # noqa: ANN401 # gRPC's
    """The handler of a call of one request, of this kind, and one answer. `parse`: `cut`, if it may be large."""
    name = kind.__name__.removesuffix("Request")

    async def call(_: object, context: Context) -> pieces.Message:
        async with status.Told(context, backend.noted(context, name)):
            caller = backend.caller(context)
            left = backend.admission.answer(caller)
            context.add_done_callback(lambda _: left())
            async with backend.incoming.message(caller, context.read, context) as data:
                caller.check_message(len(data))
                request = parse(kind, data)
                await asyncio.sleep(0)  # to read a large one takes a millisecond
                return await answer(request, caller, context)

    # the same on the wire, and read when it may come; gRPC's own transport takes messages as a whole
    return grpc.stream_unary_rpc_method_handler(call, _as_it_is, bytes)


def _as_it_is(data: Buffer) -> Buffer:
    return data


def stream(
    backend: Backend,
    name: str,
    reader: Callable[[Buffer], Any],
    make: Callable[[Context, Caller, Allowance], Exchange],
) -> Any:  # noqa: ANN401 # gRPC's
    """The handler of a call of any number of requests, which `reader` reads, and answers, which an exchange writes."""

    async def call(_: object, context: Context) -> None:
        async with status.Told(context, backend.noted(context, name)):
            caller = backend.caller(context)
            caller.require(Right.PREDICT)
            with backend.admission.stream(caller), backend.allowances.one(caller.account) as allowed:
                exchange = make(context, caller, allowed)
                with backend.authority.watching(caller, exchange.fail):
                    await exchange.serve(backend.admission.leaving)

    return grpc.stream_stream_rpc_method_handler(call, reader)
