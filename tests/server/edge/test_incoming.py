"""Messages of calls are taken in turn: so many of one address at a time, and no more than so many of all."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import grpc
import pytest

from server.caller import Caller
from server.edge.incoming import Incoming
from server.errors import Refusal, Silent
from server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ANN, BOB = Caller("ipv4:10.0.0.1"), Caller("ipv4:10.0.0.2")
LARGE, SMALL = bytes(10**6), b"small"


class Calls:
    """Calls whose messages are asked for, and come when the test says so."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self.asked: list[asyncio.Future[object]] = []
        self.held = AsyncExitStack()

    async def call(
        self, caller: Caller, read: Callable[[], Awaitable[object]] | None = None, call: object = None
    ) -> bytes:
        """The message, which counts until the end of the test."""
        return await self.held.enter_async_context(self._incoming.message(caller, read or self._read, call))

    def begin(self, caller: Caller) -> asyncio.Task[bytes]:
        return asyncio.create_task(self.call(caller))

    def _read(self) -> asyncio.Future[object]:
        self.asked.append(asyncio.get_running_loop().create_future())
        return self.asked[-1]


@pytest.fixture
def calls() -> Calls:
    return Calls(Incoming(Settings(address_mib=32, max_message_mib=4, silent_seconds=0.05)))  # two of an address


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_large_messages_of_an_address_are_asked_for_than_it_may_have(calls: Calls) -> None:
    calls._incoming._patience = 60
    waiting = [calls.begin(ANN) for _ in range(3)]
    await turn()
    assert len(calls.asked) == 2
    calls.asked[0].set_result(LARGE)
    await turn()
    assert len(calls.asked) == 2, "a message counts until it was worked off"
    await calls.held.aclose()
    await turn()
    assert len(calls.asked) == 3
    calls.begin(BOB)
    await turn()
    assert len(calls.asked) == 4
    assert await waiting[0] == LARGE


async def test_a_small_message_takes_nobodys_place(calls: Calls) -> None:
    waiting = [calls.begin(ANN) for _ in range(5)]
    for at in range(5):
        await turn()
        calls.asked[at].set_result(SMALL)
    assert await asyncio.gather(*waiting) == [SMALL] * 5


async def test_all_addresses_together_have_so_many_at_a_time(calls: Calls) -> None:
    calls._incoming._patience = 60
    waiting = [calls.begin(Caller(f"ipv4:10.0.1.{at}")) for at in range(100)]
    await turn()
    assert len(calls.asked) == 32
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    calls.begin(ANN)
    await turn()
    assert len(calls.asked) == 33, "who leaves gives its place back"


async def test_a_message_that_does_not_come_ends_its_call_and_the_next_has_its_place(calls: Calls) -> None:
    for _ in range(3):
        with pytest.raises(Silent, match="did not come within"):
            await calls.call(ANN)
    with pytest.raises(Refusal, match="without a message"):
        await calls.call(ANN, _nothing)


class Quiet:
    """Calls of which it is seen what has come."""

    def __init__(self, large: bool = False) -> None:
        self.small = False
        self._large = large
        self._came = asyncio.Event()

    async def begun(self) -> None:
        if not self._large:
            await self._came.wait()


async def test_a_small_message_waits_for_none_that_do_not_come_and_not_for_large_ones_of_its_address(
    calls: Calls,
) -> None:
    calls._incoming._patience = 60
    silent = [Quiet() for _ in range(5)] + [Quiet(large=True) for _ in range(3)]
    waiting = [asyncio.create_task(calls.call(ANN, call=call)) for call in silent]
    await turn()
    assert len(calls.asked) == 2  # the large ones that have a place
    here = Quiet(large=True)
    here.small = True
    small = asyncio.create_task(calls.call(ANN, call=here))
    await turn()
    calls.asked[2].set_result(SMALL)
    assert await small == SMALL
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def _nothing() -> object:
    return grpc.aio.EOF
