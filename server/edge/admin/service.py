"""The gRPC service tidegate.v1.Admin: asks for the right of each call, and translates."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import Message

from server.caller import Caller, Right
from server.durability.upkeep.backup import Reader
from server.edge import status
from server.edge.admin import messages
from server.edge.backend import Backend
from server.edge.fields import parsed
from server.edge.transports import Transport
from server.errors import BadInput, PermissionDenied, Reason, StoreFailed, TidegateError
from server.repository import changes
from server.stores.open import described
from server.stores.records import Outcome
from tidegate.v1 import admin_pb2 as pb

SERVICE = "tidegate.v1.Admin"
_PIECE = 2**20  # bytes of a message of a backup

Context = Any  # grpc.aio.ServicerContext: its type parameters differ between releases


class AdminServicer:
    """Serves the calls of the contract."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._upkeep = backend.keeper.upkeep
        self._repository = backend.repository

    def add_to(self, server: Transport) -> None:
        """Registers the service."""
        observe, administer = Right.OBSERVE, Right.ADMINISTER
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "ListSequences": self._many(pb.ListSequencesRequest, observe, self.list_sequences),
            "EndSequences": self._many(pb.EndSequencesRequest, administer, self.end_sequences),
            "DescribeStore": self._one(pb.DescribeStoreRequest, observe, self.describe_store),
            "CheckStore": self._many(pb.CheckStoreRequest, observe, self.check_store),
            "BackUpStore": self._many(pb.BackUpStoreRequest, administer, self.back_up_store),
            "RestoreStore": grpc.stream_unary_rpc_method_handler(self.restore_store),
            "ListVersions": self._one(pb.ListVersionsRequest, observe, self.list_versions),
            "ChangeVersions": self._one(pb.ChangeVersionsRequest, administer, self.change_versions),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    # How calls come in ------------------------------------------------------------------------------------------------

    def _one(self, kind: type[Message], right: Right, call: Callable[[Any, Caller], Awaitable[bytes]]) -> Any:  # noqa: ANN401 # gRPC's
        async def answer(_: object, context: Context) -> bytes:
            async with status.Told(context, self._backend.noted(context, kind.__name__.removesuffix("Request"))):
                caller = self._caller(context, right)
                return await call(await self._request(kind, caller, context), caller)

        return grpc.stream_unary_rpc_method_handler(answer)  # the same on the wire, and read when it may come

    def _many(self, kind: type[Message], right: Right, call: Callable[[Any, Caller], AsyncIterator[bytes]]) -> Any:  # noqa: ANN401 # gRPC's
        async def answer(_: object, context: Context) -> AsyncIterator[bytes]:
            async with status.Told(context, self._backend.noted(context, kind.__name__.removesuffix("Request"))):
                caller = self._caller(context, right)
                request = await self._request(kind, caller, context)
                async for message in call(request, caller):
                    self._check_holds(caller)
                    yield message

        return grpc.stream_stream_rpc_method_handler(answer)

    def _caller(self, context: Context, right: Right) -> Caller:
        """The caller, who has this right for some model; the call takes a place until it ends."""
        caller = self._backend.caller(context)
        caller.require(right)
        left = self._backend.admission.answer(caller)
        context.add_done_callback(lambda _: left())
        return caller

    def _check_holds(self, caller: Caller) -> None:
        """Raises TidegateError: the caller's token was withdrawn since a call began, which may take for hours."""
        if (error := self._backend.authority.withdrawn(caller)) is not None:
            raise error

    async def _request(self, kind: type[Message], caller: Caller, context: Context) -> Any:  # noqa: ANN401 # of this kind
        async with self._backend.incoming.message(caller, context.read, context) as data:
            caller.check_message(len(data))
            return parsed(kind, data)

    # Sequences --------------------------------------------------------------------------------------------------------

    async def list_sequences(self, request: pb.ListSequencesRequest, caller: Caller) -> AsyncIterator[bytes]:
        placement = self._repository.placement()
        wanted = messages.wanted(request.filter, caller, Right.OBSERVE, placement)
        async for page in self._upkeep.list(wanted, partial(messages.sequences, placement=placement)):
            if page:
                yield page

    async def end_sequences(self, request: pb.EndSequencesRequest, caller: Caller) -> AsyncIterator[bytes]:
        messages.check_given(request.filter)
        wanted = messages.wanted(request.filter, caller, Right.ADMINISTER, self._repository.placement())
        async for ended, kept in self._upkeep.end(wanted):
            yield pb.EndSequencesResponse(ended=ended, kept=kept).SerializeToString()

    # The store --------------------------------------------------------------------------------------------------------

    async def describe_store(self, _request: pb.DescribeStoreRequest, caller: Caller) -> bytes:
        _check_all(caller)
        settings, usage, fault = self._backend.settings, None, ""
        try:
            usage = await self._upkeep.usage()
        except TidegateError as error:
            fault = str(error)
        most = int(settings.max_store_mib * 2**20)
        return messages.store(*described(settings.store), most, usage, self._upkeep.fault or fault)

    async def check_store(self, _request: pb.CheckStoreRequest, caller: Caller) -> AsyncIterator[bytes]:
        _check_all(caller)
        async for counted in self._upkeep.check():
            yield messages.census(counted, self._repository.placement())

    async def back_up_store(self, _request: pb.BackUpStoreRequest, caller: Caller) -> AsyncIterator[bytes]:
        _check_all(caller)
        async for data in self._upkeep.back_up():
            for at in range(0, len(data), _PIECE):
                yield pb.BackUpStoreResponse(data=data[at : at + _PIECE]).SerializeToString()

    async def restore_store(self, _: object, context: Context) -> bytes:
        """Puts the records of a backup into the store as they come."""
        async with status.Told(context, self._backend.noted(context, "RestoreStore")):
            caller = self._caller(context, Right.ADMINISTER)
            _check_all(caller)
            reader, outcomes, waiting = Reader(), Counter[Outcome](), bytearray()
            while (data := await context.read()) is not grpc.aio.EOF:
                if len(data) > 2 * _PIECE:
                    raise BadInput(f"a message of {len(data)} bytes came; send {_PIECE} or less", Reason.TOO_LARGE)
                self._check_holds(caller)
                waiting += parsed(pb.RestoreStoreRequest, data).data
                if len(waiting) >= _PIECE:  # one transaction for several messages
                    outcomes.update(await self._upkeep.restore(reader, bytes(waiting)))
                    waiting.clear()
            outcomes.update(await self._upkeep.restore(reader, bytes(waiting)))
            reader.finish()
            return pb.RestoreStoreResponse(
                restored=outcomes[Outcome.PUT], kept=outcomes[Outcome.KEPT], gone=outcomes[Outcome.GONE]
            ).SerializeToString()

    # Versions ---------------------------------------------------------------------------------------------------------

    async def list_versions(self, request: pb.ListVersionsRequest, caller: Caller) -> bytes:
        caller.require(Right.OBSERVE, request.model)
        self._repository.check_known(request.model)
        return messages.versions(self._repository, request.model)

    async def change_versions(self, request: pb.ChangeVersionsRequest, caller: Caller) -> bytes:
        name, repository = request.model, self._repository
        caller.require(Right.ADMINISTER, name)
        match request.WhichOneof("change"):
            case "pin":
                await changes.pin(repository, name, request.pin)
            case "alias":
                await changes.alias(repository, name, request.alias.name, request.alias.version)
            case "canary":
                await changes.canary(repository, name, request.canary.version, request.canary.share)
            case "load":
                await changes.load(repository, name, request.load)
            case "unload":
                await changes.unload(repository, name, request.unload)
            case "move":
                await changes.move(repository, name, getattr(request.move, "from"), request.move.to)
            case _:
                raise BadInput("nothing is to be changed", Reason.MALFORMED)
        with suppress(StoreFailed):  # the next look through the folder tries again
            await self._upkeep.move_on(changes.moving(repository))
        return messages.versions(repository, name)


def _check_all(caller: Caller) -> None:
    """Raises PermissionDenied: the rights are for some models alone, and a store holds all."""
    if "*" not in caller.models:
        raise PermissionDenied("the store holds sequences of all models, and your rights are for some")
