"""What both clients do in the same way, written once: unary calls, and opening as soon as a server and a model allow.

These are coroutines. A client for asyncio awaits them; one for threads runs them, and what they wait for blocks it.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from collections.abc import Sequence as Rows
from typing import Any, Generic, TypeVar

import grpc

from tidegate.answers import Prediction
from tidegate.errors import ConnectionLost, ModelNotReady, Refused, TimedOut, refused
from tidegate.facts import SequenceFacts
from tidegate.inputs import InputLayout, Inputs
from tidegate.model import Model
from tidegate.protocol.budget import Budget
from tidegate.protocol.opening import Claim, Opening, Order
from tidegate.protocol.promise import Promise
from tidegate.protocol.registry import Books
from tidegate.trace import TraceChoice, choose
from tidegate.transport import calls
from tidegate.transport.deadline import Deadline
from tidegate.transport.endpoint import Endpoint
from tidegate.transport.link import Link
from tidegate.transport.recovery import RESUME_WITHIN, USUAL, Attempts, Resuming, patience
from tidegate.v1 import tidegate_pb2

# ruff: noqa: ASYNC109 - `timeout` has the same name and meaning in both clients, and raises our own TimedOut

log = logging.getLogger("tidegate")

T = TypeVar("T")
B = TypeVar("B", bound=Books)
C = TypeVar("C", bound=Link)
Options = Rows[tuple[str, Any]]


def run(task: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that blocks where it waits."""
    try:
        task.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("a coroutine of the client for threads was suspended")


def again(sequence: SequenceFacts, answered: int, inputs: Callable[[int], Inputs] | None) -> Inputs | None:
    """What a sequence that was resumed has to be sent once more before it stands at `answered`; None: nothing.

    `inputs` gives the rows [T, ...row] from a step to `answered`. Without it, the log says what is left to the caller.
    Raises BadInput if it gives another number of them.
    """
    first = sequence.next_step
    if first >= answered:
        return None
    if inputs is None:
        log.warning("sequence %s goes on at step %d: send its inputs from there on again", sequence.id, first)
        return None
    rows = inputs(first)
    counts = [len(array) for array in (rows.values() if isinstance(rows, Mapping) else [rows])]
    if any(count != answered - first for count in counts):
        wanted = f"the inputs of steps {first} to {answered - 1} are wanted again"
        raise refused("WRONG_SHAPE", f"{wanted}: {answered - first} rows, and {counts[0]} were given")
    return rows


class ClientCore(ABC, Generic[C]):
    """A server, its address and the limits of a client. For the arguments see Client."""

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = None,
        resume_within: float | None = RESUME_WITHIN,
        resuming: Resuming = USUAL,
        owner: str = "",
        credentials: grpc.ChannelCredentials | None = None,
        options: Options = (),
    ) -> None:
        self._endpoint = Endpoint.of(address, credentials is not None, options)
        self.address = address
        self._timeout = timeout
        self._resuming = resuming
        self._resume_within = resume_within
        self._owner = owner
        # What changes while it lives.
        self._closed = False
        self._connection: C | None = None
        self._layouts: dict[tuple[str, int], InputLayout] = {}
        self._begin(credentials, (*calls.CHANNEL_OPTIONS, *options))

    @abstractmethod
    def _begin(self, credentials: grpc.ChannelCredentials | None, options: Options) -> None:
        """Makes its channel, or what makes it later."""

    @abstractmethod
    def _connected(self, order: Order | Claim) -> C:
        """The stream that all sequences share; a new one, by the order's route, if there is none that works."""

    @abstractmethod
    async def _call(self, method: str, request: object, timeout: float | None) -> Any:  # noqa: ANN401 - its response
        """Makes a unary call. Raises TidegateError."""

    @abstractmethod
    async def _sleep(self, seconds: float) -> None: ...

    @abstractmethod
    async def _wait(self, connection: C, promise: Promise[Any], timeout: float | None) -> None: ...

    async def _models(self, timeout: float | None) -> tuple[Model, ...]:
        return calls.models(await self._call("ListModels", tidegate_pb2.ListModelsRequest(), timeout))

    async def _describe(self, model: str, version: int, timeout: float | None) -> Model:
        request = tidegate_pb2.DescribeModelRequest(model=model, version=version)
        return calls.model(await self._call("DescribeModel", request, timeout))

    async def _predict(
        self, model: str, values: Inputs, version: int, trace: TraceChoice, timeout: float | None
    ) -> Prediction:
        selection = choose(trace)
        request = calls.predict_request(await self._describe(model, version, timeout), values, selection)
        return calls.prediction(await self._call("Predict", request, timeout), selection)

    async def _open(
        self, order: Order | Claim, timeout: float | None, books: Callable[[Opening, Budget | None], B]
    ) -> tuple[C, B]:
        """Opens it, and its books, as soon as its model is loaded."""
        deadline, attempts = self._limits(timeout)
        not_ready: ModelNotReady | None = None
        while True:
            connection = self._connected(order)
            try:
                return connection, await self._open_on(connection, order, deadline, books)
            except ModelNotReady as error:
                not_ready = error
                await self._wait_after(error, attempts)
            except TimedOut:
                if not_ready is None:
                    raise
                raise not_ready from None

    async def _open_on(
        self, connection: C, order: Order | Claim, deadline: Deadline, books: Callable[[Opening, Budget | None], B]
    ) -> B:
        promise = connection.ask(connection.talk.open, order)
        try:
            await self._wait(connection, promise, deadline.left)
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
        deadline, attempts = self._limits(timeout)
        why: ConnectionLost | ModelNotReady | None = None
        while (layout := self._layouts.get((model, version))) is None:
            try:
                described = await self._describe(model, version, deadline.limit)
                self._layouts[model, version] = calls.inputs_of(described)
            except (ConnectionLost, ModelNotReady) as error:
                why = error
                await self._wait_after(error, attempts)
            except TimedOut as error:
                raise why or error from None  # that the time was over says less than what it went by with
        return layout

    def _limits(self, timeout: float | None) -> tuple[Deadline, Attempts]:
        deadline = Deadline(calls.limit(timeout, self._timeout))
        return deadline, Attempts(self._resuming, patience(self._resume_within, deadline.left))

    async def _wait_after(self, error: ConnectionLost | Refused, attempts: Attempts) -> None:
        """Waits for the next attempt. Raises the error if none would help, or the time is over."""
        wait = attempts.wait_after(error)
        if wait is None:
            raise error
        await self._sleep(wait)
