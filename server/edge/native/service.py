"""The gRPC service of tidegate.v1."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from server.caller import Caller, Right
from server.durability.keeper import AnyKeeper
from server.edge import status
from server.edge.backend import Backend
from server.edge.exchange import Exchange
from server.edge.fields import parsed
from server.edge.metered import carried
from server.edge.native import requests, responses
from server.edge.native.descriptions import Descriptions
from server.edge.native.dialect import NativeDialect
from server.edge.pace import Pace
from server.edge.refusals import Refusals
from server.edge.transports import Transport
from server.runtime.turns import Turns
from server.settings import Settings
from server.streams.allowance import Allowance
from server.streams.events import Event
from server.streams.stream import Catalogue, Stream
from server.streams.trace import Manner
from tidegate.v1 import tidegate_pb2

SERVICE = "tidegate.v1.Tidegate"
_ROUTE = "tidegate-sequence"  # the header by which a proxy leads a client, and later resumes, to one server

Context = Any  # grpc.aio.ServicerContext: its type parameters differ between releases


def exchange(
    catalogue: Catalogue,
    keeper: AnyKeeper,
    settings: Settings,
    turns: Turns,
    pace: Pace,
    allowed: Allowance,
    context: Context,
    caller: Caller,
    refusals: Refusals,
) -> Exchange:
    route = dict(context.invocation_metadata()).get(_ROUTE, "")

    def make(emit: Callable[[Event], None]) -> Stream:
        return Stream(catalogue, keeper, settings.max_sequences, allowed, emit, caller, route, turns)

    call, dialect, note = carried(context, caller), NativeDialect(settings, caller), refusals.of(caller)
    return Exchange(call, dialect, make, keeper, allowed, settings.silent_seconds, pace, note)


class Servicer:
    """Serves the four calls of the contract."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._descriptions = Descriptions()

    def add_to(self, server: Transport) -> None:
        """Registers the service. gRPC gives the bytes of requests, so that a bad one is refused with a reason."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Stream": grpc.stream_stream_rpc_method_handler(
                self.stream,
                requests.reader(self._backend.settings.max_message_bytes),
                None,  # an exchange writes bytes
            ),
            "Predict": self._unary(tidegate_pb2.PredictRequest, self.predict),
            "ListModels": self._unary(tidegate_pb2.ListModelsRequest, self.list_models),
            "DescribeModel": self._unary(tidegate_pb2.DescribeModelRequest, self.describe_model),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def _unary(self, kind: type[Message], call: Callable[[Any, Context, Caller], Awaitable[bytes]]) -> Any:  # noqa: ANN401 # gRPC's
        async def answer(_: object, context: Context) -> bytes:
            async with status.told(context, self._backend.noted(context, kind.__name__.removesuffix("Request"))):
                caller = self._backend.caller(context)
                left = self._backend.admission.answer(caller)
                context.add_done_callback(lambda _: left())
                async with self._backend.incoming.message(caller, context.read) as data:
                    caller.check_message(len(data))
                    request = parsed(kind, data)
                    await asyncio.sleep(0)  # to read a large one takes a millisecond
                    return await call(request, context, caller)
            raise AssertionError("an error ends the call")

        return grpc.stream_unary_rpc_method_handler(answer)  # the same on the wire, and read when it may come

    async def stream(self, _requests: object, context: Context) -> None:
        """Opens sequences, takes their steps, answers each, closes them."""
        backend = self._backend
        async with status.told(context, backend.noted(context, "Stream")):
            caller = backend.caller(context)
            caller.require(Right.PREDICT)
            with backend.admission.stream(caller), backend.allowances.one(caller.account) as allowed:
                shared = backend.admission, backend.keeper, backend.settings, backend.turns, backend.pace
                served = exchange(*shared, allowed, context, caller, backend.refusals)
                with backend.authority.watching(caller, served.fail):
                    await served.serve(backend.admission.leaving)

    async def predict(self, request: tidegate_pb2.PredictRequest, context: Context, caller: Caller) -> bytes:
        manner = Manner(requests.selection(request.trace), requests.wants_values(request.encoding))
        inputs = requests.named_inputs(request.inputs)
        caller.check_pace()
        with self._backend.admission.call():
            made, size = await self._backend.predictor.predict(
                caller, request.model, request.version, inputs, manner, requests.seed_of(request)
            )
            context.add_done_callback(lambda _: self._backend.predictor.release(caller, size))
            return responses.predicted(made, manner.values)

    async def list_models(self, _request: tidegate_pb2.ListModelsRequest, _context: Context, caller: Caller) -> bytes:
        entries = self._backend.repository.entries()
        return await self._descriptions.all([entry for entry in entries if caller.sees(entry.found.name)])

    async def describe_model(
        self, request: tidegate_pb2.DescribeModelRequest, _context: Context, caller: Caller
    ) -> bytes:
        caller.require_sight(request.model)
        return self._descriptions.one(self._backend.repository.entry(request.model, request.version))
