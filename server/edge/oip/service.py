"""The gRPC service `inference.GRPCInferenceService`: Triton's twenty methods."""

import asyncio
from functools import partial
from typing import Any, Protocol, runtime_checkable

import grpc
from google.protobuf.message import Message

from server.caller import Caller, Right
from server.edge import calls, status
from server.edge.backend import Backend
from server.edge.exchanges.exchange import Exchange
from server.edge.fields import Cut, cut
from server.edge.metered import carried
from server.edge.oip import requests
from server.edge.oip.descriptions import Descriptions
from server.edge.oip.dialect import OipDialect, Visit
from server.edge.oip.inference import Inference
from server.edge.oip.requests import version_of
from server.edge.oip.responses import Writer
from server.edge.oip.served import User
from server.edge.oip.stubs import grpc_service_pb2 as pb
from server.edge.pieces import Joined, Pieces
from server.edge.transports import Transport
from server.errors import Refusal, TidegateError
from server.repository import changes
from server.runtime.served_model import ServedModel
from server.streams.allowance import Allowance

SERVICE = "inference.GRPCInferenceService"

_ABSENT = {
    "SystemSharedMemoryStatus": "shared memory",
    "SystemSharedMemoryRegister": "shared memory",
    "SystemSharedMemoryUnregister": "shared memory",
    "CudaSharedMemoryStatus": "shared memory of CUDA",
    "CudaSharedMemoryRegister": "shared memory of CUDA",
    "CudaSharedMemoryUnregister": "shared memory of CUDA",
    "TraceSetting": "settings of traces",
    "LogSettings": "settings of logs",
}

_FEW = 16  # models whose statistics are put together in one turn of the event loop

Context = Any  # grpc.aio.ServicerContext: its type parameters differ between releases


@runtime_checkable
class Connected(Protocol):
    """A context that knows its client's connection: our own HTTP/2's."""

    client: User


class Somewhere:
    """A client of which it is not known whether it is still connected: it is taken to be."""

    here = True


SOMEWHERE = Somewhere()


