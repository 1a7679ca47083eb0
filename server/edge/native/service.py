"""The gRPC service of tidegate.v1."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from server.caller import Caller
from server.durability.keeper import AnyKeeper
from server.edge import calls
from server.edge.backend import Backend
from server.edge.exchanges.exchange import Exchange
from server.edge.exchanges.pace import Pace
from server.edge.exchanges.rounds import Rounds
from server.edge.fields import Cut, cut
from server.edge.metered import carried
from server.edge.native import requests, responses
from server.edge.native.descriptions import Descriptions
from server.edge.native.dialect import NativeDialect
from server.edge.pieces import Message
from server.edge.refusals import Refusals
from server.edge.transports import Transport
from server.runtime.turns import Turns
from server.settings import Settings
from server.streams.allowance import Allowance
from server.streams.events import Event
from server.streams.opening import Catalogue
from server.streams.stream import Stream
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
    rounds: Rounds,
    allowed: Allowance,
    context: Context,
    caller: Caller,
    refusals: Refusals,
) -> Exchange:
    route = dict(context.invocation_metadata()).get(_ROUTE, "")

    def make(emit: Callable[[Event], None]) -> Stream:
        return Stream(catalogue, keeper, settings.max_sequences, allowed, emit, caller, route, turns)

    call, dialect, note = carried(context, caller), NativeDialect(settings, caller), refusals.of(caller)
    return Exchange(call, dialect, make, keeper, allowed, settings.silent_seconds, pace, rounds, note)


class Servicer:
    """Serves the four calls of the contract."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._descriptions = Descriptions()
        reader = requests.reader(backend.settings.max_message_bytes)
        self.stream = calls.stream(backend, "Stream", reader, self._exchange)  # its handler

    def add_to(self, server: Transport) -> None:
        """Registers the service. gRPC gives the bytes of requests, so that a bad one is refused with a reason."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Stream": self.stream,
            "Predict": calls.unary(self._backend, tidegate_pb2.PredictRequest, self.predict, cut),
            "ListModels": calls.unary(self._backend, tidegate_pb2.ListModelsRequest, self.list_models),
            "DescribeModel": calls.unary(self._backend, tidegate_pb2.DescribeModelRequest, self.describe_model),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def _exchange(self, context: Context, caller: Caller, allowed: Allowance) -> Exchange:
        backend = self._backend
        shared = backend.admission, backend.keeper, backend.settings, backend.turns, backend.pace, backend.rounds
        return exchange(*shared, allowed, context, caller, backend.refusals)

    async def predict(self, asked: Cut[tidegate_pb2.PredictRequest], caller: Caller, context: Context) -> Message:
        request = asked.message
        manner = Manner(requests.selection(request.trace), requests.wants_values(request.encoding))
        inputs = requests.named_inputs(request.inputs, asked.beside)
        await asyncio.sleep(0)  # to check large ones takes a millisecond
        caller.check_pace()
        with self._backend.admission.call():
            made, size = await self._backend.predictor.predict(
                caller, request.model, request.version, inputs, manner, requests.seed_of(request)
            )
            context.add_done_callback(lambda _: self._backend.predictor.release(caller, size))
            return responses.predicted(made, manner.values)

    async def list_models(self, _request: tidegate_pb2.ListModelsRequest, caller: Caller, _context: Context) -> bytes:
        entries = self._backend.repository.entries()
        return await self._descriptions.all([entry for entry in entries if caller.sees(entry.found.name)])

    async def describe_model(
        self, request: tidegate_pb2.DescribeModelRequest, caller: Caller, _context: Context
    ) -> bytes:
        caller.require_sight(request.model)
        return self._descriptions.one(self._backend.repository.entry(request.model, request.version))
