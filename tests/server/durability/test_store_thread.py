"""How long those wait who wait for the store."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from server.durability.store_thread import StoreThread
from server.errors import StoreFailed, StoreSilent
from server.stores.memory import MemoryStore
from server.stores.terms import Terms
from tests.running_server import PATIENCE, ROOT
from tests.server.world import Desk
from tests.simulation.loop import StandingLoop

if TYPE_CHECKING:
    from collections.abc import Iterator

HANGING = """
import asyncio, threading
from server.durability.store_thread import StoreThread

async def main():
    begun = threading.Event()
    store_thread = StoreThread(lambda: begun.set() or threading.Event().wait(), 5.0)
    asking = asyncio.create_task(store_thread.start())
    await asyncio.to_thread(begun.wait)
    await store_thread.stop(0.01)
    asking.cancel()

asyncio.run(main())
"""


@pytest.fixture
def loop() -> Iterator[StandingLoop]:
    loop = StandingLoop()
    yield loop
    loop.close()


def make(desk: Desk) -> StoreThread:
    store_thread = StoreThread(lambda: MemoryStore(Terms()), patience=5.0)
    store_thread._thread.shutdown()
    store_thread._thread = desk
    return store_thread


def test_all_that_is_asked_for_somebody_who_waits_takes_together_no_longer_than_one_call_may(
    loop: StandingLoop,
) -> None:
    desk = Desk()
    store_thread = make(desk)

    async def errand() -> None:
        for _ in range(3):
            await store_thread.ask_soon(lambda store: store.usage())

    def slow() -> None:
        loop.quiet()

    asking = loop.create_task(store_thread.in_time(errand()))
    loop.advance(4.0, slow)
    desk.work()
    loop.advance(0.9, slow)
    assert not asking.done()
    loop.advance(0.2, slow)
    assert isinstance(asking.exception(), StoreSilent)
    again = loop.create_task(
        store_thread.ask_soon(lambda store: store.usage())
    )  # somebody else has patience of its own
    loop.advance(4.9, slow)
    desk.calls.popleft()  # which nobody waits for
    desk.work()
    loop.quiet()
    assert again.result().sequences == 0


def test_what_is_asked_for_a_crowd_has_time_in_proportion(loop: StandingLoop) -> None:
    desk = Desk()
    store_thread = make(desk)

    async def errand() -> None:
        await store_thread.ask_soon(lambda store: store.usage())

    asking = loop.create_task(store_thread.in_time(errand(), 50_000))
    loop.advance(54.0, loop.quiet)
    assert not asking.done()
    loop.advance(2.0, loop.quiet)
    assert isinstance(asking.exception(), StoreSilent)


def test_what_comes_when_nobody_waits_any_more_is_not_begun(loop: StandingLoop) -> None:
    desk = Desk()
    store_thread = make(desk)
    begun: list[int] = []

    async def errand() -> None:
        with pytest.raises(StoreSilent):
            await store_thread.soon(asyncio.Event().wait)
        await store_thread.ask_soon(lambda _: begun.append(1))

    asking = loop.create_task(store_thread.in_time(errand()))
    loop.advance(5.0, loop.quiet)
    assert isinstance(asking.exception(), StoreSilent)
    assert not desk.calls


async def test_a_call_that_fails_is_heard_of_by_who_asked_and_the_next_is_carried_out() -> None:
    store_thread = StoreThread(lambda: MemoryStore(Terms()), patience=5.0)

    def fail(_: object) -> None:
        raise StoreFailed("its disk is full")

    with pytest.raises(StoreFailed, match="full"):
        await store_thread.ask(fail)
    with pytest.raises(StoreSilent, match="full"):
        await store_thread.ask_soon(fail)
    assert (store_thread.errors, store_thread.fault) == (2, "its disk is full")
    assert (await store_thread.ask(lambda store: store.usage())).sequences == 0
    await store_thread.stop()


@pytest.mark.parametrize(
    ("calls", "well"),
    [
        ({0: "fails", 1: "works", 2: "fails", 3: "works", 4: "works", 5: "works", 6: "works"}, [6]),
        ({0: "fails", 9: "works", 10: "fails", 19: "works", 20: "fails"}, []),  # a busy machine asks it seldom
    ],
)
async def test_a_store_counts_as_well_again_once_it_has_worked_for_a_while_and_nothing_has_failed(
    calls: dict[int, str], well: list[int]
) -> None:
    store_thread = StoreThread(lambda: MemoryStore(Terms()), patience=5.0)
    answers = []

    def fail(_: object) -> None:
        raise StoreFailed("its disk is full")

    with patch("server.durability.store_thread.time") as time:
        for now, does in calls.items():
            time.monotonic.return_value = float(now)
            with suppress(StoreFailed):
                await store_thread.ask(fail if does == "fails" else lambda _: None)
            answers.append(store_thread.failing_since is None)
            assert store_thread.fault == ("" if answers[-1] else "its disk is full")
    assert [now for now, answer in zip(calls, answers, strict=True) if answer] == well
    await store_thread.stop()


def test_a_store_that_hangs_does_not_keep_the_process_from_its_end() -> None:
    ended = subprocess.run([sys.executable, "-c", HANGING], cwd=ROOT, timeout=PATIENCE, check=False)
    assert ended.returncode == 0
