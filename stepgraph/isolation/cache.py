"""The cache of proofs: the outcome for each content is kept, so that a restart need not prove it again.

Files in one folder, named by a hash of all that an outcome depends on: the content, this server's own code, the
libraries and the machine. A file that is damaged, or was written for anything else, is ignored.
"""

import hashlib
import json
import logging
import os
import platform
import stat
import tempfile
from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from stepgraph.errors import ModelRefused
from stepgraph.file import content, sidecar
from stepgraph.isolation.packing import Blob, Corrupt, packed, unpack
from stepgraph.isolation.verdict import Verdict
from tidegate import columns

log = logging.getLogger(__name__)

_SUFFIX = ".proof"
_PACKAGE = Path(__file__).parents[1]  # all of stepgraph: a changed rewrite must not be served from old proofs
Outer = tuple[str, str | None]  # sha256 of model.onnx, and of model.toml

_LIBRARIES = ("numpy", "onnx", "onnxruntime")


class ProofCache:
    """The outcomes of the files of a repository; beyond `most` bytes in all the least used go first.

    Files of more than `largest` bytes are not hashed, and so never known.
    """

    def __init__(self, folder: Path | None, most: int, largest: int) -> None:
        self._folder = None if folder is None else _usable(folder)
        self._most = most
        self._largest = largest
        self._needed: frozenset[str] = frozenset()  # names of files that stay

    def outer(self, path: Path) -> Outer | None:
        beside = path.with_name(sidecar.FILE)
        try:
            size = path.stat().st_size + (beside.stat().st_size if beside.exists() else 0)
            return None if self._folder is None or size > self._largest else content.outer(path)
        except (OSError, ModelRefused):
            return None

    def find(self, path: Path, outer: Outer | None, *hows: tuple[object, ...]) -> Verdict | None:
        """The outcome for the model `path`, loaded in one of these ways; None if it is not known."""
        if outer is None:
            return None
        for verdict in (self._read(_name(outer, how)) for how in hows):
            if verdict is not None and self._holds(verdict, path):
                return verdict
        return None

    def of_content(self, sha256: str, how: tuple[object, ...]) -> Verdict | None:
        verdict = self._read(_name((sha256, None), how))
        return verdict if verdict is not None and verdict.prints and verdict.prints.whole == sha256 else None

    def holds(self, sha256: str, how: tuple[object, ...]) -> bool:
        return self._folder is not None and (self._folder / _name((sha256, None), how)).exists()

    def need(self, contents: Collection[str], how: tuple[object, ...]) -> None:
        """From now on these contents, in this way of loading, leave the cache for nothing."""
        self._needed = frozenset(_name((sha256, None), how) for sha256 in contents)

    def keep(self, verdict: Verdict, how: tuple[object, ...]) -> None:
        if self._folder is None or verdict.prints is None:
            return
        parts, prints = packed(verdict), verdict.prints
        if sum(map(len, parts)) > self._most:
            return
        file, by_content = _name((prints.model, prints.sidecar), how), _name((prints.whole, None), how)
        try:
            _write(self._folder / file, parts)
            if by_content != file:
                (self._folder / by_content).unlink(missing_ok=True)
                (self._folder / by_content).hardlink_to(self._folder / file)
            self._make_room(self._folder)
        except OSError as error:
            log.warning("cannot keep a proof in %s: %s", self._folder, error)

    def _read(self, name: str) -> Verdict | None:
        if self._folder is None:
            return None
        try:
            verdict = unpack(Verdict, (self._folder / name).read_bytes())
        except (OSError, Corrupt):
            return None
        with suppress(OSError):
            os.utime(self._folder / name)
        return verdict

    def _holds(self, verdict: Verdict, path: Path) -> bool:
        if verdict.prints is None:
            return False
        try:
            size = sum((path.parent / name).stat().st_size for name in verdict.prints.weights)
        except OSError:
            return False
        return size <= self._largest and verdict.prints.still_hold(path)

    def _make_room(self, folder: Path) -> None:
        files = [(each.stat(), each) for each in folder.glob(f"*{_SUFFIX}")]
        needed = sum(status.st_size for status, each in files if each.name in self._needed)
        if needed > self._most:
            log.warning("what is needed of %s takes %.0f MiB, which is more than it may", folder, needed / 2**20)
        total = 0
        for status, each in sorted(files, key=lambda f: (f[1].name not in self._needed, -f[0].st_mtime_ns)):
            total += status.st_size // status.st_nlink
            if total > self._most and each.name not in self._needed:
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


def _write(path: Path, parts: Iterable[Blob]) -> None:
    descriptor, name = tempfile.mkstemp(
        dir=path.parent, suffix=_SUFFIX
    )  # one that is left over is removed like any other entry
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(parts)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _name(outer: Outer, how: tuple[object, ...]) -> str:
    return hashlib.sha256(json.dumps([outer, how, _ours()]).encode()).hexdigest() + _SUFFIX


@cache
def _ours() -> list[str]:
    """What an outcome depends on beside the file: our code, the libraries, the machine."""
    code = hashlib.sha256()
    for file in (*sorted(_PACKAGE.rglob("*.py")), *sorted(Path(columns.__file__).parent.glob("*.py"))):
        code.update(f"{file.parent.name}/{file.name}\n".encode() + file.read_bytes())
    return [code.hexdigest(), platform.python_version(), *map(version, _LIBRARIES), platform.machine(), _processor()]


def _processor() -> str:
    """What tells one type of processor from another: rounding may depend on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    said = {line.split(":")[0].strip(): line for line in reversed(lines) if ":" in line}
    return " ".join(said[key] for key in ("model name", "flags", "Features", "CPU part") if key in said)
