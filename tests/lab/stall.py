"""What a request costs the server's event loop, without a clock on the wall: the machine that runs a test may be busy.

    with Processor(server) as used:
        await stream.ask(message)
    assert used.loop < 0.2                                       # seconds of processor time of the thread with the loop

    async with bystander(server.address) as other:
        assert await answered_during(other, stream.ask(message)) > 5     # it was worked off in turns

Latencies in milliseconds, of a client in a process of its own: `python -m bench.stalls`. Memory: `tests/lab/growth.py`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tests.end_to_end.bystander import Bystander
    from tests.running_server import RunningServer


class Processor:
    """Seconds of processor time during the block: `loop` is the main thread's, `all` that of every thread together."""

    def __init__(self, server: RunningServer) -> None:
        self._pid = server.process.pid
        self.loop = self.all = 0.0

    def __enter__(self) -> Self:
        self._before = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        loop, all_ = self._read()
        self.loop, self.all = loop - self._before[0], all_ - self._before[1]

    def _read(self) -> tuple[float, float]:
        threads = dict(_seconds(self._pid))
        return threads[str(self._pid)], sum(threads.values())


def _seconds(pid: int) -> list[tuple[str, float]]:
    """Of each thread; the first field of schedstat is the nanoseconds that it ran."""
    found = []
    for path in Path(f"/proc/{pid}/task").iterdir():
        try:
            found.append((path.name, int((path / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9))
        except OSError:
            continue  # the thread has ended
    return found


async def answered_during(other: Bystander, work: Coroutine[object, object, object]) -> int:
    """How many answers the bystander got from the beginning of `work` to its end. Raises what `work` raises."""
    before = other.answered
    await asyncio.ensure_future(work)
    return other.answered - before
