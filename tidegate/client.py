"""The client for threads. What is said on the wire is decided elsewhere; here it is sent and waited for."""

import time
from collections.abc import Callable
from threading import Lock
from typing import Any, Self

import grpc

from tidegate.answers import Prediction
from tidegate.errors import ConnectionLost
from tidegate.inputs import InputLayout, Inputs
from tidegate.model import Model
from tidegate.protocol.fleet_books import FleetBooks
from tidegate.protocol.opening import Claim, Opening, Order
from tidegate.protocol.promise import Promise
from tidegate.protocol.sequence_books import SequenceBooks
from tidegate.sequence import Fleet, Sequence, Source
from tidegate.state import State
from tidegate.trace import TraceChoice, choose
from tidegate.transport import calls
from tidegate.transport.core import ClientCore, Options, again, run
from tidegate.transport.process import OwnProcess
from tidegate.transport.recovery import RESUME_WITHIN, USUAL, Resuming
from tidegate.transport.status import explain
from tidegate.transport.threads import Connection
from tidegate.v1.tidegate_pb2_grpc import TidegateStub

# ruff: noqa: ASYNC109 - `timeout` has the same name and meaning in both clients, and raises our own TimedOut


class Client(ClientCore[Connection]):
    """A server, as threads use it. Nothing is connected before the first call; a lost stream is replaced by the next.

    `address` is HOST:PORT. `timeout` is the default for every call, in seconds; None waits as long as it takes.
    `resume_within` is for how many seconds a call tries to go on after a loss, where the server keeps checkpoints; None
    is as long as it takes, 0 not at all; time in which nobody waits for anything does not count. `resuming` sets the
    rest of that: how often, and how much is kept for it. `owner` is a label for the server's limits, of at most 128
    bytes. `credentials` are gRPC's, for TLS; None is plain text. `options` are further gRPC channel options.

    It belongs to the process in which it was made: elsewhere, as after os.fork(), its calls raise RuntimeError.
    """

    def _begin(self, credentials: grpc.ChannelCredentials | None, options: Options) -> None:
        self._channel = _channel(self.address, credentials, options)
        self._stub = TidegateStub(self._channel)
        self._process = OwnProcess()
        self._lock = Lock()

    # Models.

    def models(self, timeout: float | None = None) -> tuple[Model, ...]:
        """Every model of the server by name and version, refused ones with their reason."""
        return run(self._models(timeout))

    def describe(self, model: str, version: int = 0, timeout: float | None = None) -> Model:
        """One model; version 0 is the newest that is ready. Raises UnknownModel."""
        return run(self._describe(model, version, timeout))

    def predict(
        self, model: str, values: Inputs, *, version: int = 0, trace: TraceChoice = True, timeout: float | None = None
    ) -> Prediction:
        """A whole sequence at once, values [T, ...row], from the initial state; nothing is kept on the server."""
        return run(self._predict(model, values, version, trace, timeout))

    # Sequences.

    def sequence(
        self,
        model: str,
        *,
        version: int = 0,
        trace: TraceChoice = True,
        state: State | None = None,
        timeout: float | None = None,
    ) -> Sequence:
        """Opens a sequence of a model, by default of its newest version and with everything in its trace.

        It begins at step 0, or where `state` was taken. `timeout` is for opening, which waits for a model that is being
        loaded, no longer than `resume_within`. Raises UnknownModel, ModelNotReady, ServerBusy, BAD_TRACE or WRONG_STATE
        as Refused, ConnectionLost.
        """
        return self._sequence(Order(model, version, 1, choose(trace), state, self._owner), timeout)

    def resume(
        self,
        sequence_id: str,
        token: str,
        *,
        answered: int,
        inputs: Callable[[int], Inputs] | None = None,
        trace: TraceChoice = True,
        timeout: float | None = None,
    ) -> Sequence:
        """Resumes a sequence that was opened before, by this process or another; whoever has it lets it go.

        `sequence_id` and `token` are its `id` and `resume_token`, `answered` how many answers there are. The server
        goes back to the newest checkpoint at or before that, and wants the inputs since once more: `inputs(first)`
        gives those of the steps from `first` on, [answered - first, ...row]; their answers are passed over, and the
        sequence stands at `answered`. Without `inputs` it stands at its `next_step`, and it is for the caller to send
        from there on, also what was answered. Raises SequenceLost, ServerBusy, ConnectionLost, BadInput.
        """
        claim = Claim((sequence_id,), token, (answered,), choose(trace))
        sequence = self._sequence(claim, timeout)
        rows = again(sequence, answered, inputs)
        if rows is not None:
            sequence.chunk(rows, timeout)
        return sequence

    def fleet(
        self,
        model: str,
        count: int,
        *,
        version: int = 0,
        trace: TraceChoice = True,
        state: State | None = None,
        timeout: float | None = None,
    ) -> Fleet:
        """Opens `count` sequences that take their steps together. Raises as `sequence`."""
        order = Order(model, version, count, choose(trace), state, self._owner)
        connection, books = run(self._open(order, timeout, FleetBooks))
        return Fleet(connection, books, self._timeout)

    def close(self) -> None:
        """Ends the stream and what is open on it. The client cannot be used after that.

        What is open on a server that keeps checkpoints is parked there, and can be resumed: see `resume`.
        """
        if not self._process.here:  # its connection is its parent's
            return
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close("this client was closed")
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # How.

    def _connected(self, order: Order | Claim) -> Connection:
        """The stream that all sequences share; a new one, by the order's route, if there is none that works."""
        self._process.check()
        with self._lock:
            if self._closed:
                raise ConnectionLost("this client was closed")
            if self._connection is not None and not self._connection.alive:
                self._connection.close(f"the stream to {self.address} was lost")
                self._connection = None
            if self._connection is None:
                self._connection = Connection(
                    self._stub, self._endpoint, order.route(), self._resuming, self._resume_within
                )
            return self._connection

    def _sequence(self, order: Order | Claim, timeout: float | None) -> Sequence:
        connection, books = run(self._open(order, timeout, SequenceBooks))
        return Sequence(Source(self._timeout, self._fork, self._inputs_of), connection, books)

    def _fork(self, state: State, like: Opening, version: int, timeout: float | None) -> Sequence:
        return self._sequence(Order(like.model, version, 1, like.order.trace, state, self._owner), timeout)

    def _inputs_of(self, model: str, version: int, timeout: float | None) -> InputLayout:
        return run(self._inputs(model, version, timeout))

    async def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - the coroutines of this client block: see `run`

    async def _wait(self, connection: Connection, promise: Promise[Any], timeout: float | None) -> None:
        connection.wait(promise, timeout)

    async def _call(self, method: str, request: object, timeout: float | None) -> Any:  # noqa: ANN401 - its response
        self._process.check()
        if self._closed:
            raise ConnectionLost("this client was closed")
        try:
            return getattr(self._stub, method)(request, timeout=calls.limit(timeout, self._timeout))
        except grpc.RpcError as error:
            raise explain(error, self._endpoint) from None


def connect(
    address: str,
    *,
    timeout: float | None = None,
    resume_within: float | None = RESUME_WITHIN,
    resuming: Resuming = USUAL,
    owner: str = "",
    credentials: grpc.ChannelCredentials | None = None,
    options: Options = (),
) -> Client:
    """A client of the server at HOST:PORT; see Client."""
    return Client(
        address,
        timeout=timeout,
        resume_within=resume_within,
        resuming=resuming,
        owner=owner,
        credentials=credentials,
        options=options,
    )


def _channel(address: str, credentials: grpc.ChannelCredentials | None, options: Options) -> grpc.Channel:
    if credentials is None:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, credentials, options)
