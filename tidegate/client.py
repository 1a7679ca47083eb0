"""The client for threads. What is said on the wire is decided elsewhere; here it is sent and waited for."""

from collections.abc import Sequence as Rows
from threading import Lock
from typing import Any, Self, TypeVar

import grpc

from tidegate import calls
from tidegate.answers import Prediction
from tidegate.connection import Connection
from tidegate.fleet_ledger import FleetLedger
from tidegate.inputs import InputLayout, Inputs
from tidegate.ledger import Ledger
from tidegate.model import Model
from tidegate.opening import Opening, Order
from tidegate.sequence import Fleet, Sequence
from tidegate.status import explain
from tidegate.trace import TraceChoice, choose
from tidegate.v1 import tidegate_pb2
from tidegate.v1.tidegate_pb2_grpc import TidegateStub

Q = TypeVar("Q")
R = TypeVar("R")


class Client:
    """A server, as threads use it. Nothing is connected before the first call; a lost stream is replaced by the next.

    `address` is HOST:PORT. `timeout` is the default for every call, in seconds; None waits as long as it takes.
    `credentials` are gRPC's, for TLS; None is plain text. `options` are further gRPC channel options.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        options: Rows[tuple[str, Any]] = (),
    ) -> None:
        self.address = address
        self._timeout = timeout
        self._channel = _channel(address, credentials, (*calls.CHANNEL_OPTIONS, *options))
        self._stub = TidegateStub(self._channel)
        # What changes while it lives.
        self._lock = Lock()
        self._connection: Connection | None = None
        self._layouts: dict[tuple[str, int], InputLayout] = {}

    # Models.

    def models(self, timeout: float | None = None) -> tuple[Model, ...]:
        """Every model of the server by name and version, refused ones with their reason."""
        return calls.models(self._call(self._stub.ListModels, tidegate_pb2.ListModelsRequest(), timeout))

    def describe(self, model: str, version: int = 0, timeout: float | None = None) -> Model:
        """One model; version 0 is the newest that is ready. Raises UnknownModel."""
        request = tidegate_pb2.DescribeModelRequest(model=model, version=version)
        return calls.model(self._call(self._stub.DescribeModel, request, timeout))

    def predict(
        self, model: str, values: Inputs, *, version: int = 0, trace: TraceChoice = True, timeout: float | None = None
    ) -> Prediction:
        """A whole sequence at once, values [T, ...row], from the initial state; nothing is kept on the server."""
        selection = choose(trace)
        request = calls.predict_request(self.describe(model, version, timeout), values, selection)
        return calls.prediction(self._call(self._stub.Predict, request, timeout), selection)

    # Sequences.

    def sequence(
        self, model: str, *, version: int = 0, trace: TraceChoice = True, timeout: float | None = None
    ) -> Sequence:
        """Opens a sequence of a model, by default of its newest version and with everything in its trace.

        `timeout` is for opening. Raises UnknownModel, ServerBusy, BAD_TRACE as Refused, ConnectionLost.
        """
        connection = self._connected()
        ledger = Ledger(self._open(connection, Order(model, version, 1, choose(trace)), timeout))
        connection.enrol(ledger)
        return Sequence(connection, ledger, self._timeout)

    def fleet(
        self, model: str, count: int, *, version: int = 0, trace: TraceChoice = True, timeout: float | None = None
    ) -> Fleet:
        """Opens `count` sequences that take their steps together. Raises as `sequence`."""
        connection = self._connected()
        ledger = FleetLedger(self._open(connection, Order(model, version, count, choose(trace)), timeout))
        connection.enrol(ledger)
        return Fleet(connection, ledger, self._timeout)

    def close(self) -> None:
        """Ends the stream and what is open on it. The client cannot be used after that."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close("this client was closed")
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # How.

    def _connected(self) -> Connection:
        """The stream that this client's sequences share; a new one if there is none that works."""
        with self._lock:
            if self._connection is not None and not self._connection.alive:
                self._connection.close(f"the stream to {self.address} was lost")
                self._connection = None
            if self._connection is None:
                self._connection = Connection(self._stub, self.address)
            return self._connection

    def _open(self, connection: Connection, order: Order, timeout: float | None) -> Opening:
        ticket = connection.open(order)
        connection.wait(ticket, calls.limit(timeout, self._timeout))
        opened = ticket.result()
        return Opening.read(order, opened, self._inputs(opened.model, opened.version, timeout))

    def _inputs(self, model: str, version: int, timeout: float | None) -> InputLayout:
        """The inputs of one version, which the server is asked for once."""
        layout = self._layouts.get((model, version))
        if layout is None:
            layout = self._layouts[model, version] = InputLayout(self.describe(model, version, timeout).inputs)
        return layout

    def _call(self, method: "grpc.UnaryUnaryMultiCallable[Q, R]", request: Q, timeout: float | None) -> R:
        try:
            return method(request, timeout=calls.limit(timeout, self._timeout))
        except grpc.RpcError as error:
            raise explain(error, self.address) from None


def connect(
    address: str,
    *,
    timeout: float | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    options: Rows[tuple[str, Any]] = (),
) -> Client:
    """A client of the server at HOST:PORT; see Client."""
    return Client(address, timeout=timeout, credentials=credentials, options=options)


def _channel(address: str, credentials: grpc.ChannelCredentials | None, options: Rows[tuple[str, Any]]) -> grpc.Channel:
    if credentials is None:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, credentials, options)
