"""What the machine, or the container, lets a process have."""

import os
from contextlib import suppress
from pathlib import Path

_LIMITS = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory(limits: tuple[Path, ...] = _LIMITS) -> int:
    """Bytes of memory, all of it; `limits` are the files in which a container says how much it has."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in limits:
        with suppress(OSError, ValueError):  # there is no such file, or no limit
            found.append(int(file.read_text(encoding="ascii")))
    return min(found)
