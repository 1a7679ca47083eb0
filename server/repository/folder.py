"""The folder of models: `NAME/VERSION/model.onnx`. Finds what is there, and what was put elsewhere; opens no file."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FILE = "model.onnx"
PLACE = f"NAME/VERSION/{FILE}"


@dataclass(frozen=True)
class Found:
    """A model of the repository. `stamp` changes when its file does, or one beside it."""

    name: str
    version: int
    path: Path
    stamp: tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Stray:
    """An ONNX file where no model is looked for, and why it is not found there."""

    path: Path
    reason: str


def models(folder: Path) -> Iterator[Found]:
    """The models of a repository, in no order."""
    for path in folder.glob(f"*/*/{FILE}"):
        try:
            stamp = tuple(sorted(map(_stamp, os.scandir(path.parent))))
        except OSError:
            continue  # it went away while we looked
        if is_version(path.parent.name) and not _hidden(path, folder):
            yield Found(path.parts[-3], int(path.parent.name), path, stamp)


def strays(folder: Path) -> Iterator[Stray]:
    """ONNX files of a repository that are no models of it; those in hidden folders are nobody's concern."""
    for depth, pattern in enumerate(("*.onnx", "*/*.onnx", "*/*/*.onnx")):
        for path in sorted(folder.glob(pattern)):
            if not _hidden(path, folder) and (reason := _reason(path, depth)):
                yield Stray(path, reason)


def is_version(name: str) -> bool:
    """Whether a folder of this name holds a version."""
    return name.isascii() and name.isdecimal() and int(name) > 0


def _reason(path: Path, depth: int) -> str:
    """Why it is no model; "" if it is one, or lies beside one."""
    if depth < 2:
        return f"it is looked for at {PLACE}"
    if not is_version(path.parent.name):
        return f"the version '{path.parent.name}' is no whole number from 1 on"
    return "" if (path.parent / FILE).exists() else f"it is not called {FILE}"


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _stamp(file: os.DirEntry[str]) -> tuple[str, int, int, int]:
    status = file.stat()
    return file.name, status.st_mtime_ns, status.st_size, status.st_ino
