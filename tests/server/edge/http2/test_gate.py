"""Calls that come or go by the thousand leave others their turns."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING
from unittest.mock import Mock

import hpack
import pytest

from server.edge.http2 import connection, server
from server.edge.http2.blocks import Block, Blocks
from server.edge.http2.connection import Connection
from server.edge.http2.gate import MOST, Gate
from tests.server.edge.http2.test_ends import PING
from tests.server.edge.http2.test_server import raw, request, serving
from tidegate.http2 import frames
from tidegate.http2.frames import Code

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.edge.http2.server import Http2Server

CROWD, FEW = 100, 8


def test_one_that_fails_keeps_none_waiting() -> None:
    later: deque[Callable[[], object]] = deque()
    gate, passed = Gate(later.append), list[int]()

    def passing(number: int) -> None:
        if number == MOST:
            raise RuntimeError("broken")
        passed.append(number)

    for at in range(MOST + 3):
        gate.take(partial(passing, at))
    with pytest.raises(RuntimeError, match="broken"):
        later.popleft()()
    while later:
        later.popleft()()
    assert passed == [*range(MOST), MOST + 1, MOST + 2]


def test_of_connections_that_are_written_together_one_that_fails_is_lost_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    written = [Mock(), Mock(flush=Mock(side_effect=RuntimeError("broken"))), Mock()]
    server._flush_all(written)
    assert [each.flush.call_count for each in written] == [1, 1, 1]
    assert [each.abort.call_count for each in written] == [0, 1, 0]
    assert "a connection failed" in caplog.text


def test_a_few_pass_in_each_turn_in_their_order_and_one_that_comes_alone_at_once() -> None:
    later: deque[Callable[[], object]] = deque()
    gate, passed = Gate(later.append), list[int]()

    def passing(number: int) -> bool:
        passed.append(number)
        return True

    for at in range(3 * MOST + 1):
        gate.take(partial(passing, at))
    assert len(passed) == MOST
    turns = 0
    while later:
        before = len(passed)
        later.popleft()()
        turns += 1
        assert len(passed) - before <= MOST
    assert passed == list(range(3 * MOST + 1))
    assert turns == 4
    gate.take(partial(passing, -1))
    assert passed[-1] == -1
    for _ in range(3 * MOST):  # who has left takes nobody's turn
        gate.take(lambda: False)
    gate.take(partial(passing, -2))
    assert passed[-1] == -2
    assert len(later) == 1


async def test_calls_that_begin_and_end_together_do_so_a_few_in_each_turn_of_the_loop() -> None:
    async with serving() as (address, service, server), raw(address) as (_, writer):
        looking = asyncio.create_task(most_at_once(lambda: sum(call.task is not None for call in server._calls)))
        writer.write(b"".join(request(b"/t.T/Wait", number=2 * n + 1) for n in range(CROWD)))
        assert await looking <= FEW
        looking = asyncio.create_task(most_at_once(lambda: service.ended.count("cancelled")))
        writer.write(b"".join(frames.reset(2 * n + 1, Code.CANCEL) for n in range(CROWD)))
        assert await looking <= FEW


async def test_connections_that_are_lost_together_end_their_calls_one_in_each_turn_of_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended, end_calls = 0, Connection.end_calls

    def counted(lost: Connection) -> None:
        nonlocal ended
        ended += 1
        end_calls(lost)

    monkeypatch.setattr(Connection, "end_calls", counted)
    async with serving() as (_, service, server):
        lost = [Connection(server) for _ in range(CROWD)]
        for one in lost:
            one.connection_made(Mock(get_write_buffer_size=lambda: 0, get_extra_info=lambda _: ("10.0.0.1", 1)))
            one.data_received(frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0) + request(b"/t.T/Wait"))
        await most_at_once(lambda: sum(call.task is not None for call in server._calls))
        for one in lost:
            one.connection_lost(None)
        assert ended == 1
        assert await most_at_once(lambda: ended) == 1
        await most_at_once(lambda: service.ended.count("wait"))
        assert not server._calls


class Slow:
    """A clock that only decoding moves, and how many blocks of fields were decoded in each turn of a loop."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now, self.turns = 0.0, [0]
        whole = Blocks._whole

        def slowly(blocks: Blocks) -> Block:
            self.now += 0.0003
            self.turns[-1] += 1
            return whole(blocks)

        patch.setattr(connection, "perf_counter", lambda: self.now)
        patch.setattr(Blocks, "_whole", slowly)
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self.turns.append(0)
        asyncio.get_running_loop().call_soon(self._next)


def client(server: Http2Server) -> Connection:
    """Of a socket that there is not."""
    made = Connection(server)
    made.connection_made(Mock(get_write_buffer_size=lambda: 0, get_extra_info=lambda _: ("10.0.0.1", 1)))
    made.data_received(frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0))
    return made


async def test_a_connection_that_is_lost_ends_its_calls_so_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_ENDS", FEW)
    async with serving() as (_, _service, server):
        lost = client(server)
        lost.data_received(b"".join(request(b"/t.T/Wait", number=2 * n + 1) for n in range(3 * FEW)))
        calls = lost._codec.streams
        while len(calls) < 3 * FEW:  # noqa: ASYNC110 - turns are what counts
            await asyncio.sleep(0)
        lost.connection_lost(None)
        for left in (2 * FEW, FEW, 0):
            assert len(calls) == left
            await asyncio.sleep(0)


async def test_of_connections_that_begin_together_some_are_read_in_a_later_turn_and_who_has_a_call_goes_before_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as (_, _service, server):
        slow, early = Slow(monkeypatch), client(server)
        early.data_received(request(b"/t.T/Wait"))
        crowd = [client(server) for _ in range(40)]
        for one in crowd:
            one.data_received(request(b"/t.T/Wait"))
            server.loop.call_later(60, int).cancel()  # the time of uvloop moves on then, and the turn does not end
        assert 0 < slow.turns[-1] <= 4
        early.data_received(PING)
        assert not early._waits_for_turn
        while sum(slow.turns) < 40:
            await asyncio.sleep(0)
            early.data_received(PING)
            assert not early._waits_for_turn
        assert max(slow.turns) <= 4


async def test_calls_that_come_in_one_read_are_begun_a_few_at_a_time_between_looks_at_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as (_, _service, server):
        slow, one = Slow(monkeypatch), client(server)
        one.data_received(b"".join(request(b"/t.T/Wait", number=2 * n + 1) for n in range(CROWD)))
        assert slow.turns[-1] == 4
        while sum(slow.turns) < CROWD:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0)
        assert max(slow.turns) == 4
        large = hpack.Encoder().encode([("x", "v~" * 5_000)])
        assert len(large) > 2_048
        assert one._codec.receive(2 * frames.frame(1, 4, 2 * CROWD + 1, large), 4) > 0


async def test_a_connection_that_waits_for_its_turn_is_not_read_beyond_what_may_wait() -> None:
    async with serving() as (_, _service, server):
        one = client(server)
        one.data_received(request(b"/t.T/Wait"))
        server.others.left = 0.0
        for _ in range(3):
            one.data_received(200 * frames.frame(frames.PING, 0, 0, bytes(8)) * 10)
        assert one._transport.pause_reading.call_count == 1  # type: ignore[attr-defined]
        while one._unread:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0)
        assert one._transport.resume_reading.call_count == 1  # type: ignore[attr-defined]


async def most_at_once(count: Callable[[], int]) -> int:
    """By how much a count that ends at `CROWD` grows in one turn of the loop, at most."""
    most = before = 0
    while before < CROWD:
        now = count()
        most, before = max(most, now - before), now
        await asyncio.sleep(0)
    return most
