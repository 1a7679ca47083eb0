"""How busy the processors are: with this process, with another, with everything else. Linux only."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
# The columns of /proc/stat in which a processor does nothing: idle, iowait.
IDLE = (3, 4)


@dataclass(frozen=True)
class Reading:
    """Seconds since some time in the past: of the clock, of this process, of the other one, of all that is at work."""

    clock: float
    own: float
    other: float
    all: float


@dataclass(frozen=True)
class Usage:
    """Processors in use between two readings: 1.0 is one core, all the time."""

    own: float
    other: float
    rest: float


def reading(pid: int) -> Reading:
    """Read all clocks now; `pid` is the other process, or this one."""
    return Reading(time.perf_counter(), time.process_time(), process_seconds(pid), busy_seconds())


def used(before: Reading, after: Reading) -> Usage:
    elapsed = after.clock - before.clock
    own, other = (after.own - before.own) / elapsed, (after.other - before.other) / elapsed
    return Usage(own, other, rest=max(0.0, (after.all - before.all) / elapsed - own - other))


def process_seconds(pid: int) -> float:
    """Processor time of a process: Linux makes the number of its clock from the pid (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | 2)


def busy_seconds() -> float:
    """Time that all processors together have spent at work, or were taken away by a host."""
    columns = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    return sum(int(ticks) for place, ticks in enumerate(columns) if place not in IDLE) / TICKS
