"""Several servers on one port, a process each, so that every core has one; they share a store.

This process starts them, and starts those again that end; it knows no gRPC and serves nothing itself.
"""

import asyncio
import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

from server.edge.transports import place
from server.operations.exposure import refused
from server.operations.process import obey
from server.settings import Settings

log = logging.getLogger(__name__)

_ROOT = Path(__file__).parents[2]
_BACKOFF = 0.1, 10.0  # seconds: the first and the longest wait before one that ended is started again
_STEADY = 30.0  # seconds after which a worker that ends is started again without a longer wait


class Workers:
    """The workers of this server.

    Args:
        settings: as read from `arguments` and the environment.
        arguments: the command line; each worker gets it.
    """

    def __init__(self, settings: Settings, arguments: list[str]) -> None:
        self._settings = settings
        self._arguments = arguments
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._served = asyncio.Event()  # set once one serves: its proofs are in the cache for the others
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Runs the workers until SIGTERM or SIGINT, which is passed on to them.

        Raises OSError: the port is taken, or the first worker cannot start.
        """
        obey(self._stop)
        with reserved(self._settings.host, self._settings.port) as port:
            keepers = [asyncio.create_task(self._keep(number, port)) for number in range(self._settings.workers)]
            try:
                await asyncio.gather(*keepers)
            finally:
                self._stop()
                await asyncio.gather(*keepers, return_exceptions=True)
        log.info("all %d workers have stopped", self._settings.workers)

    def _stop(self) -> None:
        self._stopping.set()
        self._served.set()
        for process in self._running.values():
            with suppress(ProcessLookupError):
                process.terminate()

    async def _keep(self, number: int, port: int) -> None:
        if number:
            await self._served.wait()
        wait, longest = _BACKOFF
        while not self._stopping.is_set():
            began = monotonic()
            status = await self._live(number, port)
            if self._stopping.is_set():
                return
            if status > 0 and not self._served.is_set():
                raise OSError(f"worker {number} could not start, and said why")
            if monotonic() - began > _STEADY:
                wait = _BACKOFF[0]
            log.warning("worker %d has ended (exit status %d); it is started again in %.1f s", number, status, wait)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait)
            wait = min(2 * wait, longest)

    async def _live(self, number: int, port: int) -> int:
        """Runs a worker once; returns its exit status."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *self._command(number, port, theirs.fileno()), cwd=_ROOT, pass_fds=[theirs.fileno()]
                )
            self._running[number] = process
            if self._stopping.is_set():
                process.terminate()
            ours.setblocking(False)
            if await asyncio.get_running_loop().sock_recv(ours, 1):
                log.info("worker %d serves (process %d)", number, process.pid)
                self._served.set()
            status = await process.wait()
        del self._running[number]
        return status

    def _command(self, number: int, port: int, descriptor: int) -> list[str]:
        own = ["--workers", "1", "--port", str(port)]
        if self._settings.metrics_port:
            own += ["--metrics-port", str(self._settings.metrics_port + number)]
        return [sys.executable, "-m", "server.operations.worker", str(number), str(descriptor), *self._arguments, *own]


@contextmanager
def reserved(host: str, port: int) -> Iterator[int]:
    """Keeps a port for the workers to share; 0 is a free one.

    Raises OSError: another process listens there, or the host is unknown.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have ended do not matter
            alone.bind(address)
        held = socket.socket(family, kind, protocol)
    except OSError as error:
        raise refused(place(host, port), error) from error
    with held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
        yield int(held.getsockname()[1])
