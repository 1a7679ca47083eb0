"""A program in a process of its own, forked from one that has imported what it needs already.

`python -m tests.tidegate.cli.forked SOCKET PROGRAM MODULE ...` is the process that forks: it imports the modules, and
for each request runs the program as `python -m` does.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Lock

ROOT = Path(__file__).parents[3]
LONGEST = 2**17  # bytes of a request
PATIENCE = 240  # seconds


class Forked:
    """One program, run as often as it is asked for, one run at a time."""

    def __init__(self, program: str, *modules: str) -> None:
        self._lock = Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(PATIENCE)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.tidegate.cli.forked", str(theirs.fileno()), program, *modules],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self.close)

    def close(self) -> None:
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def run(self, arguments: list[str], given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """With the environment and the working directory of this moment, as `subprocess.run` has it."""
        request = {"arguments": arguments, "environment": dict(os.environ), "folder": str(Path.cwd())}
        (theirs_in, ours_in), (ours_out, theirs_out), (ours_err, theirs_err) = (os.pipe() for _ in range(3))
        with self._lock, ThreadPoolExecutor(3) as threads:
            socket.send_fds(self._socket, [json.dumps(request).encode()], [theirs_in, theirs_out, theirs_err])
            for end in (theirs_in, theirs_out, theirs_err):
                os.close(end)
            threads.submit(_write, ours_in, given)
            said = [threads.submit(_read, end) for end in (ours_out, ours_err)]
            status = int(self._socket.recv(LONGEST))
        return subprocess.CompletedProcess(arguments, status, *(one.result() for one in said))


def _write(end: int, data: bytes) -> None:
    with suppress(BrokenPipeError), os.fdopen(end, "wb") as pipe:  # it may end without reading all
        pipe.write(data)


def _read(end: int) -> bytes:
    with os.fdopen(end, "rb") as pipe:
        return pipe.read()


def _asked(requests: socket.socket) -> dict[str, object]:
    """Forks for each request, and returns it in the fork."""
    while True:
        message, ends, _, _ = socket.recv_fds(requests, LONGEST, 3)
        if not message:
            os._exit(0)
        if not (child := os.fork()):
            requests.close()
            for number, end in enumerate(ends):
                os.dup2(end, number)
                os.close(end)
            return json.loads(message)
        for end in ends:
            os.close(end)
        _, status = os.waitpid(child, 0)
        requests.send(str(os.waitstatus_to_exitcode(status)).encode())


def main(descriptor: str, program: str, *modules: str) -> None:
    for module in modules:
        import_module(module)
    gc.freeze()  # the end of a fork need not look at what it has not made
    request = _asked(socket.socket(fileno=int(descriptor)))
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = [program, *request["arguments"]]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
