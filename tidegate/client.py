"""The client for threads."""

import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from threading import Lock
from typing import Any, Self, TypeVar

import grpc

from tidegate.admin.calls import Admin
from tidegate.client_core import ClientCore, ModelCalls
from tidegate.errors import ConnectionLost
from tidegate.opened import blocking, run
from tidegate.protocol.opening import Claim, Order
from tidegate.sequence import Fleet, Sequence
from tidegate.transport import calls
from tidegate.transport.process import OwnProcess
from tidegate.transport.status import explain
from tidegate.transport.threads import Connection
from tidegate.v1.admin_pb2_grpc import AdminStub
from tidegate.v1.tidegate_pb2_grpc import TidegateStub

T = TypeVar("T")


class Client(ClientCore[Connection, Sequence, Fleet]):
    """A server, as threads use it. Nothing is connected before the first call; a lost stream is replaced by the next.

    `address` is HOST:PORT, https://HOST:PORT for TLS, or unix:PATH. `timeout` is the default for every call, in
    seconds; None waits as long as it takes. `resume_within` is for how many seconds a call tries to go on after a loss,
    where the server keeps checkpoints; None is as long as it takes, 0 not at all; time in which no call waits does not
    count. `resuming` sets the rest of that: how often, and how much is kept for it. `owner` is a label for the server's
    limits, of at most 128 bytes.

    `ca` is a file of the issuers whose certificates are trusted, in PEM form, `cert` and `key` are those of the
    client's own certificate; each asks for TLS. `token` is a secret that the server knows the client by; `token_file`
    holds it, and is read again for each call. What is given of none of these is taken from the environment:
    TIDEGATE_CA, TIDEGATE_CERT, TIDEGATE_KEY, TIDEGATE_TOKEN_FILE, TIDEGATE_TOKEN. A token goes unencrypted to no other
    machine than this, unless `insecure` says that it may. `credentials` are gRPC's, instead of files; `options` are
    further gRPC channel options.

    It belongs to the process in which it was made: elsewhere, as after os.fork(), its calls raise RuntimeError.
    """

    _sequence_type = Sequence
    _fleet_type = Fleet

    models = blocking(ModelCalls.models)
    describe = blocking(ModelCalls.describe)
    predict = blocking(ModelCalls.predict)

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

    @property
    def admin(self) -> Admin:
        """What operators may ask: the server's sequences, its store, the versions of its models."""
        stub = AdminStub(self._channel)
        return Admin(partial(self._call, timeout=math.inf, stub=stub), partial(self._pages, stub))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # How.

    def _prepare(self) -> None:
        self._channel: grpc.Channel = self._new_channel(grpc)
        self._stub = TidegateStub(self._channel)
        self._process = OwnProcess()
        self._lock = Lock()

    @staticmethod
    def _begin(opening: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return run(opening)

    def _connected(self, order: Order | Claim) -> Connection:
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

    async def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - the coroutines of this client block where they wait

    async def _call(self, method: str, request: object, timeout: float | None, stub: object = None) -> Any:  # noqa: ANN401 - its response
        self._process.check()
        if self._closed:
            raise ConnectionLost("this client was closed")
        try:
            return getattr(stub or self._stub, method)(
                request, timeout=calls.limit(timeout, self._timeout), metadata=self._endpoint.headers()
            )
        except grpc.RpcError as error:
            raise explain(error, self._endpoint) from None

    async def _pages(self, stub: AdminStub, method: str, request: object) -> AsyncIterator[Any]:
        pages = await self._call(method, request, math.inf, stub)
        try:
            for page in pages:
                yield page
        except grpc.RpcError as error:
            raise explain(error, self._endpoint) from None
        finally:
            pages.cancel()


connect = Client
