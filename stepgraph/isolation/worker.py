"""`python -m stepgraph.isolation.worker FD`: examines files for `sandbox`, which starts it and holds its socket.

Imports the libraries once, and then forks for every file, so that a crash or a limit ends one fork alone.
"""

import gc
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn

from stepgraph import loading
from stepgraph.errors import ModelRefused
from stepgraph.isolation.packing import packed
from stepgraph.isolation.sandbox import NO_MEMORY
from stepgraph.isolation.verdict import Refused, Verdict, taken_apart
from stepgraph.report import examination

_SAID = 65_536  # bytes that are kept of what a job writes to stderr


def load(path: str, max_batch: int, patience: float) -> Verdict:
    prints = None
    try:
        content = loading.read(Path(path))
        prints = content.prints
        return Verdict(prints, taken_apart(loading.prove(content, max_batch, patience)))
    except ModelRefused as refusal:
        return Verdict(prints, Refused(str(refusal), refusal.node))


JOBS: Mapping[str, Callable[..., object]] = {"load": load, "examine": examination.examine}


def main() -> None:
    ours = socket.socket(fileno=int(sys.argv[1]))
    gc.freeze()  # a fork need not copy what the collector would touch
    while True:
        line, descriptors, _, _ = socket.recv_fds(ours, _SAID, 1)
        while line and not line.endswith(b"\n"):
            more = ours.recv(_SAID)
            line = line + more if more else b""
        if not line:
            return
        ours.sendall(json.dumps(_done(json.loads(line), descriptors[0], ours)).encode() + b"\n")


def _done(request: dict[str, Any], reply: int, ours: socket.socket) -> dict[str, object]:
    """How a job ended (its exit status, or the signal that killed it as a negative number), and what it said."""
    reader, stderr = os.pipe()
    job = os.fork()
    if job == 0:
        os.close(reader)
        ours.close()
        _run(request, reply, stderr)
    os.close(reply)
    os.close(stderr)
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        said = _followed(job, pipe, ours)
    _, status = os.waitpid(job, 0)
    return {"status": os.waitstatus_to_exitcode(status), "said": said.decode(errors="replace")}


def _followed(job: int, pipe: FileIO, ours: socket.socket) -> bytes:
    """The end of what a job writes to stderr. If the other end closes before the job ends, kills the job and exits."""
    said = b""
    while True:
        ready, _, _ = select.select([pipe.fileno(), ours.fileno()], [], [])
        if ours.fileno() in ready:
            os.kill(job, signal.SIGKILL)
            os.waitpid(job, 0)
            os._exit(0)
        part = pipe.read(_SAID)
        if not part:
            return said
        said = (said + part)[-_SAID:]


def _run(request: dict[str, Any], reply: int, stderr: int) -> NoReturn:
    status = 1
    try:
        os.dup2(stderr, sys.stderr.fileno())
        os.close(stderr)
        job, seconds, memory = (request.pop(key) for key in ("job", "seconds", "memory"))
        _confine(seconds, memory)
        answer = packed(JOBS[job](**request))
        with os.fdopen(reply, "wb") as pipe:
            pipe.writelines(answer)
        status = 0
    except MemoryError as error:
        status = NO_MEMORY
        sys.stderr.write(f"{error}")
    except BaseException:  # noqa: BLE001 # the other process reports it
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _confine(seconds: float, memory: int) -> None:
    """Sets the limits of this process, which the kernel enforces whatever a library does."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # if all memory runs out, the kernel ends this process first; not on every system
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    with suppress(OSError, ValueError):  # it may be limited below that already
        resource.setrlimit(resource.RLIMIT_AS, (_mapped() + memory,) * 2)


def _mapped() -> int:
    """The address space that this process has already, in bytes; 0 where that is not known."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return 0


if __name__ == "__main__":
    main()
    os._exit(0)  # what was imported is not taken apart, which takes longer than the start of an interpreter