class InferenceServicer:
    """Serves what the backend has in the words of the Open Inference Protocol."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._inference = Inference(backend)
        self._writer = Writer()
        self._descriptions = Descriptions(backend.repository, backend.settings)
        self._told = Joined()  # of statistics

    def add_to(self, server: Transport) -> None:
        """Registers the service. gRPC gives the bytes of requests, so that a bad one is refused with a reason."""
        most = self._backend.settings.max_message_bytes
        methods: dict[str, tuple[type[Message], calls.Answer]] = {
            "ServerLive": (pb.ServerLiveRequest, self.server_live),
            "ServerReady": (pb.ServerReadyRequest, self.server_ready),
            "ModelReady": (pb.ModelReadyRequest, self.model_ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self.server_metadata),
            "ModelMetadata": (pb.ModelMetadataRequest, self.model_metadata),
            "ModelConfig": (pb.ModelConfigRequest, self.model_config),
            "ModelStatistics": (pb.ModelStatisticsRequest, self.model_statistics),
            "RepositoryIndex": (pb.RepositoryIndexRequest, self.repository_index),
            "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, self.load),
            "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, self.unload),
        }
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: calls.unary(self._backend, kind, answer) for name, (kind, answer) in methods.items()
        }
        handlers["ModelInfer"] = calls.unary(self._backend, pb.ModelInferRequest, self.infer, cut)
        handlers |= {name: self._absent(what) for name, what in _ABSENT.items()}
        handlers["ModelStreamInfer"] = calls.stream(
            self._backend, "ModelStreamInfer", requests.reader(most), self._exchange
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def _absent(self, what: str) -> Any:  # noqa: ANN401 # gRPC's
        async def refuse(_: object, context: Context) -> None:
            async with status.Told(context, self._backend.noted(context, "")):
                self._backend.caller(context)
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"this server has no {what}; see docs/oip.md")

        return grpc.stream_unary_rpc_method_handler(refuse)

    # Inference --------------------------------------------------------------------------------------------------------

    async def infer(self, request: Cut[pb.ModelInferRequest], caller: Caller, context: Context) -> bytes | Pieces:
        asked, user = requests.asked(request), context.client if isinstance(context, Connected) else SOMEWHERE
        caller.check_pace()
        with self._backend.admission.call():
            made, left = await self._inference.infer(caller, asked, user)
        context.add_done_callback(lambda _: left())
        return self._writer.answer(asked, made)

    def _exchange(self, context: Context, caller: Caller, allowed: Allowance) -> Exchange:
        make = partial(Visit, self._inference, self._writer, caller, allowed)
        backend, call = self._backend, carried(context, caller)
        silent = backend.settings.silent_seconds
        return Exchange(call, OipDialect(), make, backend.keeper, allowed, silent, backend.pace, backend.rounds)

    # What there is ----------------------------------------------------------------------------------------------------

    async def server_live(self, _request: pb.ServerLiveRequest, _caller: Caller, _context: Context) -> bytes:
        return pb.ServerLiveResponse(live=True).SerializeToString()

    async def server_ready(self, _request: pb.ServerReadyRequest, _caller: Caller, _context: Context) -> bytes:
        return pb.ServerReadyResponse(ready=self._backend.admission.ready).SerializeToString()

    async def model_ready(self, request: pb.ModelReadyRequest, caller: Caller, _context: Context) -> bytes:
        try:
            ready = self._model(caller, request.name, request.version) is not None
        except TidegateError:
            ready = False
        return pb.ModelReadyResponse(ready=ready).SerializeToString()

    async def server_metadata(self, _request: pb.ServerMetadataRequest, _caller: Caller, _context: Context) -> bytes:
        return self._descriptions.server

    async def model_metadata(self, request: pb.ModelMetadataRequest, caller: Caller, _context: Context) -> bytes:
        return self._descriptions.metadata(self._model(caller, request.name, request.version))

    async def model_config(self, request: pb.ModelConfigRequest, caller: Caller, _context: Context) -> bytes:
        return self._descriptions.config(self._model(caller, request.name, request.version))

    async def model_statistics(self, request: pb.ModelStatisticsRequest, caller: Caller, _context: Context) -> bytes:
        """How much everybody uses a model: of those with a token, for who may observe it."""
        if caller.token:
            caller.require(Right.OBSERVE, request.name)
        if request.name and request.version:
            models = [self._model(caller, request.name, request.version)]
        else:
            models = [m for m in self._backend.repository.served() if caller.sees(m.name)]
            if request.name:
                self._model(caller, request.name, "")
                models = [model for model in models if model.name == request.name]
        told = list[bytes]()
        for model in models:
            told.append(self._inference.statistics.of(model))
            if not len(told) % _FEW:
                await asyncio.sleep(0)
        return self._told.of(told)

    async def repository_index(self, request: pb.RepositoryIndexRequest, caller: Caller, _context: Context) -> bytes:
        return self._descriptions.index(caller, only_ready=request.ready)

    async def load(self, request: pb.RepositoryModelLoadRequest, caller: Caller, _context: Context) -> bytes:
        """Takes back that a model was unloaded, and answers once its newest version is served, or was refused."""
        caller.require(Right.ADMINISTER, request.model_name)
        if request.parameters:
            raise Refusal("a model is loaded as it lies in the repository; no parameter changes that")
        await changes.load(self._backend.repository, request.model_name)
        self._backend.repository.find(request.model_name, 0)
        return pb.RepositoryModelLoadResponse().SerializeToString()

    async def unload(self, request: pb.RepositoryModelUnloadRequest, caller: Caller, _context: Context) -> bytes:
        """New sequences do not get the model any more; those that are open go on with it."""
        caller.require(Right.ADMINISTER, request.model_name)
        await changes.unload(self._backend.repository, request.model_name)
        return pb.RepositoryModelUnloadResponse().SerializeToString()

    def _model(self, caller: Caller, name: str, version: str) -> ServedModel:
        """Raises TidegateError: there is none that is ready, or the caller may not see it."""
        caller.require_sight(name)
        return self._backend.repository.find(name, version_of(version))
