"""The client for asyncio: the methods of the client for threads, with `async with`, `await` and `async for`."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Self, cast

import grpc

from tidegate.admin.calls import AsyncAdmin
from tidegate.aio_sequence import AsyncFleet, AsyncSequence, Pending
from tidegate.client_core import ModelCalls
from tidegate.errors import ConnectionLost
from tidegate.protocol.opening import Claim, Order
from tidegate.transport import calls
from tidegate.transport.aio import AsyncConnection
from tidegate.transport.status import explain
from tidegate.v1.admin_pb2_grpc import AdminStub
from tidegate.v1.tidegate_pb2_grpc import TidegateStub

if TYPE_CHECKING:
    from tidegate.v1.tidegate_pb2_grpc import TidegateAsyncStub  # a name that only type checkers know


class AsyncClient(ModelCalls[AsyncConnection, Pending[AsyncSequence], Pending[AsyncFleet]]):
    """A server, as one event loop uses it: that in which it is first used. The arguments are those of Client.

    What `sequence`, `resume` and `fleet` open is awaited, or entered: `async with client.sequence(...) as sequence`.
    """

    _sequence_type = AsyncSequence
    _fleet_type = AsyncFleet
    _begin = Pending

    async def close(self) -> None:
        """Ends the stream and what is open on it; see Client.close. The client cannot be used after that."""
        self._closed = True
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                await connection.close("this client was closed")
        finally:
            if self._channel is not None:
                await self._channel.close()

    @property
    def admin(self) -> AsyncAdmin:
        """What operators may ask: the server's sequences, its store, the versions of its models."""
        return AsyncAdmin(self._ask, self._pages)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # How.

    def _prepare(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: grpc.aio.Channel | None = None

    @property
    def _stub(self) -> "TidegateAsyncStub":
        """The calls. gRPC's channels belong to an event loop, and a client may be made before there is one."""
        if self._closed:
            raise ConnectionLost("this client was closed")
        loop = asyncio.get_running_loop()
        if self._channel is None:
            self._loop, self._channel = loop, self._new_channel(grpc.aio)
            self._calls = cast("TidegateAsyncStub", TidegateStub(self._channel))
        elif loop is not self._loop:
            raise RuntimeError("this client belongs to another event loop, in which it was first used")
        return self._calls

    def _connected(self, order: Order | Claim) -> AsyncConnection:
        stub = self._stub  # checks the event loop, too
        if self._connection is None or not self._connection.alive:
            self._connection = AsyncConnection(stub, self._endpoint, order.route(), self._resuming, self._resume_within)
        return self._connection

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _call(self, method: str, request: object, timeout: float | None) -> Any:  # noqa: ANN401 - its response
        try:
            return await getattr(self._stub, method)(
                request, timeout=calls.limit(timeout, self._timeout), metadata=self._endpoint.headers()
            )
        except grpc.RpcError as error:
            raise explain(error, self._endpoint) from None

    @property
    def _admin_calls(self) -> AdminStub:
        self._stub  # noqa: B018 - which makes the channel, and checks the event loop
        assert self._channel is not None, "it was made"
        return AdminStub(self._channel)

    async def _ask(self, method: str, request: object) -> Any:  # noqa: ANN401 - its response
        try:
            return await getattr(self._admin_calls, method)(request, metadata=self._endpoint.headers())
        except grpc.RpcError as error:
            raise explain(error, self._endpoint) from None

    async def _pages(self, method: str, request: object) -> AsyncIterator[Any]:
        pages = getattr(self._admin_calls, method)(request, metadata=self._endpoint.headers())
        try:
            async for page in pages:
                yield page
        except grpc.RpcError as error:
            raise explain(error, self._endpoint) from None
        finally:
            pages.cancel()
