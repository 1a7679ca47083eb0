"""What both clients do in the same way, written once: unary calls, and opening as soon as a server and a model allow.

What waits is a coroutine. The client for asyncio awaits it; with that for threads it blocks where it waits.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Generic, TypeVar

import grpc

from tidegate.answers import Prediction
from tidegate.errors import ConnectionLost, ModelNotReady, Refused, ServerBusy, TimedOut
from tidegate.inputs import InputLayout, Inputs
from tidegate.model import Model
from tidegate.opened import AnySequence, OpenFleet, OpenSequence, Source, again
from tidegate.protocol.budget import Budget
from tidegate.protocol.fleet_books import FleetBooks
from tidegate.protocol.opening import Claim, Opening, Order, new_seed
from tidegate.protocol.registry import Books
from tidegate.protocol.sequence_books import SequenceBooks
from tidegate.state import State
from tidegate.trace import TraceChoice, choose
from tidegate.transport import calls
from tidegate.transport.deadline import Deadline
from tidegate.transport.endpoint import Endpoint, File, Options, Proofs
from tidegate.transport.link import Link
from tidegate.transport.recovery import RESUME_WITHIN, USUAL, Attempts, Resuming, patience
from tidegate.transport.status import Unexplained
from tidegate.v1 import tidegate_pb2

_TRIES = 5  # of an opening whose call ended without a reason

B = TypeVar("B", bound=Books)
C = TypeVar("C", bound=Link)
AnyFleet = TypeVar("AnyFleet")


class ClientCore(ABC, Generic[C, AnySequence, AnyFleet]):
    """A server, its address and the limits of a client. For the arguments see Client."""

    _sequence_type: ClassVar[type[OpenSequence[Any]]]
    _fleet_type: ClassVar[type[OpenFleet]]

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = None,
        resume_within: float | None = RESUME_WITHIN,
        resuming: Resuming = USUAL,
        owner: str = "",
        ca: File | None = None,
        cert: File | None = None,
        key: File | None = None,
        token: str | None = None,
        token_file: File | None = None,
        insecure: bool = False,
        credentials: grpc.ChannelCredentials | None = None,
        options: Options = (),
    ) -> None:
        proofs = Proofs(ca, cert, key, token, token_file, insecure)
        self._options = tuple(options)
        self._endpoint = Endpoint.of(address, proofs, credentials, self._options)
        self.address = address
        self._timeout = timeout
        self._resuming = resuming
        self._resume_within = resume_within
        self._owner = owner
        self._closed = False
        self._connection: C | None = None
        self._layouts: dict[tuple[str, int], InputLayout] = {}
        self._prepare()

    # Sequences.

    def sequence(
        self,
        model: str,
        *,
        version: int = 0,
        trace: TraceChoice = True,
        state: State | None = None,
        seed: int | None = None,
        timeout: float | None = None,
    ) -> AnySequence:
        """Opens a sequence of a model, by default of its newest version and with everything in its trace.

        It begins at step 0, or where `state` was taken. A model that draws random numbers draws them from `seed`, if it
        is given: with the same seed and the same inputs the answers are the same. `timeout` is for opening, which waits
        for a model that is being loaded, no longer than `resume_within`. Raises UnknownModel, ModelNotReady,
        ServerBusy, BAD_TRACE or WRONG_STATE as Refused, ConnectionLost.
        """
        order = Order(model, version, 1, choose(trace), state, self._owner, new_seed() if seed is None else seed)
        return self._source.begin(lambda: self._open_sequence(order, timeout))

    def resume(
        self,
        sequence_id: str,
        token: str,
        *,
        answered: int,
        inputs: Callable[[int], Inputs] | None = None,
        trace: TraceChoice = True,
        timeout: float | None = None,
    ) -> AnySequence:
        """Resumes a sequence that was opened before, by this process or another, which loses it.

        `sequence_id` and `token` are its `id` and `resume_token`, `answered` how many answers there are. The server
        goes back to the newest checkpoint at or before that, and wants the inputs since once more: `inputs(first)`
        gives those of the steps from `first` on, [answered - first, ...row]; their answers are passed over, and the
        sequence stands at `answered`. Without `inputs` it stands at its `next_step`, and it is for the caller to send
        from there on, also what was answered. While the server's store does not answer it waits, no longer than
        `resume_within`. Raises SequenceLost, ServerBusy, ConnectionLost, BadInput.
        """
        claim = Claim((sequence_id,), token, (answered,), choose(trace))
        return self._source.begin(lambda: self._resume(claim, inputs, timeout))

    def fleet(
        self,
        model: str,
        count: int,
        *,
        version: int = 0,
        trace: TraceChoice = True,
        state: State | None = None,
        seed: int | None = None,
        timeout: float | None = None,
    ) -> AnyFleet:
        """Opens `count` sequences that take their steps together, with the seeds `seed`, `seed` + 1 and so on.

        Raises as `sequence`.
        """
        order = Order(model, version, count, choose(trace), state, self._owner, new_seed() if seed is None else seed)
        fleet: AnyFleet = self._begin(lambda: self._open_fleet(order, timeout))
        return fleet

    # The ports.

    @abstractmethod
    def _prepare(self) -> None:
        """Makes what belongs to one kind of client."""

    @staticmethod
    @abstractmethod
    def _begin(opening: Callable[[], Coroutine[Any, Any, Any]]) -> Any:  # noqa: ANN401 - what was opened, or what is awaited
        """Runs a coroutine that opens something, or has it awaited."""

    @abstractmethod
    def _connected(self, order: Order | Claim) -> C:
        """The stream that all sequences share; a new one, by the order's route, if there is none that works."""

    @abstractmethod
    async def _call(self, method: str, request: object, timeout: float | None) -> Any:  # noqa: ANN401 - its response
        """Makes a unary call. Raises TidegateError."""

    @abstractmethod
    async def _sleep(self, seconds: float) -> None: ...

    # Opening.

    @property
    def _source(self) -> Source[AnySequence]:
        return Source(self._timeout, self._owner, self._open_sequence, self._inputs, self._begin)

    async def _open_sequence(self, order: Order | Claim, timeout: float | None) -> OpenSequence[AnySequence]:
        return self._sequence_type(self._source, *await self._open(order, timeout, SequenceBooks))

    async def _open_fleet(self, order: Order, timeout: float | None) -> OpenFleet:
        return self._fleet_type(self._source, *await self._open(order, timeout, FleetBooks))

    async def _resume(
        self, claim: Claim, inputs: Callable[[int], Inputs] | None, timeout: float | None
    ) -> OpenSequence[AnySequence]:
        connection, books = await self._open(claim, timeout, SequenceBooks)
        rows = again(books, int(claim.answered[0]), inputs)
        if rows is not None:
            deadline = Deadline(calls.limit(timeout, self._timeout))
            promise = await connection.send(books, deadline, books.send_chunk, rows)
            await connection.wait(promise, deadline.left)
            promise.result()
        return self._sequence_type(self._source, connection, books)

    async def _open(
        self, order: Order | Claim, timeout: float | None, books: Callable[[Opening, Budget | None], B]
    ) -> tuple[C, B]:
        """Opens it, and its books, as soon as its model is loaded and the store answers."""
        deadline, attempts = self._limits(timeout)
        not_yet: ModelNotReady | ServerBusy | None = None
        tries = _TRIES
        while True:
            connection = self._connected(order)
            try:
                return connection, await self._open_on(connection, order, deadline, books)
            except Unexplained:
                if not (tries := tries - 1):
                    raise
            except (ModelNotReady, ServerBusy) as error:
                not_yet = error
                await self._wait_after(error, attempts)
            except TimedOut:
                if not_yet is None:
                    raise
                raise not_yet from None

    async def _open_on(
        self, connection: C, order: Order | Claim, deadline: Deadline, books: Callable[[Opening, Budget | None], B]
    ) -> B:
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

    # Models.

    async def _inputs(self, model: str, version: int, timeout: float | None) -> InputLayout:
        """The inputs of one version, kept once they are known."""
        if (model, version) not in self._layouts:
            self._layouts[model, version] = calls.inputs_of(await self._ready(model, version, timeout))
        return self._layouts[model, version]

    async def _ready(self, model: str, version: int, timeout: float | None) -> Model:
        """The description of a model that is ready; asked for as long as sequences are resumed."""
        deadline, attempts = self._limits(timeout)
        why: ConnectionLost | ModelNotReady | None = None
        while True:
            try:
                return calls.ready(await self._describe(model, version, deadline.limit))
            except (ConnectionLost, ModelNotReady) as error:
                why = error
                await self._wait_after(error, attempts)
            except TimedOut as error:
                raise why or error from None  # that the time was over says less

    def _new_channel(self, kind: Any) -> Any:  # noqa: ANN401 - of `grpc` or of `grpc.aio`
        return self._endpoint.channel(kind, self._options)

    async def _describe(self, model: str, version: int, timeout: float | None) -> Model:
        request = tidegate_pb2.DescribeModelRequest(model=model, version=version)
        return calls.read_model((await self._call("DescribeModel", request, timeout)).model)

    def _limits(self, timeout: float | None) -> tuple[Deadline, Attempts]:
        deadline = Deadline(calls.limit(timeout, self._timeout))
        return deadline, Attempts(self._resuming, patience(self._resume_within, deadline.left))

    async def _wait_after(self, error: ConnectionLost | Refused, attempts: Attempts) -> None:
        """Waits for the next attempt. Raises the error if none would help, or the time is over."""
        wait = attempts.wait_after(error)
        if wait is None:
            raise error
        await self._sleep(wait)


