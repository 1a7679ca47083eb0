from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

from bench.processes.child import free_port
from server.operations import page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def application(_: object, start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"here"]


def asked(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return client.makefile("rb").read()


def test_connections_that_send_their_requests_slowly_keep_nobody_from_the_page() -> None:
    port = free_port()
    served = page.Page("127.0.0.1", port, application, silence=60)
    with ExitStack() as slow:
        slow.callback(served.stop)
        for _ in range(2 * page._MOST):
            slow.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(b"G")
        assert asked(port).endswith(b"\r\n\r\nhere")
