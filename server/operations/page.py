"""An HTTP server in threads for one page, with few connections at a time.

Silent ones are closed, and where others wait for a place the one that has had one for longest.
"""

import socket
from contextlib import suppress
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

_MOST = 32  # connections at a time
_PATIENCE = 1.0  # seconds until the slowest of them has given up its place


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

        self._server = make_server(str(address[0]), port, application, server_class=Server, handler_class=Handler)
        Thread(target=self._server.serve_forever, name="page", daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


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
