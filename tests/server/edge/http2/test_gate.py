"""Calls that come or go by the thousand leave others their turns."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING
from unittest.mock import Mock

from server.edge.http2 import connection, frames
from server.edge.http2.codec import Codec
from server.edge.http2.connection import Connection
from server.edge.http2.frames import Code
from server.edge.http2.gate import MOST, Gate
from tests.server.edge.http2.test_server import raw, read_until, request, serving

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

CROWD, FEW = 100, 8


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
        assert ended == 0
        assert await most_at_once(lambda: ended) == 1
        await most_at_once(lambda: service.ended.count("wait"))
        assert not server._calls


class Standing:
    """A loop whose time stands still during a turn, as that of uvloop does."""

    def __init__(self) -> None:
        self.turn = 1.0
        self.loop = asyncio.get_running_loop()
        self.call_soon, self.call_later, self.create_task = (
            self.loop.call_soon,
            self.loop.call_later,
            self.loop.create_task,
        )
        self.call_soon(self._next)

    def _next(self) -> None:
        self.turn += 1
        self.call_soon(self._next)

    def time(self) -> float:
        return self.turn


async def test_of_connections_that_send_together_some_are_read_in_a_later_turn_and_who_comes_then_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, turns, receive = 0.0, list[float](), Codec.receive
    hello = frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0)

    def slowly(codec: Codec, data: bytes) -> None:
        nonlocal now
        now += 0.001
        turns.append(loop.turn)
        receive(codec, data)

    monkeypatch.setattr(connection, "perf_counter", lambda: now)
    monkeypatch.setattr(Codec, "receive", slowly)
    async with serving() as (_, _service, server):
        loop = Standing()
        server.loop = loop  # type: ignore[assignment]
        crowd = [Connection(server) for _ in range(20)]
        for one in crowd:
            one.connection_made(Mock(get_write_buffer_size=lambda: 0, get_extra_info=lambda _: ("10.0.0.1", 1)))
            one.data_received(hello)
        assert len(turns) == 4
        await asyncio.sleep(0)
        loop.turn += 0.5  # uvloop reads after the rest of a turn, at a time of its own
        newcomer = Connection(server)
        newcomer.connection_made(Mock(get_write_buffer_size=lambda: 0, get_extra_info=lambda _: ("10.0.0.1", 2)))
        newcomer.data_received(hello)
        assert newcomer._codec.ready
        assert len(turns) < 15
        while len(turns) < 21:  # noqa: ASYNC110 - turns are what counts
            await asyncio.sleep(0)
        assert max(turns.count(turn) for turn in set(turns)) <= 5
        server.loop = loop.loop


async def test_what_costs_much_is_taken_in_small_pieces_however_much_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    now, sizes, receive = 0.0, list[int](), Codec.receive

    def slowly(codec: Codec, data: bytes) -> None:
        nonlocal now
        now += 0.001
        sizes.append(len(data))
        receive(codec, data)

    monkeypatch.setattr(connection, "perf_counter", lambda: now)
    monkeypatch.setattr(Codec, "receive", slowly)
    async with serving() as (address, _, _server), raw(address) as (reader, writer):
        flood = (request(b"/t.T/Wait", number=n) + frames.reset(n, Code.CANCEL) for n in range(1, 2 * CROWD, 2))
        writer.write(b"".join(flood) + frames.frame(frames.PING, 0, 0, b"in order"))
        await read_until(reader, b"in order")
    assert sizes[-2] == 256
    assert sum(size > 256 for size in sizes) <= 3


async def most_at_once(count: Callable[[], int]) -> int:
    """By how much a count that ends at `CROWD` grows in one turn of the loop, at most."""
    most = before = 0
    while before < CROWD:
        now = count()
        most, before = max(most, now - before), now
        await asyncio.sleep(0)
    return most
