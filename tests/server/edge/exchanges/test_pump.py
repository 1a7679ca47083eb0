"""A call that coroutines read and write, as an exchange uses it."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from server.edge.exchanges.pump import Pump


class Context:
    """Gives two requests, and takes a message whenever the client reads."""

    def __init__(self) -> None:
        self.requests = [b"first", b"second"]
        self.written: list[bytes] = []
        self.reads = asyncio.Semaphore(0)

    async def read(self) -> object:
        return self.requests.pop(0) if self.requests else grpc.aio.EOF

    async def write(self, message: bytes) -> None:
        await self.reads.acquire()
        self.written.append(message)


class Listener:
    def __init__(self) -> None:
        self.messages, self.free = asyncio.Event(), asyncio.Event()
        self.came, self.writable = self.messages.set, self.free.set

    def fail(self, error: BaseException) -> None:
        raise error


@pytest.mark.parametrize("count", [1, 3])
async def test_messages_that_are_sent_in_a_row_leave_in_order_and_the_call_is_full_until_the_last_has_left(
    count: int,
) -> None:
    context, listener = Context(), Listener()
    pump = Pump(context)
    pump.begin(listener)
    sent = [bytes([n]) for n in range(count)]
    for _ in range(2):
        assert not pump.full
        for message in sent:
            pump.send(message)
        for _ in sent:
            assert pump.full
            assert not listener.free.is_set()
            context.reads.release()
            await asyncio.sleep(0)
        await asyncio.wait_for(listener.free.wait(), 60)
        assert context.written == sent
        listener.free.clear()
        context.written.clear()
    pump.end()


async def test_a_message_is_read_only_when_it_is_asked_for() -> None:
    context, listener = Context(), Listener()
    pump = Pump(context)
    pump.begin(listener)
    for expected in (b"first", b"second", grpc.aio.EOF):
        await asyncio.wait_for(listener.messages.wait(), 60)
        listener.messages.clear()
        left = len(context.requests)
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(context.requests) == left
        assert pump.asks
        assert pump.take() == expected
        assert pump.take() is None
    pump.end()
