"""The call of a stream over HTTP/2, as values: what is to be written, what came, and whether the server lives.

The streams for asyncio and for threads carry its bytes.
"""

import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from socket import gaierror
from typing import Any

import grpc

from tidegate.http2.client_call import ClientCall
from tidegate.plain.answers import Reader, Response
from tidegate.plain.steps import Request
from tidegate.transport.bundles import Bundler
from tidegate.transport.endpoint import Place

METHOD = "/tidegate.v1.Tidegate/Stream"
CONNECT = 20.0  # seconds to connect
AT_ONCE = 16  # requests: the server computes those while this side makes the next ones
CLOSED = "Socket closed"  # as gRPC says it
_QUIET, _PATIENCE = 20.0, 10.0  # seconds without a byte until a ping; for its answer
_WRITTEN = 2**16  # bytes in one write, and a message

Headers = Sequence[tuple[str, str]]


class StreamCall:
    """From the first byte of its connection to the last. `limit` says how many bytes of a message the server takes.

    0: it has not said.
    """

    def __init__(self, place: Place, headers: Headers, limit: Callable[[], int]) -> None:
        self._call = ClientCall(METHOD, place.authority, headers, place.tls is not None)
        self._outbox: SimpleQueue[Request | None] = SimpleQueue()
        self._bundler = Bundler(self._outbox, limit)
        self._read = Reader().read
        self._heard, self._pinged = True, False
        self.put = self._outbox.put  # a request, or with None the end of them
        self.waiting = self._outbox.qsize  # requests that are not bytes yet

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._call.ended is not None

    @property
    def blocked(self) -> bool:
        """Whether requests wait until the server gives room."""
        return self._call.waits

    def to_write(self) -> bytes:
        """What is to be written next; b"" if nothing is."""
        call, bundler, outbox = self._call, self._bundler, self._outbox
        while (bundler.kept is not None or not outbox.empty()) and not call.waits:
            if (request := bundler.left() or self._next()) is None:
                break
            call.send(bundler.fill(request))
            if call.ready > _WRITTEN:
                break
        return call.to_send()

    def receive(self, data: bytes) -> Iterator[Response]:
        """The responses that are whole now."""
        self._heard = True
        return map(self._read, self._call.receive(data))

    def look(self) -> float:
        """Asks for a sign of life from a server that is quiet, and gives it up without one.

        Returns in how many seconds it is to be called again; it is called first when there is a connection.
        """
        unanswered, self._pinged, self._heard = self._pinged and not self._heard, not self._heard, False
        if unanswered:
            self._call.lost(f"no answer to a ping within {_PATIENCE:g} s")
        elif self._pinged:
            self._call.ping()
        return _PATIENCE if self._pinged else _QUIET

    def cancel(self) -> None:
        """Nothing more is wanted."""
        self._call.cancel()

    def lost(self, why: str) -> None:
        """The connection is gone."""
        self._call.lost(why)

    def unreached(self, error: OSError) -> None:
        """There is no connection."""
        self._call.lost(f"no connection within {CONNECT:g} s" if isinstance(error, TimeoutError) else _why(error))

    def error(self) -> grpc.aio.AioRpcError | None:
        """How it ended; None: in order."""
        ended = self._call.ended
        if ended is None or ended.status in ("OK", "CANCELLED"):
            return None
        metadata: Any = grpc.aio.Metadata(*ended.metadata)
        return grpc.aio.AioRpcError(grpc.StatusCode[ended.status], grpc.aio.Metadata(), metadata, ended.details)

    def _next(self) -> Request | None:
        request = self._outbox.get_nowait()
        if request is None:
            self._call.end()
        return request


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError | gaierror) or not error.errno:
        return str(error)
    return os.strerror(error.errno)
