"""The real server as a process of its own on a free port; its log is read as it comes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Condition, Thread
from time import monotonic
from typing import TYPE_CHECKING, Self

from tests.forked import ROOT, ForkedProcess, Forker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CACHE = TemporaryDirectory(prefix="tidegate-cache-")  # all servers of a run share it, as they would at home
PATIENCE = 240  # seconds: what is waited for comes within a fraction of it, or something is broken


@cache
def _forker() -> Forker:
    return Forker("server.operations.lifecycle", "server.stores.sqlite.store")


class RunningServer:
    """`python -m server` over a folder of models. Leaving the context kills it if it has not ended.

    It is forked, which is quicker, unless it has a `prefix`, several workers, an `environment` that the interpreter or
    a library may read, or is to be `fresh`: an interpreter of its own.
    """

    def __init__(
        self,
        models: Path,
        *arguments: str,
        environment: Mapping[str, str | None] | None = None,
        prefix: Sequence[str] = (),
        fresh: bool = False,
    ) -> None:
        variables = {key: value for key, value in os.environ.items() if not key.startswith("TIDEGATE_")}
        variables["TIDEGATE_CACHE"] = os.environ.get("TIDEGATE_TEST_CACHE", _CACHE.name)
        for name, value in (environment or {}).items():
            variables.pop(name, None)
            if value is not None:
                variables[name] = value
        given = [] if "--port" in arguments else ["--port", "0"]
        if (transport := os.environ.get("TIDEGATE_TEST_TRANSPORT")) and "--transport" not in arguments:
            given += ["--transport", transport]
        given += [] if "--store" in arguments or "TIDEGATE_STORE" in variables else ["--store", "memory:"]
        self._news = Condition()
        self._ended = False
        self.lines: list[str] = []
        arguments = ("--models", str(models), *given, *arguments)
        ours = all(name.startswith("TIDEGATE_") for name in environment or {})
        self.process: subprocess.Popen[bytes] | ForkedProcess
        said, stderr = os.pipe()
        if ours and not prefix and not fresh and "--workers" not in arguments:
            self.process = _forker().start("server", arguments, variables, ROOT, (0, 1, stderr))
        else:
            command = [*prefix, sys.executable, "-m", "server", *arguments]
            self.process = subprocess.Popen(command, cwd=ROOT, env=variables, stderr=stderr)
        os.close(stderr)
        self._said = os.fdopen(said, encoding="utf-8")
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    def ready(self, patience: float = PATIENCE) -> Self:
        """Waits until it serves."""
        self.address = self.line(r'serving \d+ models? on ([^\s"]+:[^\s"]+)', patience=patience).group(1)
        return self

    def line(self, pattern: str, after: int = 0, patience: float = PATIENCE) -> re.Match[str]:
        """The first line of the log that matches, waited for."""
        with self._news:
            found: list[re.Match[str]] = []

            def matched() -> bool:
                found.extend(m for line in self.lines[after:] if (m := re.search(pattern, line)))
                return bool(found) or self._ended

            assert self._news.wait_for(matched, patience), f"no line {pattern!r} in {self.log}"
            assert found, f"the server ended without a line {pattern!r}:\n{self.log}"
            return found[0]

    @property
    def log(self) -> str:
        """Everything that it wrote so far."""
        return "".join(self.lines)

    @property
    def resident(self) -> float:
        """Its memory in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) / 1024

    def job(self) -> int:
        """The process that looks into a file for it, waited for."""
        end = monotonic() + PATIENCE
        while monotonic() < end:
            for workshop in _children(self.process.pid):
                for job in _children(workshop):
                    return job
            self._reader.join(0.01)
        raise AssertionError(f"it looks into no file:\n{self.log}")

    def terminate(self) -> None:
        """Asks it to stop."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Its exit status, and the whole log."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def _read(self) -> None:
        with self._said as lines:
            for line in lines:
                with self._news:
                    self.lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


def _children(process: int) -> list[int]:
    """The children of all threads of a process."""
    try:
        lists = [path.read_text(encoding="ascii") for path in Path(f"/proc/{process}/task").glob("*/children")]
    except OSError:
        return []  # it has ended
    return [int(child) for children in lists for child in children.split()]
