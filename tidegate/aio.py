"""The client for asyncio: the same words as the client for threads, with `async with`, `await` and `async for`."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

import grpc

from tidegate.aio_sequence import AsyncFleet, AsyncSequence, Pending
from tidegate.answers import Prediction
from tidegate.errors import ConnectionLost
from tidegate.inputs import Inputs
from tidegate.model import Model
from tidegate.protocol.fleet_books import FleetBooks
from tidegate.protocol.opening import Claim, Opening, Order
from tidegate.protocol.promise import Promise
from tidegate.protocol.sequence_books import SequenceBooks
from tidegate.sequence import Source
from tidegate.state import State
from tidegate.trace import TraceChoice, choose
from tidegate.transport import calls
from tidegate.transport.aio import AsyncConnection
from tidegate.transport.core import ClientCore, Options, again
from tidegate.transport.status import explain
from tidegate.v1.tidegate_pb2_grpc import TidegateStub

if TYPE_CHECKING:
    from tidegate.v1.tidegate_pb2_grpc import TidegateAsyncStub  # a name that only type checkers know

# ruff: noqa: ASYNC109 - `timeout` has the same name and meaning in both clients, and raises our own TimedOut


class AsyncClient(ClientCore[AsyncConnection]):
    """A server, as one event loop uses it: that in which it is first used. The arguments are those of Client."""

    def _begin(self, credentials: grpc.ChannelCredentials | None, options: Options) -> None:
        self._make_channel = partial(_channel, self.address, credentials, options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: grpc.aio.Channel | None = None

    # Models.

    async def models(self, timeout: float | None = None) -> tuple[Model, ...]:
        """Every model of the server by name and version, refused ones with their reason."""
        return await self._models(timeout)

    async def describe(self, model: str, version: int = 0, timeout: float | None = None) -> Model:
        """One model; version 0 is the newest that is ready. Raises UnknownModel."""
        return await self._describe(model, version, timeout)

    async def predict(
        self, model: str, values: Inputs, *, version: int = 0, trace: TraceChoice = True, timeout: float | None = None
    ) -> Prediction:
        """A whole sequence at once, values [T, ...row], from the initial state; nothing is kept on the server."""
        return await self._predict(model, values, version, trace, timeout)

    # Sequences.

    def sequence(
        self,
        model: str,
        *,
        version: int = 0,
        trace: TraceChoice = True,
        state: State | None = None,
        timeout: float | None = None,
    ) -> Pending[AsyncSequence]:
        """Opens a sequence: `async with client.sequence(...) as sequence`, or await it. See Client.sequence."""
        order = Order(model, version, 1, choose(trace), state, self._owner)
        return Pending(lambda: self._open_sequence(order, timeout))

    def resume(
        self,
        sequence_id: str,
        token: str,
        *,
        answered: int,
        inputs: Callable[[int], Inputs] | None = None,
        trace: TraceChoice = True,
        timeout: float | None = None,
    ) -> Pending[AsyncSequence]:
        """Resumes a sequence that was opened before. See Client.resume."""
        claim = Claim((sequence_id,), token, (answered,), choose(trace))
        return Pending(lambda: self._resume(claim, inputs, timeout))

    def fleet(
        self,
        model: str,
        count: int,
        *,
        version: int = 0,
        trace: TraceChoice = True,
        state: State | None = None,
        timeout: float | None = None,
    ) -> Pending[AsyncFleet]:
        """Opens `count` sequences that take their steps together. See Client.fleet."""
        order = Order(model, version, count, choose(trace), state, self._owner)
        return Pending(lambda: self._open_fleet(order, timeout))

    async def close(self) -> None:
        """Ends the stream and what is open on it; see Client.close. The client cannot be used after that."""
        self._closed = True
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                await connection.close()
        finally:
            if self._channel is not None:
                await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # How.

    @property
    def _stub(self) -> "TidegateAsyncStub":
        """The calls. gRPC's channels belong to an event loop, and a client may be made before there is one."""
        if self._closed:
            raise ConnectionLost("this client was closed")
        loop = asyncio.get_running_loop()
        if self._channel is None:
            self._loop, self._channel = loop, self._make_channel()
            self._calls = cast("TidegateAsyncStub", TidegateStub(self._channel))
        elif loop is not self._loop:
            raise RuntimeError("this client belongs to another event loop, in which it was first used")
        return self._calls

    async def _resume(
        self, claim: Claim, inputs: Callable[[int], Inputs] | None, timeout: float | None
    ) -> AsyncSequence:
        sequence = await self._open_sequence(claim, timeout)
        rows = again(sequence, claim.answered[0], inputs)
        if rows is not None:
            await sequence.chunk(rows, timeout)
        return sequence

    async def _open_sequence(self, order: Order | Claim, timeout: float | None) -> AsyncSequence:
        connection, books = await self._open(order, timeout, SequenceBooks)
        return AsyncSequence(Source(self._timeout, self._fork, self._inputs), connection, books)

    async def _open_fleet(self, order: Order, timeout: float | None) -> AsyncFleet:
        connection, books = await self._open(order, timeout, FleetBooks)
        return AsyncFleet(connection, books, self._timeout)

    async def _fork(self, state: State, like: Opening, version: int, timeout: float | None) -> AsyncSequence:
        order = Order(like.model, version, 1, like.order.trace, state, self._owner)
        return await self._open_sequence(order, timeout)

    def _connected(self, order: Order | Claim) -> AsyncConnection:
        stub = self._stub
        if self._connection is None or not self._connection.alive:
            self._connection = AsyncConnection(stub, self._endpoint, order.route(), self._resuming, self._resume_within)
        return self._connection

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _wait(self, connection: AsyncConnection, promise: Promise[Any], timeout: float | None) -> None:
        await connection.wait(promise, timeout)

    async def _call(self, method: str, request: object, timeout: float | None) -> Any:  # noqa: ANN401 - its response
        try:
            return await getattr(self._stub, method)(request, timeout=calls.limit(timeout, self._timeout))
        except grpc.RpcError as error:
            raise explain(error, self._endpoint) from None


def _channel(address: str, credentials: grpc.ChannelCredentials | None, options: Options) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, credentials, options)
