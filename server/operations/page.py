"""An HTTP server in threads for one page, with few connections at a time.

Silent ones are closed, and where others wait for a place the one that has had one for longest. The page is made once
for all who ask meanwhile, and takes no more than a tenth of the time: to make it holds the interpreter's lock.
"""

import logging
import socket
from contextlib import suppress
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Lock, Thread
from time import monotonic, sleep, thread_time
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

log = logging.getLogger(__name__)

_MOST = 32  # connections at a time
_PATIENCE = 1.0  # seconds until the slowest of them has given up its place
_ASKED = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics"}
_REST = 9  # times as long as a page took to make until the next one is made


class Page:
    """Serves from the moment it is made until `stop`.

    Args:
        host: an address or a name.
        port: one that is free.
        application: WSGI's.
        silence: seconds after which a connection that says nothing is closed.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, host: str, port: int, application: Any, silence: float) -> None:  # noqa: ANN401 # WSGI's
        family_, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]

        class Server(_Server):
            address_family = family_

        class Handler(_Handler):
            timeout = silence

        self._server = make_server(
            str(address[0]), port, _Shared(application), server_class=Server, handler_class=Handler
        )
        Thread(target=self._server.serve_forever, name="page", daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Shared:
    """WSGI's application, which makes the same page for everybody."""

    def __init__(self, application: Any) -> None:  # noqa: ANN401 # WSGI's
        self._application = application
        self._turn = Lock()
        self._begun = 0  # pages
        self._rested = 0.0  # by the clock: when the next one may be made
        self._said: tuple[Any, Any] = "", ()  # status and header fields
        self._body: list[bytes] = []

    def __call__(self, _: object, start_response: Any) -> list[bytes]:  # noqa: ANN401 # WSGI's
        before = self._begun
        with self._turn:
            if self._begun == before:  # else another has had it made since this one was asked for
                self._make()
            (status, fields), body = self._said, self._body
        start_response(status, list(fields))
        return body

    def _make(self) -> None:
        sleep(max(0.0, self._rested - monotonic()))
        self._begun += 1
        began = thread_time()
        try:
            self._body = list(self._application(_ASKED, self._say))
        except Exception as error:
            log.exception("the page of metrics could not be made")
            self._say("503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8")])
            why = str(error) if isinstance(error, TimeoutError) else "the server failed; its log has the details"
            self._body = [f"the metrics could not be read: {why}\n".encode()]
        finally:
            self._rested = monotonic() + _REST * (thread_time() - began)

    def _say(self, status: str, fields: Any) -> None:  # noqa: ANN401 # WSGI's
        self._said = status, fields


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *given: Any) -> None:  # noqa: ANN401 # the library's
        super().__init__(*given)
        self._places = BoundedSemaphore(_MOST)
        self._open: dict[socket.socket, None] = {}  # the one that came first is the first

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 # the library's
        if not self._places.acquire(blocking=False):
            for slowest in [*self._open][:1]:
                with suppress(OSError):  # it has ended by itself
                    slowest.shutdown(socket.SHUT_RDWR)
            if not self._places.acquire(timeout=_PATIENCE):
                return self.shutdown_request(request)
        self._open[request] = None
        return super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 # the library's
        try:
            super().process_request_thread(request, client_address)
        finally:
            del self._open[request]
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 # the library's
        """A connection that broke is not logged."""


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *given: object) -> None:  # noqa: A002 # the library's
        """Requests are not logged."""
