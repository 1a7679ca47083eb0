"""What a server tells of itself: its page of metrics, and what Linux says of its memory."""

import os
from pathlib import Path
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

PAGE = os.sysconf("SC_PAGE_SIZE")


def gauges(port: int) -> dict[str, float]:
    """The page at a port; of several series of one name, the highest."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        text = page.read().decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = max(sample.value, found.get(sample.name, sample.value))
    return found


def most_memory(pid: int) -> float:
    """What a process has had in memory at most, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def memory(pid: int) -> int:
    """What a process has in memory now, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
