"""The cache of proofs: what became of a content is kept, so that a restart need not find it out again.

Files in one folder, named by a hash of all that an outcome depends on: the content, this server's own code, the
libraries and the machine. A file that is damaged, or was written for anything else, is as none.
"""

import hashlib
import json
import logging
import os
import platform
import stat
import tempfile
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from stepgraph.errors import ModelRefused
from stepgraph.file import content
from stepgraph.isolation.packing import Corrupt, pack, unpack
from stepgraph.isolation.verdict import Verdict

log = logging.getLogger(__name__)

_SUFFIX = ".proof"
_PACKAGE = Path(__file__).parents[1]  # all of stepgraph: a changed rewrite must not be served from old proofs
_LIBRARIES = ("numpy", "onnx", "onnxruntime")


class ProofCache:
    """The outcomes of the files of a repository, of at most `most` bytes in all; the least used go first."""

    def __init__(self, folder: Path | None, most: int) -> None:
        self._folder = None if folder is None else _usable(folder)
        self._most = most

    def find(self, path: Path, *how: object) -> Verdict | None:
        """What became of the model `path`, loaded with the settings `how`; None if that is not known."""
        if self._folder is None:
            return None
        try:
            kept = self._folder / _name(content.outer(path), how)
            verdict = unpack(Verdict, kept.read_bytes())
        except (OSError, Corrupt, ModelRefused):
            return None
        if verdict.prints is None or not verdict.prints.still_hold(path):
            return None
        with suppress(OSError):
            os.utime(kept)
        return verdict

    def keep(self, verdict: Verdict, *how: object) -> None:
        """Keeps what became of a content."""
        if self._folder is None or verdict.prints is None:
            return
        packed, prints = pack(verdict), verdict.prints
        if len(packed) > self._most:
            return
        try:
            _write(self._folder / _name((prints.model, prints.sidecar), how), packed)
            self._make_room(self._folder)
        except OSError as error:
            log.warning("cannot keep a proof in %s: %s", self._folder, error)

    def _make_room(self, folder: Path) -> None:
        files = sorted(((each.stat(), each) for each in folder.glob(f"*{_SUFFIX}")), key=lambda f: -f[0].st_mtime_ns)
        total = 0
        for status, each in files:
            total += status.st_size
            if total > self._most:
                each.unlink(missing_ok=True)


def _usable(folder: Path) -> Path | None:
    """The folder, made if need be; None if it cannot be written, or if others could put something into it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        log.info("proofs are not kept: %s", error)
        return None
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        log.warning("proofs are not kept in %s, because others may write there; give another folder", folder)
        return None
    if not os.access(folder, os.W_OK | os.X_OK):
        log.info("proofs are not kept: %s cannot be written", folder)
        return None
    return folder


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing, whoever else writes at the same time."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=_SUFFIX)  # left over, it goes like any other
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _name(outer: tuple[str, str | None], how: tuple[object, ...]) -> str:
    return hashlib.sha256(json.dumps([outer, how, _ours()]).encode()).hexdigest() + _SUFFIX


@cache
def _ours() -> list[str]:
    """What else an outcome depends on: our code, the libraries, the machine."""
    code = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*.py")):
        code.update(f"{file.relative_to(_PACKAGE)}\n".encode() + file.read_bytes())
    return [code.hexdigest(), platform.python_version(), *map(version, _LIBRARIES), platform.machine(), _processor()]


def _processor() -> str:
    """What tells one type of processor from another: rounding may depend on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    said = {line.split(":")[0].strip(): line for line in reversed(lines) if ":" in line}
    return " ".join(said[key] for key in ("model name", "flags", "Features", "CPU part") if key in said)
