"""An event loop whose time stands still until it is told to pass: what waits for a minute waits no time at all."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


T = TypeVar("T")


class NoSockets(selectors.SelectSelector):
    """Nothing arrives: the loop is never asked to wait, and what is simulated has no socket."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:  # noqa: ARG002 - as it is called
        return []


class StandingLoop(asyncio.SelectorEventLoop):
    """`now` is its time in seconds. Knows the insides of asyncio's loop: what is ready, and which timers there are."""

    def __init__(self) -> None:
        super().__init__(NoSockets())
        self.now = 1_000.0
        self.faults: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.faults.append(context))

    def time(self) -> float:
        """What timers go by."""
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._next_timer() > self.now:  # type: ignore[attr-defined]
            raise AssertionError("everybody waits for time to pass")
        super()._run_once()  # type: ignore[misc]

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """To its end, which needs no time."""
        return self.run_until_complete(call)

    def tick(self, times: int = 1) -> None:
        """A few turns of the loop, in the middle of whatever goes on."""

        async def turns() -> None:
            for _ in range(times):
                await asyncio.sleep(0)

        self.run(turns())

    def quiet(self) -> None:
        """Until nobody has anything to do but wait."""
        if self._ready or self._next_timer() <= self.now:  # type: ignore[attr-defined]
            self.call_soon(self._stop_when_quiet)
            self.run_forever()

    def _stop_when_quiet(self) -> None:
        if self._ready:  # type: ignore[attr-defined]
            self.call_soon(self._stop_when_quiet)
        else:
            self.stop()

    def _write_to_self(self) -> None:
        """Wakes nobody: it never sleeps."""

    def advance(self, seconds: float, between: Callable[[], None]) -> None:
        """Lets time pass, from one timer to the next; `between` does what is to be done at each."""
        end = self.now + seconds
        between()
        while (due := self._next_timer()) <= end:
            self.now = max(self.now, due)
            between()
        self.now = end
        between()

    def _next_timer(self) -> float:
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return min((timer.when() for timer in timers if not timer.cancelled()), default=float("inf"))
