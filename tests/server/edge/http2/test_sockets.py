"""Sockets that are read, written and accepted a bounded number in each turn of the event loop."""

from __future__ import annotations

import asyncio
import logging
import resource
import select
import socket
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, cast
from unittest.mock import Mock

import pytest

from server.edge.http2 import sockets
from server.edge.http2.sockets import Socket, Sockets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

CROWD, FEW = 60, 8
LITTLE, MUCH = 2**16, 4 * 2**20  # bytes: of a socket's buffer, and what is far beyond


class Told(asyncio.Protocol):
    """Notes what it is told of, and answers what comes."""

    def __init__(self, told: list[str], answer: Callable[[Socket, bytes], None]) -> None:
        self.told, self.answer = told, answer
        self.socket: Socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.socket = cast("Socket", transport)
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.told.append("data")
        self.answer(self.socket, data)

    def eof_received(self) -> None:
        self.told.append("end")
        self.socket.close()

    def connection_lost(self, _: Exception | None) -> None:
        self.told.append("lost")

    def pause_writing(self) -> None:
        self.told.append("full")
        self.socket.pause_reading()

    def resume_writing(self) -> None:
        self.told.append("writable")
        self.socket.resume_reading()


def much(client: Socket, _: bytes) -> None:
    client.write(bytes(MUCH))
    client.close()


@asynccontextmanager
async def listening(
    answer: Callable[[Socket, bytes], None] = Socket.write,
) -> AsyncIterator[tuple[tuple[str, int], list[str]]]:
    """The address of a listener, and what its connections were told."""
    told: list[str] = []
    watched = Sockets(asyncio.get_running_loop(), lambda _: None, lambda: None)
    door = socket.create_server(("127.0.0.1", 0), backlog=CROWD)
    for kind in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # of its connections
        door.setsockopt(socket.SOL_SOCKET, kind, LITTLE)
    watched.listen(door, lambda: Told(told, answer))
    try:
        yield door.getsockname(), told
        await until(told, "lost", told.count("made"))
    finally:
        watched.stop_listening()
        watched.close()


async def until(told: list[str], what: str, count: int) -> int:
    """Waits until something was told so often; how often it was in one turn of the loop, at most."""
    most = 0
    async with asyncio.timeout(30):
        while (before := told.count(what)) < count:
            await asyncio.sleep(0)
            most = max(most, told.count(what) - before)
    return most


async def connected(address: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that has room for little."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LITTLE)
    made.connect(address)
    return await asyncio.open_connection(sock=made)


async def test_of_a_crowd_that_connects_and_speaks_at_once_each_turn_of_the_loop_takes_a_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sockets, "_AT_ONCE", FEW)
    async with listening() as (address, told):
        with ExitStack() as stack:
            crowd = [stack.enter_context(socket.create_connection(address)) for _ in range(CROWD)]
            assert await until(told, "made", CROWD) <= FEW
            for one in crowd:
                one.send(b"x")
            assert await until(told, "data", CROWD) <= FEW
            assert {one.recv(2) for one in crowd} == {b"x"}
        assert await until(told, "lost", CROWD) <= FEW


async def test_what_a_client_does_not_read_waits_and_all_of_it_comes_once_it_reads() -> None:
    async with listening() as (address, told):
        reader, writer = await connected(address)
        writer.write(bytes(range(256)) * (MUCH // 256))
        await until(told, "full", 1)
        assert await reader.readexactly(MUCH) == bytes(range(256)) * (MUCH // 256)
        assert told.count("writable") == told.count("full")
        writer.close()


async def test_a_connection_that_is_closed_sends_what_waits_before_it_ends() -> None:
    async with listening(much) as (address, told):
        reader, writer = await connected(address)
        writer.write(b"x")
        await until(told, "full", 1)
        assert "lost" not in told
        assert await reader.read() == bytes(MUCH)
        writer.close()


async def test_a_client_that_is_gone_while_it_is_not_read_is_noticed() -> None:
    async with listening() as (address, told):
        with socket.create_connection(address) as gone:
            gone.setblocking(False)
            while "full" not in told:
                with suppress(BlockingIOError):
                    gone.send(bytes(2**16))
                await asyncio.sleep(0)
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await until(told, "lost", 1)


async def test_a_server_without_a_descriptor_left_ends_new_connections_says_why_and_serves_whom_it_has(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.get_running_loop()
    async with listening() as (address, told):
        with socket.socket() as late, socket.socket() as later, socket.create_connection(address) as early:
            late.setblocking(False)
            await until(told, "made", 1)
            with no_descriptors(), caplog.at_level(logging.WARNING):
                await loop.sock_connect(late, address)
                with suppress(ConnectionResetError):
                    assert await loop.sock_recv(late, 1) == b""
                early.send(b"x")
                await until(told, "data", 1)
                assert early.recv(2) == b"x"
            assert "connections are refused: Too many open files" in caplog.text
            later.connect(address)
            await until(told, "made", 2)


async def test_a_connection_whose_protocol_fails_is_lost_and_those_that_are_read_with_it_are_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def answered(to: Socket, data: bytes) -> None:
        if data == b"bad":
            raise RuntimeError("broken")
        to.write(data)

    async with listening(answered) as (address, told):
        with ExitStack() as stack:
            crowd = [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(CROWD)]
            await until(told, "made", CROWD)
            for at, one in enumerate(crowd):
                one.send(b"x" if at % 3 else b"bad")
            await until(told, "data", CROWD)
            assert [one.recv(2) for one in crowd] == [b"x" if at % 3 else b"" for at in range(CROWD)]
            assert caplog.text.count("a connection failed") == CROWD // 3
        await until(told, "lost", CROWD)


async def test_once_a_connection_has_failed_what_waits_for_the_end_of_reading_goes_on() -> None:
    ended: list[str] = []
    watched = Sockets(asyncio.get_running_loop(), lambda _: None, lambda: ended.append("end"))
    one, other = socket.socketpair()
    with one, other:
        watched.watch(one.fileno(), Mock(ready=Mock(side_effect=RuntimeError("broken"))), select.EPOLLIN)
        other.send(b"x")
        with pytest.raises(RuntimeError, match="broken"):
            watched._turn()
        watched.forget(one.fileno())
    watched.close()
    assert ended == ["end"]


@contextmanager
def no_descriptors() -> Iterator[None]:
    """None that this process could still open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        last = stack.enter_context(socket.socket()).fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 8, hard))
        try:
            with suppress(OSError):
                while True:
                    stack.enter_context(socket.socket())
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
