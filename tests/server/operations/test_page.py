from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from threading import Barrier, Lock
from typing import TYPE_CHECKING

import pytest

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


class Together:
    """A lock that nobody gets before so many ask for it."""

    def __init__(self, count: int) -> None:
        self._all, self._lock = Barrier(count), Lock()

    def __enter__(self) -> None:
        self._all.wait(60)
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_page_is_made_once_for_all_who_ask_meanwhile_and_anew_for_who_asks_later() -> None:
    made = count()
    shared = page._Shared(lambda _, start: start("200 OK", []) or [str(next(made)).encode()])
    with ThreadPoolExecutor(10) as clients:
        for number, asking in ((b"0", 10), (b"1", 1), (b"2", 10)):
            shared._turn = Together(asking)  # type: ignore[assignment]
            said = [clients.submit(shared, {}, lambda *_: None) for _ in range(asking)]
            assert [one.result() for one in said] == [[number]] * asking


def test_who_waits_for_a_page_that_cannot_be_made_is_told_so_and_gets_none_from_before() -> None:
    def failing(_: object, start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
        start_response("200 OK", [])
        if (error := next(errors)) is not None:
            raise error
        return [b"here"]

    errors = iter([None, TimeoutError("the event loop did not answer within 5 s"), KeyError("a secret"), None])
    shared, said = page._Shared(failing), list[tuple[str, bytes]]()
    with ThreadPoolExecutor(3) as clients:
        for _ in range(4):
            shared._turn = Together(3)  # type: ignore[assignment]
            statuses: list[str] = []
            asking = [clients.submit(shared, {}, lambda status, _, to=statuses: to.append(status)) for _ in range(3)]
            ((body,),) = {tuple(one.result()) for one in asking}
            ((status),) = set(statuses)
            said.append((status, body))
    assert said == [
        ("200 OK", b"here"),
        ("503 Service Unavailable", b"the metrics could not be read: the event loop did not answer within 5 s\n"),
        ("503 Service Unavailable", b"the metrics could not be read: the server failed; its log has the details\n"),
        ("200 OK", b"here"),
    ]


def test_a_page_is_not_made_again_and_again_without_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    worked, times = iter([7.0, 7.5, 7.5, 7.5]), iter([100.0, 100.5, 101.0, 101.0])
    monkeypatch.setattr(page, "thread_time", lambda: next(worked))
    monkeypatch.setattr(page, "monotonic", lambda: next(times))
    monkeypatch.setattr(page, "sleep", slept.append)
    shared = page._Shared(application)
    for _ in range(2):
        assert shared({}, lambda *_: None) == [b"here"]
    assert slept == [0.0, pytest.approx(100.5 + 9 * 0.5 - 101.0)]
