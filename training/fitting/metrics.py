"""The metrics file: one JSON line for each validation."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from training.fitting import atomic_files
from training.fitting.trainer import Evaluation

if TYPE_CHECKING:
    from pathlib import Path


class Metrics:
    """A watcher that appends to `path`. Lines from after the checkpoint that is resumed are dropped first."""

    def __init__(self, path: Path, resumed_at: int) -> None:
        self._path = path
        kept = [entry for entry in read(path) if entry.step <= resumed_at]
        atomic_files.write(path, "".join(line(entry) for entry in kept))

    def stepped(self, step: int, loss: float) -> None:
        """Nothing: a line for each step would be noise."""

    def evaluated(self, evaluation: Evaluation) -> None:
        with self._path.open("a") as file:
            file.write(line(evaluation))


def line(evaluation: Evaluation) -> str:
    return json.dumps(asdict(evaluation)) + "\n"


def read(path: Path) -> list[Evaluation]:
    """The file's records; a last line that a killed process left unfinished is not one."""
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0]
    return [Evaluation(**json.loads(text)) for text in whole.splitlines()]
