"""The standard services, health and reflection: their calls are counted and bounded like any other."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from server.caller import Caller
from server.edge import status
from server.edge.admission import Admission
from server.edge.callers import Peer, anybody
from server.edge.fields import Buffer
from server.edge.incoming import Incoming
from server.edge.transports import Transport
from server.errors import OverLimit, Refusal

_LONGEST = 4_096  # bytes of a request
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

Read = TypeVar("Read", bound=Message)
Context = Any  # grpc.aio.ServicerContext: its type parameters differ between releases
Count = Callable[[Caller], Callable[[], None]]  # of `Admission`: takes a place, and gives it back
Status = Any  # health_pb2.HealthCheckResponse.ServingStatus: grpc ships no types for it


class Health:
    """grpc.health.v1, for everybody. A watcher that reads slowly delays no other."""

    def __init__(self, admission: Admission, incoming: Incoming) -> None:
        self._admission = admission
        self._incoming = incoming
        self._status: dict[str, Status] = {}
        self._changed = asyncio.Event()

    def add_to(self, server: Transport) -> None:
        """Registers the service."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Check": grpc.stream_unary_rpc_method_handler(self._check),  # as one message on the wire: see `Incoming`
            "Watch": grpc.stream_stream_rpc_method_handler(self._watch),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(health.SERVICE_NAME, handlers),))

    def set(self, service: str, value: Status) -> None:
        """Changes the status of a service."""
        if self._status.get(service) != value:
            self._status[service] = value
            self._changed.set()
            self._changed = asyncio.Event()

    async def _check(self, _: object, context: Context) -> bytes:
        async with status.Told(context):
            value = self._status.get(await self._service(self._admission.answer, context))
        if value is None:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return _said(value)

    async def _watch(self, _: object, context: Context) -> AsyncIterator[bytes]:
        async with status.Told(context):
            service = await self._service(self._admission.watch, context)
        said = None
        while True:
            changed, value = self._changed, self._status.get(service, _UNKNOWN)
            if value != said:
                said = value
                yield _said(value)
            else:
                await changed.wait()

    async def _service(self, count: Count, context: Context) -> str:
        """The name that a call asks for. The call takes a place until it ends. Raises OverLimit."""
        left = count(caller := anybody(context))
        context.add_done_callback(lambda _: left())
        async with self._incoming.message(caller, context.read, context) as data:
            return str(_parsed(health_pb2.HealthCheckRequest, data).service)


class Reflection:
    """grpc.reflection.v1alpha: which services there are, for callers with any right here.

    Args:
        admission: counts the calls.
        caller: the client of a call; raises Unauthenticated.
        services: their names.
    """

    def __init__(self, admission: Admission, caller: Callable[[Peer], Caller], *services: str) -> None:
        self._admission = admission
        self._caller = caller
        self._turn = asyncio.Lock()
        self._answers = reflection.aio.ReflectionServicer((*services, reflection.SERVICE_NAME))

    def add_to(self, server: Transport) -> None:
        """Registers the service."""
        handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            self._reflect, None, lambda m: m.SerializeToString()
        )
        handlers = {"ServerReflectionInfo": handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, handlers),))

    async def _reflect(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        async with status.Told(context):
            left = self._admission.watch(self._caller(context))
            context.add_done_callback(lambda _: left())
            asked = (_parsed(reflection_pb2.ServerReflectionRequest, data) async for data in requests)
            async for answer in self._answers.ServerReflectionInfo(self._in_turn(asked), context):
                yield answer

    async def _in_turn(self, asked: AsyncIterator[Read]) -> AsyncIterator[Read]:
        """Of all calls one request in a turn of the event loop: thousands fit into 64 KiB, and each takes 0.5 ms."""
        async for one in asked:
            async with self._turn:
                await asyncio.sleep(0)
            yield one


def _parsed(kind: type[Read], data: Buffer) -> Read:
    if len(data) > _LONGEST:
        raise OverLimit(f"a message of {len(data)} bytes came; {_LONGEST} is the limit of a {kind.DESCRIPTOR.name}")
    try:
        return kind.FromString(bytes(data))
    except DecodeError:
        raise Refusal(f"a message came that is no {kind.DESCRIPTOR.name}") from None


def _said(value: Status) -> bytes:
    return bytes(health_pb2.HealthCheckResponse(status=value).SerializeToString())
