"""A command of this repository as a process that never outlives its `with` block."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from demo.errors import DemoError

ROOT = Path(__file__).parent.parent
PACE = 0.05  # seconds between two looks
_GRACE = 5.0  # seconds that a process may take to stop before it is killed
_COLOURS = re.compile("\x1b\\[[0-9;?]*[A-Za-z]")


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds requests to stop back until its end: a process that is being started is in nobody's hands yet."""
    handlers = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}
    caught: list[int] = []
    for sign in handlers:
        signal.signal(sign, lambda number, _frame: caught.append(number))
    try:
        yield
    finally:
        for sign, handler in handlers.items():
            signal.signal(sign, handler)
        if caught:
            signal.raise_signal(caught[0])


class Process:
    """`python -m ARGUMENTS`, whose output goes into a log."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path) -> None:
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is for the demonstration, which then stops its processes
            )

    @property
    def said(self) -> str:
        """What it wrote so far."""
        return _COLOURS.sub("", self.log.read_text(errors="replace"))

    @property
    def ended(self) -> bool:
        """Whether it has ended, and well. Raises DemoError if it failed."""
        status = self._process.poll()
        if status:
            last = (self.said.strip().splitlines() or [f"exit status {status}"])[-1]
            raise DemoError(f"{self.name} failed: {last} (more in {self.log})")
        return status is not None

    def wait_for(self, pattern: str, patience: float) -> re.Match[str]:
        """The first match in what it says. Raises DemoError if it ends first, or takes more than `patience` seconds."""
        deadline = time.monotonic() + patience
        while not (found := re.search(pattern, self.said)):
            if self.ended or time.monotonic() > deadline:
                raise DemoError(f"{self.name} did not get ready in {patience:g} s (its log: {self.log})")
            time.sleep(PACE)
        return found

    def ask_to_stop(self) -> None:
        """Does not wait for it. Nothing happens if it has ended."""
        self._process.terminate()

    def stop(self) -> None:
        """Asks it to stop, waits, kills it. Nothing happens if it has ended."""
        self.ask_to_stop()
        try:
            self._process.wait(_GRACE)
        finally:  # also when a second Ctrl-C ends the wait
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _environment() -> dict[str, str]:
    """Ours, without what would change a server's settings or put colours into a log."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEGATE_", "FORCE_COLOR"))}
    return ours | {"ORT_DISABLE_TELEMETRY": "1", "NO_COLOR": "1"}
