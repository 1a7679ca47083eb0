"""How calls and connections end, and that nothing of them is kept then."""

from __future__ import annotations

import asyncio
import gc
import gzip
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc

from server.edge.http2.call import Call
from server.edge.http2.codec import Codec
from server.edge.http2.compression import Unreadable
from server.edge.http2.connection import Connection
from server.edge.http2.large import LargeMessage
from server.edge.http2.stream import CallStream
from tests.server.edge.http2.test_server import QUICK, connected, raw, read_until, request, serving
from tests.server.edge.http2.wired import message
from tidegate.http2 import frames
from tidegate.http2.frames import Code

if TYPE_CHECKING:
    import pytest

PING = frames.frame(frames.PING, 0, 0, b"in order")


async def test_a_call_that_is_reset_before_its_handler_runs_is_forgotten() -> None:
    async with serving() as (address, service, server), raw(address) as (reader, writer):
        writer.write(request(b"/t.T/Wait") + frames.reset(1, Code.CANCEL) + PING)
        await read_until(reader, b"in order")
        assert not server._calls
        assert service.ended == []


async def test_a_callback_that_fails_keeps_no_call_and_breaks_no_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with connected() as (channel, service, server):
        service._end = lambda _: 1 / 0  # type: ignore[assignment,method-assign,return-value]
        call = channel.stream_stream("/t.T/Echo")()
        await call.write(b"x")
        await service.begun.wait()
        call.cancel()
        assert await channel.unary_unary("/t.T/Say")(b"y")
        await asyncio.wait_for(server._until_none(server._calls, 120), 120)
        assert not server._calls
        assert "what follows a call failed" in caplog.text


async def test_a_client_that_reads_nothing_any_more_is_dropped_though_much_waits_for_it() -> None:
    async with serving(**QUICK) as (address, service, _), raw(address) as (_reader, writer):
        _reader._limit = 1  # type: ignore[attr-defined] # so that it reads next to nothing
        window = frames.settings({frames.INITIAL_WINDOW: 2**30}) + frames.credit(0, 2**30)
        writer.write(window + request(b"/t.T/Much"))
        await service.over.wait()
        assert service.ended == ["much"]


async def test_a_server_that_stops_waits_until_answers_were_read_whose_handler_has_ended() -> None:
    async with connected(ping_seconds=0.5) as (channel, service, server):
        call: Any = channel.stream_stream("/t.T/All")()
        await call.write(b"x" * 1_000)
        await service.begun.wait()
        stopping = asyncio.create_task(server.stop(120))
        assert [len(m) async for m in call] == [300_000] * 3
        assert await call.code() is grpc.StatusCode.OK
        await stopping


async def test_a_connection_that_comes_while_the_server_stops_is_closed() -> None:
    async with serving() as (address, _, server), raw(address) as (reader, writer):
        writer.write(request(b"/t.T/Wait") + PING)
        await read_until(reader, b"in order")
        server._stops = True
        async with raw(address) as (further, _writer):
            assert await further.read() == b""


async def test_a_call_that_comes_with_the_end_of_its_server_is_refused_by_itself_and_may_go_elsewhere() -> None:
    async with serving() as (address, service, server), raw(address) as (reader, writer):
        writer.write(PING)
        await read_until(reader, b"in order")
        stopping = asyncio.create_task(server.stop(120))
        await read_until(reader, b"the server is stopping")
        writer.write(request(b"/t.T/Wait"))
        await read_until(reader, frames.reset(1, Code.REFUSED_STREAM))
        writer.close()
        await stopping
        assert not service.begun.is_set()


async def test_a_call_that_comes_when_its_idle_connection_is_closed_is_refused_by_itself() -> None:
    idle = {"silent_seconds": 2, "keepalive_seconds": 0.05, "idle_seconds": 0.1}
    async with serving(**idle) as (address, _, server), raw(address) as (reader, writer):
        await read_until(reader, b"a connection without calls")
        writer.write(request(b"/t.T/Wait"))
        await read_until(reader, frames.reset(1, Code.REFUSED_STREAM))
        assert len(server._connections) == 1


