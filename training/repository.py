"""The model repository as a writer sees it: `<name>/<version>/model.onnx`, versions counting up from 1.

A version appears whole or not at all, and two writers at once get two versions.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from training.fitting import atomic_files

FILE = "model.onnx"
# mkdtemp's own mode would hide a model from a server that runs as another user.
READABLE = 0o755


@dataclass(frozen=True)
class Version:
    """A model that has landed."""

    name: str
    number: int
    path: Path


def land(content: bytes, models: Path, name: str) -> Version:
    """Write the next version of a model."""
    folder = models / name
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".landing-", dir=folder))
    try:
        atomic_files.write(unfinished / FILE, content)
        unfinished.chmod(READABLE)
        return move(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def move(unfinished: Path, folder: Path) -> Version:
    """Rename to the next free number: if another process took the number meanwhile, the rename fails."""
    number = next_version(folder)
    while True:
        try:
            unfinished.rename(folder / str(number))
        except OSError:
            if not (folder / str(number)).exists():
                raise
            number += 1
        else:
            return Version(folder.name, number, folder / str(number) / FILE)


def next_version(folder: Path) -> int:
    """One more than the highest version there is."""
    return max((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), default=0) + 1