class ModelCalls(ClientCore[C, AnySequence, AnyFleet]):
    """The coroutines of a client about models."""

    async def models(self, timeout: float | None = None) -> tuple[Model, ...]:
        """Every model of the server by name and version, refused ones with their reason."""
        response = await self._call("ListModels", tidegate_pb2.ListModelsRequest(), timeout)
        return tuple(calls.read_model(message) for message in response.models)

    async def describe(
        self, model: str, version: int = 0, timeout: float | None = None, *, ready: bool = False
    ) -> Model:
        """One model; version 0 is the newest that is ready. Raises UnknownModel.

        With `ready` it waits for one that is being loaded, no longer than `resume_within`, and raises ModelNotReady.
        """
        found = await self._describe(model, version, timeout)
        if not ready:
            return found
        return calls.ready(found) if found.status != "loading" else await self._ready(model, version, timeout)

    async def predict(
        self,
        model: str,
        values: Inputs,
        *,
        version: int = 0,
        trace: TraceChoice = True,
        seed: int | None = None,
        timeout: float | None = None,
    ) -> Prediction:
        """A whole sequence at once, values [T, ...row], from the initial state; nothing is kept on the server."""
        selection = choose(trace)
        request = calls.predict_request(await self._describe(model, version, timeout), values, selection, seed)
        deadline, attempts = self._limits(timeout)
        while True:
            try:
                return calls.prediction(await self._call("Predict", request, deadline.limit), selection)
            except ServerBusy as error:  # a token takes so many steps a second: the server says when the next may come
                await self._wait_after(error, attempts)
