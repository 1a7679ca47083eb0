"""How late the event loop is: a timer that should fire every so often, and how long after that it did."""

import asyncio
from collections.abc import Callable

from server.runtime.counters import Histogram

_EVERY = 0.05  # seconds
LATE = (1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5, 10.0)


class Pulse:
    """`late`: how many seconds the loop was late, of all times that it was looked at."""

    def __init__(self) -> None:
        self.late = Histogram(LATE)

    async def run(self, every: float = _EVERY, clock: Callable[[], float] | None = None) -> None:
        """Looks until it is cancelled."""
        now = clock or asyncio.get_running_loop().time
        while True:
            due = now() + every
            await asyncio.sleep(every)
            self.late.add(max(0.0, now() - due))
