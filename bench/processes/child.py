"""Processes that the rig starts, asks and stops. None outlives the rig."""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from bench.processes.worker import Json

# Seconds that a process may take to stop before it is killed.
GRACE = 5.0
# Seconds within which a server must be ready.
START = 120.0
_STOPS = (signal.SIGINT, signal.SIGTERM)
_PORTS = range(12_000, 32_000)  # below those that the kernel gives to connections


class RigError(Exception):
    """A process of the rig failed; the sentence says which, and where it wrote why."""


class Child:
    """One Python process, from `with` to the end of the block; with the code of another checkout if one is given.

    Its command is a module and options, or a file, which need not be in that checkout.
    """

    def __init__(self, name: str, command: list[str], log: Path, checkout: Path | None = None) -> None:
        self._name, self._log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as errors, stopped_later() as interrupted:
            self._process = subprocess.Popen(
                [sys.executable, "-P" if command[0].endswith(".py") else "-m", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(checkout),
                cwd=checkout,
                process_group=0,  # Ctrl-C is for the rig, which then stops its children
                text=True,
            )
        self._answers = cast("IO[str]", self._process.stdout)
        if interrupted:  # nobody has entered the block that would stop it
            self.stop()
            signal.raise_signal(interrupted[0])

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, question: Json, patience: float = 120.0) -> Json:
        """Ask a worker; one that does not answer in time is killed."""
        watchdog = threading.Timer(patience, self._process.kill)
        try:  # around the start too: an interrupt that comes there must not leave the watchdog to its patience
            watchdog.start()
            reply = self._exchange(json.dumps(question))
        finally:
            watchdog.cancel()
        if "error" in reply:
            raise RigError(f"{self._name}: {reply['error']} (log: {self._log})")
        return reply

    def _exchange(self, line: str) -> Json:
        try:
            print(line, file=self._process.stdin, flush=True)
            reply: Json = json.loads(self._answers.readline())
        except (BrokenPipeError, json.JSONDecodeError) as error:
            raise RigError(f"{self._name} ended or did not answer (log: {self._log})") from error
        return reply

    def serves(self, load: "Child", target: Json, models: list[str]) -> None:
        """Wait until this server is ready with these models, which `load` asks it."""
        patience = time.monotonic() + START
        while not load.ask({"ask": "ready", "target": target, "models": models})["ready"]:
            if time.monotonic() > patience or self._process.poll() is not None:
                raise RigError(f"{self._name} did not start (log: {self._log})")
            time.sleep(0.1)

    def stop(self) -> None:
        """Ask it to stop, wait, kill it."""
        self._process.terminate()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def environment(checkout: Path | None) -> dict[str, str]:
    """The variables of a child: its code comes first, wherever this project is installed."""
    path = {"PYTHONPATH": str(checkout)} if checkout else {}
    return {**os.environ, "ORT_DISABLE_TELEMETRY": "1", **path}


@contextmanager
def stopped_later() -> Iterator[list[int]]:
    """Signals to stop are noted instead of obeyed: in the midst of a start they would leave a process behind."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield came
        return
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _STOPS}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def checkout(given: str) -> Path:
    """Take the folder of another checkout from the command line."""
    folder = Path(given).resolve()
    if not (folder / "server" / "__main__.py").exists():
        raise argparse.ArgumentTypeError(f"{given} is no checkout of Tidegate")
    return folder


def free_port() -> int:
    """Find a port of the loopback on which nobody listens.

    One that the kernel chose might be taken by any connection before the server listens on it.
    """
    while True:
        port = random.choice(_PORTS)  # noqa: S311 - no secret
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
