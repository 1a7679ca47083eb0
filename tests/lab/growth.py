"""What a server takes of memory: how it grows from round to round of the same traffic, and its peak during one request.

    grown = await growth(server, round_, warm=2, rounds=5)      # MiB, of all five rounds together
    with Peak(server) as peak:
        await stream.ask(message)
    assert peak.mib < 64

Beside it: `tests/lab/stall.py` (what a message costs the event loop, and who is answered meanwhile) and
`tests/end_to_end/bystander.py` (another client, whose answers stay right).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.running_server import RunningServer


def mib(pid: int, field: str) -> float:
    """One of the fields of /proc/PID/status that are given in kB: VmRSS is resident now, VmHWM was so at most."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None, f"process {pid} has no {field}"
    return int(found.group(1)) / 1024


async def growth(server: RunningServer, round_: Callable[[], Awaitable[object]], *, warm: int, rounds: int) -> float:
    """By how many MiB the resident memory grows over `rounds` rounds, after `warm` rounds that fill the caches."""
    for _ in range(warm):
        await round_()
    before = server.resident
    for _ in range(rounds):
        await round_()
    return server.resident - before


class Peak:
    """By how many MiB the resident memory rose at most during the block, above what it was before."""

    def __init__(self, server: RunningServer) -> None:
        self._pid = server.process.pid
        self.mib = 0.0

    def __enter__(self) -> Self:
        Path(f"/proc/{self._pid}/clear_refs").write_text("5", encoding="ascii")  # VmHWM begins anew
        self._before = mib(self._pid, "VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.mib = mib(self._pid, "VmHWM") - self._before
