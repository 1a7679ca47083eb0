"""Has untrusted files examined by a process of its own, with a limit of time and one of memory.

onnx and onnxruntime are C++: a damaged file may make them crash, run for ever, or ask for all memory there is. The
process (`python -m stepgraph.isolation.worker`) imports them once and forks for each file; it is started at the first
request, and ends with `close`. This file uses no onnx.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Self, TypeVar

from stepgraph.errors import ModelRefused
from stepgraph.file import sidecar
from stepgraph.isolation.packing import Corrupt, unpack

T = TypeVar("T")

NO_MEMORY = 64  # the exit status of a job that wanted more memory than it may have
_ROOT = Path(__file__).parents[2]
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # it is going to fork
_STARVED = ("bad_alloc", "BFCArena", "Cannot allocate memory", "out of memory")
_CLOSING = 5.0  # seconds that the process has to end by itself
_CHUNK = 2**20


class OutOfTime(ModelRefused):
    """Looking into the file took longer than it may."""


class OutOfMemory(ModelRefused):
    """Looking into the file took more memory than it may."""


@dataclass(frozen=True)
class Limits:
    """What looking into one file may take: wall-clock seconds, and MiB of memory."""

    seconds: float
    memory_mib: float


@dataclass(frozen=True)
class _Ending:
    """How a job ended: its exit status, or minus the signal that killed it; and the last of what it wrote to stderr."""

    status: int
    said: str


class Sandbox:
    """One file at a time, for any thread. Leaving the context closes it."""

    def __init__(self, limits: Limits, program: str = "stepgraph.isolation.worker") -> None:
        self._limits = limits
        self._program = program
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, kind: type[T], job: str, path: Path, seconds: float | None = None, **more: object) -> T:
        """What a job of the worker says of the file `path`, a dataclass of type `kind`. `seconds` replaces the limit.

        Raises:
            OutOfTime, OutOfMemory: it took more than it may.
            ModelRefused: it crashed.
        """
        limits = self._limits if seconds is None else replace(self._limits, seconds=seconds)
        with self._lock:
            ending, reply = self._asked({"job": job, "path": str(path.absolute()), **more}, limits)
        if ending.status != 0:
            raise _blame(ending, limits)
        try:
            return unpack(kind, reply)
        except Corrupt as error:
            raise ModelRefused(f"looking into the file ended with no answer ({error})") from error

    def close(self) -> None:
        """Ends the process and the job that it runs. The next request starts it again."""
        ours = self._socket
        if ours is not None:
            with suppress(OSError):  # it may be ending already
                ours.shutdown(socket.SHUT_RDWR)  # a request that waits for its answer is refused
        with self._lock:
            self._end()

    def _asked(self, request: Mapping[str, object], limits: Limits) -> tuple[_Ending, bytes]:
        memory = int(limits.memory_mib * 2**20)
        try:
            ours = self._started()
            reader, writer = os.pipe()
            with os.fdopen(reader, "rb") as pipe:
                try:
                    socket.send_fds(
                        ours,
                        [json.dumps({**request, "seconds": limits.seconds, "memory": memory}).encode() + b"\n"],
                        [writer],
                    )
                finally:
                    os.close(writer)
                reply = _all_of(pipe, memory)
            return _Ending(**json.loads(_line(ours))), reply
        except (OSError, EOFError) as error:
            self._end()
            raise ModelRefused(
                f"the process that looks into files has ended ({error}); it will be started anew"
            ) from error

    def _started(self) -> socket.socket:
        if self._socket is None:
            ours, theirs = socket.socketpair()
            with ExitStack() as failed, theirs:
                failed.enter_context(ours)
                self._process = subprocess.Popen(  # noqa: S603 # our own interpreter
                    [sys.executable, "-m", self._program, str(theirs.fileno())],
                    cwd=_ROOT,
                    env={**os.environ, **_ONE_THREAD},
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C is for us; it ends when we close
                )
                failed.pop_all()
            self._socket = ours
        return self._socket

    def _end(self) -> None:
        if self._process is not None and self._socket is not None:
            self._socket.close()
            try:
                self._process.wait(_CLOSING)  # it kills its job first
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._socket = self._process = None


def _blame(ending: _Ending, limits: Limits) -> ModelRefused:
    status, said, number = ending.status, ending.said, -ending.status
    if number == signal.SIGALRM:
        return OutOfTime(
            f"looking into the file took more than {limits.seconds:g} s. If the model is sound and only large, "
            "allow more with --load-seconds"
        )
    if status == NO_MEMORY or (number == signal.SIGABRT and any(words in said for words in _STARVED)):
        return OutOfMemory(
            f"looking into the file takes more than {limits.memory_mib:g} MiB of memory{_where(said)}. If the "
            "model is sound and only large, allow more with --load-memory-mib"
        )
    if number == signal.SIGKILL:
        return ModelRefused(
            "looking into the file was killed (signal 9): the machine or the container has too little memory"
        )
    if number < 0:
        return ModelRefused(f"looking into the file failed: {(said.splitlines() or [f'exit status {status}'])[-1]}")
    return ModelRefused(
        f"onnx or onnxruntime ends with signal {number} ({signal.strsignal(number)}) over the file. If onnxruntime "
        "runs it elsewhere, then not at a size that was tried: perhaps no row is left for some cell there. Say "
        f"in {sidecar.FILE} beside the file how many rows are one step, under [block]: INPUT = ROWS"
    )


def _where(said: str) -> str:
    """What onnxruntime says of the node that it was at."""
    node = re.search(r"running (\w+) node\. Name:'([^']{1,100})'", said)
    return f", at node '{node[2]}' ({node[1]})" if node else ""


def _all_of(pipe: BinaryIO, most: int) -> bytes:
    parts, size = [], 0
    while size <= most and (part := pipe.read(_CHUNK)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _line(ours: socket.socket) -> bytes:
    with ours.makefile("rb") as replies:
        line = replies.readline()
    if not line.endswith(b"\n"):
        raise EOFError("it said nothing")
    return line
