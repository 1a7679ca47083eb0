"""Programs as `python -m` runs them, in forks of a process that has imported what they need: most of a start is that.

Such a process differs from `python -m` in its interpreter alone: the command line and the environment that /proc shows
are those of the process that forks. `python -m tests.forked SOCKET MODULE ...` is the one that forks.
"""

from __future__ import annotations

import atexit
import gc
import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from multiprocessing.context import ForkProcess

ROOT = Path(__file__).parents[1]
_LONGEST = 2**17  # bytes of a request: arguments, and the variables of an environment
_NUMBER = struct.Struct("<i")


class Forker:
    """Imports modules once, and runs programs in forks of that process, which ends when this one does."""

    def __init__(self, *modules: str) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ExitStack() as failed, theirs:
            failed.callback(self._requests.close)
            command = [sys.executable, "-m", "tests.forked", str(theirs.fileno()), *modules]
            one_thread = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # what forks has no other
            self._process = subprocess.Popen(command, cwd=ROOT, env=one_thread, pass_fds=[theirs.fileno()])
            failed.pop_all()
        atexit.register(self._end)

    def _end(self) -> None:
        self._requests.close()
        self._process.wait()

    def start(
        self,
        program: str,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        pipes: tuple[int, int, int] = (0, 1, 2),
    ) -> ForkedProcess:
        """Runs a program with these for its standard input, output and error; the rest as it is in this process now."""
        variables = dict(os.environ if environment is None else environment)
        request = {"program": program, "arguments": list(arguments), "environment": variables}
        status, theirs = os.pipe()
        message = json.dumps(request | {"folder": str(folder or Path.cwd())}).encode()
        socket.send_fds(self._requests, [message], [*pipes, theirs])
        os.close(theirs)
        return ForkedProcess(status)

    def run(self, program: str, arguments: list[str], given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Likewise to its end, as `subprocess.run` has it."""
        (theirs_in, ours_in), (ours_out, theirs_out), (ours_err, theirs_err) = (os.pipe() for _ in range(3))
        with ThreadPoolExecutor(3) as threads:
            process = self.start(program, arguments, pipes=(theirs_in, theirs_out, theirs_err))
            for end in (theirs_in, theirs_out, theirs_err):
                os.close(end)
            threads.submit(_write, ours_in, given)
            said = [threads.submit(_read, end) for end in (ours_out, ours_err)]
            status = process.wait()
        return subprocess.CompletedProcess(arguments, status, *(one.result() for one in said))


class ForkedProcess:
    """Has what tests use of `subprocess.Popen`."""

    def __init__(self, status: int) -> None:
        self._status = status  # a pipe: the process's number, and once it has ended its exit status
        self._one_at_a_time = Lock()
        self.returncode: int | None = None
        self.pid = self._number()

    def wait(self, timeout: float | None = None) -> int:
        with self._one_at_a_time:
            if self.returncode is None:
                poll = select.poll()
                poll.register(self._status, select.POLLIN)
                if not poll.poll(None if timeout is None else 1_000 * timeout):
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
                self.returncode = self._number()
                os.close(self._status)
            return self.returncode

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended, which is yet to be told
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _number(self) -> int:
        (number,) = _NUMBER.unpack(os.read(self._status, _NUMBER.size))
        return int(number)


def forked_here(
    work: Callable[..., object], *arguments: object, pipes: tuple[int, int, int] = (0, 1, 2)
) -> ForkProcess:
    """Starts what needs torch, whose import takes seconds, in a fork of this process, which has imported it.

    What tests have patched in this process is patched there too.
    """

    def run() -> None:
        atexit._clear()
        for number, end in enumerate(pipes):
            os.dup2(end, number)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - what pytest has instead of them is its own
        sys.stdout, sys.stderr = (open(end, "w", encoding="utf-8", closefd=False) for end in (1, 2))  # noqa: SIM115
        work(*arguments)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def module_here(program: str, *arguments: str, pipes: tuple[int, int, int] = (0, 1, 2)) -> ForkProcess:
    """Likewise `python -m` with a program and its arguments."""
    return forked_here(run_module, program, *arguments, pipes=pipes)


def run_module(program: str, *arguments: str) -> None:
    """Runs a program as `python -m` does, in this process."""
    sys.argv = [program, *arguments]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


def _write(end: int, data: bytes) -> None:
    with suppress(BrokenPipeError), os.fdopen(end, "wb") as pipe:  # it may end without reading all
        pipe.write(data)


def _read(end: int) -> bytes:
    with os.fdopen(end, "rb") as pipe:
        return pipe.read()


# In the process that forks --------------------------------------------------------------------------------------------


def _asked(requests: socket.socket) -> dict[str, Any]:
    """Forks for each request, and returns it in the fork; ends the process with the requests."""
    statuses = dict[int, int]()  # by process: its pipe
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([requests, woken], [], [])
        if woken in ready:
            woken.recv(_LONGEST)
            _tell_ends(statuses)
        if requests in ready:
            message, ends, _, _ = socket.recv_fds(requests, _LONGEST, 4)
            if not message:
                os._exit(0)
            if not (process := os.fork()):
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for number, end in enumerate(ends[:3]):
                    os.dup2(end, number)
                for unused in (*ends, *statuses.values(), *(one.detach() for one in (requests, woken, wake))):
                    os.close(unused)
                request: dict[str, Any] = json.loads(message)
                return request
            for end in ends[:3]:
                os.close(end)
            statuses[process] = ends[3]
            os.write(ends[3], _NUMBER.pack(process))


def _tell_ends(statuses: dict[int, int]) -> None:
    while statuses:
        process, status = os.waitpid(-1, os.WNOHANG)
        if not process:
            return
        pipe = statuses.pop(process)
        with suppress(BrokenPipeError):  # nothing waits for it any more
            os.write(pipe, _NUMBER.pack(os.waitstatus_to_exitcode(status)))
        os.close(pipe)


def main(descriptor: str, *modules: str) -> None:
    before = dict(os.environ)
    for module in modules:
        import_module(module)
    set_by_imports = {name: value for name, value in os.environ.items() if before.get(name) != value}
    gc.freeze()  # the end of a fork need not look at what it has not made
    request = _asked(socket.socket(fileno=int(descriptor)))
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(set_by_imports | request["environment"])
    run_module(request["program"], *request["arguments"])


if __name__ == "__main__":
    main(*sys.argv[1:])
