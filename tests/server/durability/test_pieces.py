"""Large work of the event loop is done in pieces, between which other work has its turn."""

from __future__ import annotations

import asyncio

import pytest

from server.durability.pieces import each


@pytest.mark.parametrize(("seconds", "turns"), [(0.0, 0), (0.00011, 33), (0.01, 100)])
async def test_calls_that_take_little_time_share_a_turn_of_the_event_loop_and_long_ones_have_one_each(
    seconds: float, turns: int
) -> None:
    loop, done, had, now = asyncio.get_running_loop(), list[int](), list[int](), 0.0

    def call(number: int) -> None:
        nonlocal now
        now += seconds
        done.append(number)

    def turn() -> None:
        had.append(len(done))
        if len(done) < 100:
            loop.call_soon(turn)

    loop.call_soon(turn)
    await each(range(100), call, lambda: now)
    assert done == [*range(100)]
    assert len(had) == pytest.approx(turns, abs=1)
