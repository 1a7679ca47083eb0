"""The client for asyncio: the same words as the client for threads, with `async with`, `await` and `async for`."""

import asyncio
from collections.abc import Callable
from collections.abc import Sequence as Rows
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import grpc

from tidegate.aio_sequence import AsyncFleet, AsyncSequence, AsyncSource
from tidegate.answers import Prediction
from tidegate.errors import ConnectionLost, ModelNotReady, TimedOut
from tidegate.inputs import InputLayout, Inputs
from tidegate.model import Model
from tidegate.protocol.budget import Budget
from tidegate.protocol.fleet_books import FleetBooks
from tidegate.protocol.opening import Claim, Opening, Order
from tidegate.protocol.registry import Books
from tidegate.protocol.sequence_books import SequenceBooks
from tidegate.state import State
from tidegate.trace import TraceChoice, choose
from tidegate.transport import calls
from tidegate.transport.aio import AsyncConnection
from tidegate.transport.awaited import Pending
from tidegate.transport.deadline import Deadline
from tidegate.transport.endpoint import Endpoint
from tidegate.transport.recovery import RESUME_WITHIN, USUAL, Attempts, Resuming, patience
from tidegate.transport.resending import again
from tidegate.transport.status import explain
from tidegate.v1 import tidegate_pb2
from tidegate.v1.tidegate_pb2_grpc import TidegateStub

if TYPE_CHECKING:
    from tidegate.v1.tidegate_pb2_grpc import TidegateAsyncStub  # a name that only type checkers know

# ruff: noqa: ASYNC109 - `timeout` has the same name and meaning in both clients, and raises our own TimedOut

Q = TypeVar("Q")
R = TypeVar("R")
B = TypeVar("B", bound=Books)


class AsyncClient:
    """A server, as one event loop uses it: that in which it is first used. The arguments are those of Client."""

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = None,
        resume_within: float | None = RESUME_WITHIN,
        resuming: Resuming = USUAL,
        owner: str = "",
        credentials: grpc.ChannelCredentials | None = None,
        options: Rows[tuple[str, Any]] = (),
    ) -> None:
        self._endpoint = Endpoint.of(address, credentials is not None, options)
        self.address = address
        self._timeout = timeout
        self._resuming = resuming
        self._resume_within = resume_within
        self._owner = owner
        self._make_channel = partial(_channel, address, credentials, (*calls.CHANNEL_OPTIONS, *options))
        # What changes while it lives.
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: grpc.aio.Channel | None = None
        self._connection: AsyncConnection | None = None
        self._layouts: dict[tuple[str, int], InputLayout] = {}

    # Models.

    async def models(self, timeout: float | None = None) -> tuple[Model, ...]:
        """Every model of the server by name and version, refused ones with their reason."""
        return calls.models(await self._call(self._stub.ListModels, tidegate_pb2.ListModelsRequest(), timeout))

    async def describe(self, model: str, version: int = 0, timeout: float | None = None) -> Model:
        """One model; version 0 is the newest that is ready. Raises UnknownModel."""
        request = tidegate_pb2.DescribeModelRequest(model=model, version=version)
        return calls.model(await self._call(self._stub.DescribeModel, request, timeout))

    async def predict(
        self, model: str, values: Inputs, *, version: int = 0, trace: TraceChoice = True, timeout: float | None = None
    ) -> Prediction:
        """A whole sequence at once, values [T, ...row], from the initial state; nothing is kept on the server."""
        selection = choose(trace)
        request = calls.predict_request(await self.describe(model, version, timeout), values, selection)
        return calls.prediction(await self._call(self._stub.Predict, request, timeout), selection)

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
        connection, sequence_books = await self._open(order, timeout, SequenceBooks)
        return AsyncSequence(AsyncSource(self._timeout, self._fork, self._inputs), connection, sequence_books)

    async def _open_fleet(self, order: Order, timeout: float | None) -> AsyncFleet:
        connection, sequence_books = await self._open(order, timeout, FleetBooks)
        return AsyncFleet(connection, sequence_books, self._timeout)

    async def _fork(self, state: State, like: Opening, version: int, timeout: float | None) -> AsyncSequence:
        order = Order(like.model, version, 1, like.order.trace, state, self._owner)
        return await self._open_sequence(order, timeout)

    def _connected(self, order: Order | Claim) -> AsyncConnection:
        """The stream that all sequences share; a new one, by the order's route, if there is none that works."""
        stub = self._stub
        if self._connection is None or not self._connection.alive:
            self._connection = AsyncConnection(stub, self._endpoint, order.route(), self._resuming, self._resume_within)
        return self._connection

    async def _open(
        self, order: Order | Claim, timeout: float | None, books: Callable[[Opening, Budget | None], B]
    ) -> tuple[AsyncConnection, B]:
        """Opens it, and its books, as soon as its model is loaded."""
        deadline = Deadline(calls.limit(timeout, self._timeout))
        attempts = Attempts(self._resuming, patience(self._resume_within, deadline.left))
        not_ready: ModelNotReady | None = None
        while True:
            connection = self._connected(order)
            try:
                return connection, await self._open_on(connection, order, deadline, books)
            except ModelNotReady as error:
                not_ready = error
                wait = attempts.wait_after(error)
                if wait is None:
                    raise
            except TimedOut:
                if not_ready is None:
                    raise
                raise not_ready from None
            await asyncio.sleep(wait)

    async def _open_on(
        self,
        connection: AsyncConnection,
        order: Order | Claim,
        deadline: Deadline,
        books: Callable[[Opening, Budget | None], B],
    ) -> B:
        """Opens it, and its books. Who gives up meanwhile leaves nothing open."""
        promise = connection.ask(connection.talk.open, order)
        try:
            await connection.wait(promise, deadline.left)
            opened = promise.result()
            inputs = await self._inputs(opened.model, opened.version, deadline.limit)
            made = books(Opening.read(order, opened, inputs), connection.talk.budget)
            connection.enrol(made)
        except BaseException:
            connection.disown(promise)
            raise
        return made

    async def _inputs(self, model: str, version: int, timeout: float | None) -> InputLayout:
        """The inputs of one version, kept once they are known; asked for as long as sequences are resumed."""
        layout = self._layouts.get((model, version))
        if layout is None:
            layout = self._layouts[model, version] = await self._ask_inputs(model, version, timeout)
        return layout

    async def _ask_inputs(self, model: str, version: int, timeout: float | None) -> InputLayout:
        deadline = Deadline(calls.limit(timeout, self._timeout))
        attempts = Attempts(self._resuming, patience(self._resume_within, deadline.left))
        while True:
            try:
                return calls.inputs_of(await self.describe(model, version, deadline.limit))
            except (ConnectionLost, ModelNotReady) as error:
                wait = attempts.wait_after(error)
                if wait is None:
                    raise
                await asyncio.sleep(wait)

    async def _call(self, method: "grpc.aio.UnaryUnaryMultiCallable[Q, R]", request: Q, timeout: float | None) -> R:
        try:
            return await method(request, timeout=calls.limit(timeout, self._timeout))
        except grpc.RpcError as error:
            raise explain(error, self._endpoint) from None


def _channel(
    address: str, credentials: grpc.ChannelCredentials | None, options: Rows[tuple[str, Any]]
) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, credentials, options)
