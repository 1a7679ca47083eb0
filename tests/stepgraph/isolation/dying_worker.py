"""The worker of `stepgraph.isolation.sandbox` with jobs that end badly in every way that libraries in C++ know."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from dataclasses import dataclass

from stepgraph.isolation import worker


@dataclass(frozen=True)
class Said:
    text: str


def well(path: str) -> Said:
    return Said(path)


def segfault(path: str) -> None:  # noqa: ARG001
    ctypes.string_at(0)


def abort(path: str) -> None:  # noqa: ARG001
    sys.stderr.write("terminate called after throwing an instance of 'std::bad_alloc'\n")
    os.abort()


def killed(path: str) -> None:  # noqa: ARG001
    os.kill(os.getpid(), signal.SIGKILL)


def hang(path: str) -> None:  # noqa: ARG001
    """Never returns to Python, as a library in C++ would not."""
    ctypes.PyDLL(None).pause()


def grow(path: str) -> None:  # noqa: ARG001
    kept = []
    while True:
        kept.append(bytearray(2**24))


def chatter(path: str) -> Said:
    os.write(sys.stderr.fileno(), b"x" * 2**20)
    return Said(path)


def wrong(path: str) -> None:
    raise ValueError(f"a fault of ours at {path}")


def leave(path: str) -> None:  # noqa: ARG001
    os._exit(0)


def flood(path: str) -> Said:  # noqa: ARG001
    return Said("x" * 2**27)


if __name__ == "__main__":
    worker.JOBS = {
        job.__name__: job for job in (well, segfault, abort, killed, hang, grow, chatter, wrong, leave, flood)
    }
    worker.main()
