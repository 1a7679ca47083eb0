"""Servers that are forked from a process which has imported all that a server needs: that is most of a start.

Such a server differs from `python -m server` in its interpreter alone: its command line and the environment that /proc
shows are those of the process that forks.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import traceback
from atexit import register
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import IO, TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[1]
_MOST = 2**17  # bytes of a request: the variables of an environment
_NUMBER = struct.Struct("<i")


class ForkedServer:
    """Has what tests use of `subprocess.Popen`, with its standard error as text."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        said, stderr = os.pipe()
        self._status, status = os.pipe()
        request = json.dumps({"arguments": list(arguments), "environment": dict(environment)}).encode()
        socket.send_fds(_forker(), [request], [stderr, status])
        os.close(stderr)
        os.close(status)
        self.stderr: IO[str] = os.fdopen(said, encoding="utf-8")
        self.returncode: int | None = None
        self._one_at_a_time = Lock()
        self.pid = self._number()

    def wait(self, timeout: float | None = None) -> int:
        with self._one_at_a_time:
            if self.returncode is None:
                poll = select.poll()
                poll.register(self._status, select.POLLIN)
                if not poll.poll(None if timeout is None else 1_000 * timeout):
                    raise subprocess.TimeoutExpired("a forked server", timeout or 0.0)
                self.returncode = self._number()
                os.close(self._status)
            return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _number(self) -> int:
        (number,) = _NUMBER.unpack(os.read(self._status, _NUMBER.size))
        return int(number)


@cache
def _forker() -> socket.socket:
    """The process that forks, started with the first server; it ends when this one does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.forked_server", str(theirs.fileno())]
        one_thread = {"OPENBLAS_NUM_THREADS": "1"}  # what forks has no other
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | one_thread, pass_fds=[theirs.fileno()])

    def end() -> None:
        ours.close()
        process.wait()

    register(end)
    return ours


def _fork_until_closed(requests: socket.socket) -> None:
    """Forks a server for each request; says in its pipe which process it is, and later how it ended."""
    statuses = dict[int, int]()  # by process: its pipe
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([requests, woken], [], [])
        if woken in ready:
            woken.recv(_MOST)
            _tell_ends(statuses)
        if requests in ready:
            request, pipes, *_ = socket.recv_fds(requests, _MOST, 2)
            if not request:
                return
            stderr, status = pipes
            if (process := os.fork()) == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.dup2(stderr, 2)
                for unused in (requests.detach(), woken.detach(), wake.detach(), stderr, status, *statuses.values()):
                    os.close(unused)
                _serve(**json.loads(request))
            os.close(stderr)
            os.write(status, _NUMBER.pack(process))
            statuses[process] = status


def _tell_ends(statuses: dict[int, int]) -> None:
    while statuses:
        process, status = os.waitpid(-1, os.WNOHANG)
        if not process:
            return
        pipe = statuses.pop(process)
        with suppress(BrokenPipeError):  # nobody waits for it any more
            os.write(pipe, _NUMBER.pack(os.waitstatus_to_exitcode(status)))
        os.close(pipe)


def _serve(arguments: list[str], environment: dict[str, str]) -> NoReturn:
    from server import __main__ as program

    ours = {name: os.environ[name] for name in ("ORT_DISABLE_TELEMETRY", "GRPC_VERBOSITY")}
    os.environ.clear()
    os.environ.update(ours | environment)
    sys.argv = [str(program.__file__), *arguments]
    status: object = 1
    try:
        status = program.main()
    except SystemExit as end:
        status = end.code
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)


def main() -> None:
    import server.__main__
    import server.operations.lifecycle
    import server.stores.sqlite.store  # noqa: F401 - likewise, it takes long

    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        _fork_until_closed(requests)


if __name__ == "__main__":
    main()
