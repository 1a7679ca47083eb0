"""What a server holds, at one moment: from its page of metrics, and from the kernel."""

from __future__ import annotations

import asyncio
import urllib.request
from dataclasses import astuple, dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Held:
    """Counts, and the memory in MiB."""

    slots: int
    streams: int
    tasks: int
    descriptors: int
    memory: float

    def __str__(self) -> str:
        return (
            f"{self.slots} slots, {self.streams} streams, {self.tasks} tasks, "
            f"{self.descriptors} descriptors, {self.memory:.0f} MiB"
        )

    @property
    def counts(self) -> tuple[int, ...]:
        """All but the memory."""
        return astuple(self)[:-1]


async def held(metrics: int) -> Held:
    """Of the server with this port of metrics."""
    return await asyncio.to_thread(_held, metrics)


def _held(metrics: int) -> Held:
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=20) as page:
        families = text_string_to_metric_families(page.read().decode())
    sums: dict[str, float] = {}
    for sample in (sample for family in families for sample in family.samples):
        sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return Held(
        int(sums["tidegate_sequences_open"] - sums["tidegate_sequences_asleep"]),
        int(sums["tidegate_streams_open"]),
        int(sums["tidegate_tasks"]),
        int(sums["process_open_fds"]),
        sums["process_resident_memory_bytes"] / 2**20,
    )
