"""The gRPC service of tidegate.v1."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from server.durability.keeper import AnyKeeper
from server.edge import status
from server.edge.admission import Admission
from server.edge.callers import caller_of
from server.edge.exchange import Exchange
from server.edge.incoming import Incoming
from server.edge.native import requests, responses
from server.edge.native.descriptions import Descriptions
from server.edge.native.dialect import NativeDialect
from server.repository.repository import Repository
from server.runtime.turns import Turns
from server.settings import Settings
from server.streams.allowance import Allowance, Allowances
from server.streams.events import Event
from server.streams.prediction import Predictor
from server.streams.stream import Catalogue, Stream
from server.streams.trace import Manner
from tidegate.v1 import tidegate_pb2

SERVICE = "tidegate.v1.Tidegate"
_ROUTE = "tidegate-sequence"  # the header by which a proxy leads a client, and later resumes, to one server

Context = Any  # grpc.aio.ServicerContext: its type parameters differ between releases


def exchange(
    catalogue: Catalogue, keeper: AnyKeeper, settings: Settings, turns: Turns, allowed: Allowance, context: Context
) -> Exchange:
    caller, route = caller_of(context), dict(context.invocation_metadata()).get(_ROUTE, "")

    def make(emit: Callable[[Event], None]) -> Stream:
        return Stream(catalogue, keeper, settings.max_sequences, allowed, emit, caller, route, turns)

    return Exchange(context, NativeDialect(settings), make, keeper, allowed, settings.silent_seconds)


class Servicer:
    """Serves the four calls of the contract."""

    def __init__(
        self, repository: Repository, admission: Admission, keeper: AnyKeeper, settings: Settings, incoming: Incoming
    ) -> None:
        self._repository = repository
        self._keeper = keeper
        self._admission = admission
        self._settings = settings
        self._incoming = incoming
        self._descriptions = Descriptions()
        self._turns = Turns(lambda call: asyncio.get_running_loop().call_soon(call))
        self._allowances = Allowances(settings.window_bytes, settings.address_bytes)
        self._predictor = Predictor(admission, settings.max_answer_bytes)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the service. gRPC gives the bytes of requests, so that a bad one is refused with a reason."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Stream": grpc.stream_stream_rpc_method_handler(
                self.stream,
                requests.reader(self._settings.max_message_bytes),
                None,  # an exchange writes bytes
            ),
            "Predict": self._unary(tidegate_pb2.PredictRequest, self.predict),
            "ListModels": self._unary(tidegate_pb2.ListModelsRequest, self.list_models),
            "DescribeModel": self._unary(tidegate_pb2.DescribeModelRequest, self.describe_model),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def _unary(self, kind: type[Message], call: Callable[[Any, Context], Awaitable[bytes]]) -> Any:  # noqa: ANN401 # gRPC's
        async def answer(_: object, context: Context) -> bytes:
            async with status.told(context):
                caller = caller_of(context)
                left = self._admission.answer(caller)
                context.add_done_callback(lambda _: left())
                async with self._incoming.message(caller, context.read) as data:
                    return await call(requests.parsed(kind, data), context)
            raise AssertionError("an error ends the call")

        return grpc.stream_unary_rpc_method_handler(answer)  # the same on the wire, and read when it may come

    async def stream(self, _requests: object, context: Context) -> None:
        """Opens sequences, takes their steps, answers each, closes them."""
        async with status.told(context):
            caller = caller_of(context)
            with self._admission.stream(caller), self._allowances.one(caller.address) as allowed:
                served = exchange(self._admission, self._keeper, self._settings, self._turns, allowed, context)
                await served.serve(self._admission.leaving)

    async def predict(self, request: tidegate_pb2.PredictRequest, context: Context) -> bytes:
        manner = Manner(requests.selection(request.trace), requests.wants_values(request.encoding))
        inputs = requests.named_inputs(request.inputs)
        caller = caller_of(context)
        with self._admission.call():
            made, size = await self._predictor.predict(caller, request.model, request.version, inputs, manner)
            context.add_done_callback(lambda _: self._predictor.release(caller, size))
            return responses.predicted(made, manner.values)

    async def list_models(self, _request: tidegate_pb2.ListModelsRequest, _context: Context) -> bytes:
        return self._descriptions.all(self._repository.entries())

    async def describe_model(self, request: tidegate_pb2.DescribeModelRequest, _context: Context) -> bytes:
        return self._descriptions.one(self._repository.entry(request.model, request.version))
