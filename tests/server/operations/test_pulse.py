import asyncio
from itertools import chain, repeat

from server.operations.pulse import Pulse


async def test_how_late_the_event_loop_is_is_counted_by_size() -> None:
    pulse, enough = Pulse(), asyncio.Event()
    times = chain([0.0, 0.05, 1.0, 3.5], repeat(10.0))  # each look begins at one and ends at the next

    def clock() -> float:
        if pulse.late.counts[-1] or sum(pulse.late.counts) >= 2:
            enough.set()
        return next(times)

    looking = asyncio.create_task(pulse.run(0.05, clock))
    await enough.wait()
    looking.cancel()
    assert pulse.late.counts[0] >= 1, "in time"
    assert pulse.late.counts[pulse.late.bounds.index(2.5)] == 1, "2.45 s late"
