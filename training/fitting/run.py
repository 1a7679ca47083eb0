"""The folder of one run, `runs/<name>/<fingerprint>/`: the same config finds the same folder."""

from __future__ import annotations

import fcntl
import json
import platform
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnxruntime
import torch

from training.errors import RunBusy
from training.fitting import processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from training.config import Config


@dataclass(frozen=True)
class Run:
    """Where the files of one run are."""

    folder: Path

    @property
    def config(self) -> Path:
        """The config, the hash of the data and the versions of what computes, as JSON."""
        return self.folder / "config.json"

    @property
    def checkpoint(self) -> Path:
        """What an interrupted fit goes on from."""
        return self.folder / "checkpoint.pt"

    @property
    def metrics(self) -> Path:
        """One JSON line for each validation."""
        return self.folder / "metrics.jsonl"

    @property
    def plot(self) -> Path:
        """The loss over the steps."""
        return self.folder / "loss.png"

    @property
    def report(self) -> Path:
        """What the trained network achieves, for the eye."""
        return self.folder / "report.txt"

    @property
    def result(self) -> Path:
        """What came out, as JSON; it is there once the run is finished."""
        return self.folder / "result.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other commands out of this run for as long as the context lasts, however it ends.

        Raises:
            RunBusy: another command is in it.
        """
        if not processes.first():
            yield
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.folder.with_suffix(".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunBusy(f"another process is training in {self.folder}") from None
            yield

    def begin(self, config: Config, data: Mapping[str, str]) -> None:
        """Make the folder, and write into it what decides the result."""
        if not processes.first():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        decides = config.as_json() | {"data": dict(data), "versions": versions()}
        self.config.write_text(json.dumps(decides, indent=2) + "\n")

    def clear(self) -> None:
        """Begin anew. A finished run is put aside until the new one is finished, too."""
        if self.result.exists():
            self.keep()
            self.folder.rename(self._aside)
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep(self) -> None:
        """The run is finished: what was put aside for it goes."""
        shutil.rmtree(self._aside, ignore_errors=True)

    @property
    def _aside(self) -> Path:
        return self.folder.with_suffix(".before")


def versions() -> dict[str, str]:
    return {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "Python": platform.python_version()}


def open_run(config: Config, data_sha256: str) -> Run:
    """The run of this config on this data, whether it has begun or not."""
    return Run(config.runs / config.name / config.fingerprint(data_sha256))