async def test_a_client_that_does_not_close_the_connection_of_a_stopping_server_is_left_in_time() -> None:
    async with serving(**QUICK) as (address, _, server), raw(address) as (reader, writer):
        writer.write(PING)
        await read_until(reader, b"in order")
        await asyncio.wait_for(server.stop(120), 60)
        assert b"the server is stopping" in await reader.read()


async def test_clients_that_a_stopping_server_has_not_accepted_yet_are_told_that_it_stops() -> None:
    async with serving() as (address, _, server):
        host, port = address.split(":")
        waiting = [socket.create_connection((host, int(port))) for _ in range(9)]  # more than a turn accepts
        await server.stop(0)
        for one in waiting:
            with one, one.makefile("rb") as said:
                assert b"the server is stopping" in said.read()


async def test_the_longest_deadline_is_taken() -> None:
    async with serving() as (address, _, _server), raw(address) as (reader, writer):
        fields = b"\x83\x86\0\x05:path\x08/t.T/Say\0\x0ccontent-type\x10application/grpc\0\x0cgrpc-timeout\x0999999999H"
        writer.write(frames.frame(frames.HEADERS, 4, 1, fields) + frames.frame(0, 1, 1, message(b"x")))
        await read_until(reader, b"grpc-status\x010")


async def test_calls_and_connections_that_have_ended_leave_without_the_collector_of_cycles() -> None:
    async with serving() as (address, service, server):
        gc.collect()
        gc.disable()
        try:
            async with raw(address) as (reader, writer):
                ends = [frames.reset(1, Code.CANCEL), b"", frames.frame(0, 1, 5, message(b"x"))]
                kinds = zip((1, 3, 5), (b"/t.T/Wait", b"/t.T/Wait", b"/t.T/Say"), ends, strict=True)
                writer.write(b"".join(request(path, number=n) + end for n, path, end in kinds))
                await read_until(reader, b"grpc-status\x010")
                bomb = gzip.compress(bytes(10_000_000))
                compressed = request(b"/t.T/Say", b"gzip", 7) + frames.frame(0, 1, 7, b"\1" + message(bomb)[1:])
                writer.write(compressed)
                await read_until(reader, b"grpc-status\x018")
                begins = b"\0" + (1_000_000).to_bytes(4) + b"the rest never comes"
                writer.write(request(b"/t.T/Echo", number=9) + frames.frame(0, 0, 9, begins))
                await read_until(reader, b"\x08\0" + (9).to_bytes(4))  # there is room for it
                writer.transport.abort()
                while server._connections or not {"wait", "echo"} <= set(service.ended) or server._calls:
                    await server._fewer.wait()
                    server._fewer.clear()
            await asyncio.get_running_loop().shutdown_default_executor()  # a thread may still hold what it returned
            kinds = Call, CallStream, Codec, Connection, LargeMessage, Unreadable
            kept = [each for each in gc.get_objects() if type(each) in kinds]
            assert kept == []
        finally:
            gc.enable()


async def test_of_connections_that_end_at_once_one_is_closed_in_each_turn_of_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turn, turns, lost = 0, list[int](), Connection.connection_lost
    loop = asyncio.get_running_loop()

    def count() -> None:
        nonlocal turn
        turn += 1
        if len(turns) < 12:
            loop.call_soon(count)

    def connection_lost(connection: Connection, error: Exception | None) -> None:
        turns.append(turn)
        lost(connection, error)

    monkeypatch.setattr(Connection, "connection_lost", connection_lost)
    async with serving() as (address, _, server), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw(address)) for _ in range(12)]
        for reader, writer in clients:
            writer.write(PING)
            await read_until(reader, b"in order")
        count()
        for _, writer in clients:
            writer.close()
        await asyncio.wait_for(server._until_none(server._connections, 120), 120)
    assert len(set(turns)) == 12
