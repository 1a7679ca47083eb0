"""The timers of very many connections, which are one timer of the event loop. Its time stands still here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.edge.http2.timers import Timers
from tests.simulation.loop import StandingLoop

if TYPE_CHECKING:
    import asyncio

CROWD = 200


class Looked:
    """Notes when it was looked at."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.times: list[float] = []
        self._loop = loop

    def look(self) -> None:
        self.times.append(self._loop.time())


def test_each_connection_is_looked_at_within_a_tick_of_its_time_unless_that_was_cancelled() -> None:
    loop = StandingLoop()
    timers, began = Timers(loop, 0.5), loop.time()
    waiting = {seconds: Looked(loop) for seconds in (0.2, 1.0, 3.3, 7.0)}
    numbers = {seconds: timers.after(seconds, one) for seconds, one in waiting.items()}
    timers.cancel(numbers[3.3], waiting[3.3])
    for _ in range(100):
        loop.now += 0.1
        loop.tick()
    for seconds, one in waiting.items():
        assert len(one.times) == (seconds != 3.3)
        assert all(seconds <= time - began <= seconds + 1.2 for time in one.times)
    loop.close()


def test_of_a_crowd_that_is_due_at_once_a_turn_of_the_loop_looks_at_some() -> None:
    loop = StandingLoop()
    timers = Timers(loop, 0.5)
    crowd = [Looked(loop) for _ in range(CROWD)]
    numbers = [timers.after(1.0, one) for one in crowd]
    loop.now += 2.0
    looked = [0]
    while looked[-1] < CROWD - 1:
        loop.call_soon(loop.stop)
        loop.run_forever()  # for one turn
        looked.append(sum(len(one.times) for one in crowd))
        assert looked[-1] - looked[-2] <= CROWD // 2
        if looked[-2] == 0 < looked[-1]:  # the connection of one is lost before its turn comes
            lost = next(at for at, one in enumerate(crowd) if not one.times)
            timers.cancel(numbers[lost], crowd[lost])
    loop.now += 2.0
    loop.tick(CROWD)
    assert not crowd[lost].times
    loop.close()


class Failing(Looked):
    """Fails when it is looked at."""

    def look(self) -> None:
        super().look()
        raise RuntimeError("it fails")


def test_a_connection_that_fails_when_it_is_looked_at_keeps_no_other_from_its_turn() -> None:
    loop = StandingLoop()
    timers = Timers(loop, 0.5)
    one, other = Failing(loop), Looked(loop)
    timers.after(1.0, one)
    timers.after(2.0, other)
    for _ in range(40):
        loop.now += 0.1
        loop.tick()
    assert (len(one.times), len(other.times)) == (1, 1)
    loop.close()
