"""What a model is made of on disk: model.onnx, model.toml, and files beside it that hold weights. Each is read once.

Everything that comes of a model comes of these bytes, and `Prints` are the hashes of the same bytes.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from stepgraph.errors import ModelRefused
from stepgraph.file import sidecar, tensors
from stepgraph.file.sidecar import Sidecar
from stepgraph.graphs import weights
from stepgraph.graphs.nodes import copied
from stepgraph.graphs.ordering import order

_CHUNK = 2**20
_MOST = 2**31 - 2**20  # bytes of a model.onnx: what one message holds


@dataclass(frozen=True)
class Prints:
    """The sha256 of each file of a model. `weights` are of files beside it, by their path from its folder."""

    model: str
    sidecar: str | None
    weights: Mapping[str, str]

    def still_hold(self, path: Path) -> bool:
        try:
            others = {name: hashed(path.parent / name) for name in self.weights}
            return outer(path) == (self.model, self.sidecar) and others == self.weights
        except (OSError, ModelRefused):
            return False

    @property
    def whole(self) -> str:
        """One sha256 for all: that of model.onnx where all weights lie in it and no model.toml is beside it."""
        if not self.weights and self.sidecar is None:
            return self.model
        lines = [f"{self.model}\n", *(f"{each}  {name}\n" for name, each in sorted(self.weights.items()))]
        if self.sidecar is not None:
            lines.append(f"{sidecar.FILE} {self.sidecar}\n")  # in another form: weights may lie in a file of any name
        return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Outline:
    """A model.onnx and its model.toml as they were read, with their hashes; weights in other files are not in it.

    `weights` are those of `graphs.weights`, to be kept as long as the model or a copy of it.
    """

    model: onnx.ModelProto
    said: Sidecar
    outer: tuple[str, str | None]
    weights: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True, eq=False)
class Content:
    """A model as it was read, its weights in it, wherever they lay."""

    model: onnx.ModelProto
    said: Sidecar
    prints: Prints
    weights: tuple[np.ndarray, ...] = ()  # as in `Outline`


def read(path: Path) -> Content:
    """Reads all files of the model `path`.

    Raises:
        ModelRefused: one of them is missing, is no ordinary file or is damaged, or lies outside the model's folder.
    """
    return complete(outline(path), path.parent)


def outline(path: Path) -> Outline:
    """Reads model.onnx and model.toml. Raises as `read`."""
    _check_size(path)
    beside = path.with_name(sidecar.FILE)
    said = _bytes(beside) if beside.exists() else None
    model, digest = _parsed(path)
    for tensor in model.graph.initializer:
        tensors.check(tensor)
    taken = tuple(weights.take(model.graph))
    hashes = digest, None if said is None else hashlib.sha256(said).hexdigest()
    return Outline(copied(model) if taken else model, Sidecar() if said is None else sidecar.parse(said), hashes, taken)


def _parsed(path: Path) -> tuple[onnx.ModelProto, str]:
    """The model in a file, and the hash of its bytes, which are not kept."""
    content = _bytes(path)
    return parse(content), hashlib.sha256(content).hexdigest()


def complete(outline: Outline, folder: Path) -> Content:
    """Puts the weights that lie in other files of the folder into the model. Raises as `read`."""
    taken = list(outline.weights)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in _take_in(outline.model, folder, taken)}
    return Content(outline.model, outline.said, Prints(*outline.outer, hashes), tuple(taken))


def parse(content: bytes) -> onnx.ModelProto:
    """The model in the bytes of a model.onnx, without the weights that lie in other files."""
    advice = "Is the file complete, and is it an ONNX file? Export or copy it once more"
    if not content:
        raise ModelRefused(f"the file is empty. {advice}")
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise ModelRefused(f"the file cannot be read as an ONNX model: {error}. {advice}") from error
    if not model.HasField("graph"):
        raise ModelRefused(f"the file holds no graph, so it is no ONNX model. {advice}")
    order(model.graph)
    return model


def outer(path: Path) -> tuple[str, str | None]:
    beside = path.with_name(sidecar.FILE)
    return hashed(path), hashed(beside) if beside.exists() else None


def hashed(path: Path) -> str:
    with _opened(path) as file:
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _bytes(path: Path) -> bytes:
    with _opened(path) as file:
        content: bytes = file.read()
    return content


def _opened(path: Path) -> BinaryIO:
    """A file to read. Never waits for a writer, should it be a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise ModelRefused(f"'{path.name}' is no ordinary file, and only those are read")


def _take_in(model: onnx.ModelProto, folder: Path, taken: list[np.ndarray]) -> Iterator[tuple[str, bytes]]:
    """Puts the weights that lie in other files into the model, or large ones into `taken`; yields each file, once."""
    files: dict[str, bytes] = {}
    initializers = {tensor.name for tensor in model.graph.initializer}
    for tensor in tensors.within(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL or weights.is_kept(tensor):
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = _location(tensor, entries.get("location", ""))
        if location not in files:
            name = _renamed(location, folder)
            files[location] = _beside(tensor, name, folder)
            yield name, files[location]
        part = _part(tensor, entries, files[location])
        if tensor.name in initializers and weights.is_large(tensor):
            taken.append(weights.put(tensor, part))
            continue
        tensor.raw_data = bytes(part)
        tensor.ClearField("data_location")
        del tensor.external_data[:]


def _location(tensor: onnx.TensorProto, location: str) -> str:
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    if not location or "\0" in location or posix.is_absolute() or windows.anchor or ".." in windows.parts:
        raise ModelRefused(
            f"{tensors.label(tensor)} wants its weights from '{location}': only files in the model's own folder are "
            "read. Put the file beside model.onnx and save the model with its plain name"
        )
    return location


def _renamed(location: str, folder: Path) -> str:
    """The file that holds the weights: the only one that ends as torch calls it, if there is none of the name."""
    others = [] if (folder / location).exists() else [path.name for path in folder.glob("*.onnx.data")]
    return others[0] if len(others) == 1 and location.endswith(".onnx.data") else location


def _check_size(path: Path) -> None:
    size = path.stat().st_size if path.is_file() else 0
    if size > _MOST:
        raise ModelRefused(
            f"the file has {size / 2**30:.1f} GiB, and a file of ONNX can hold no more than 2. Save it with its "
            "weights in a file beside it: onnx.save(model, path, save_as_external_data=True)"
        )


def _beside(tensor: onnx.TensorProto, name: str, folder: Path) -> bytes:
    path, home = (folder / name).resolve(), folder.resolve()
    if not path.is_relative_to(home):
        raise ModelRefused(
            f"{tensors.label(tensor)} wants its weights from '{name}', which links to a file outside the model's own "
            "folder: put the file itself there"
        )
    try:
        return _bytes(path)
    except OSError as error:
        raise ModelRefused(
            f"{tensors.label(tensor)} wants its weights from '{name}', and that file cannot be read: "
            f"{error.strerror or error}. Copy it into the folder of model.onnx"
        ) from error


def _part(tensor: onnx.TensorProto, entries: Mapping[str, str], content: bytes) -> memoryview:
    offset, length = (_number(tensor, key, entries.get(key)) for key in ("offset", "length"))
    start = offset or 0
    end = len(content) if length is None else start + length
    if end > len(content) or start > end:
        raise ModelRefused(
            f"{tensors.label(tensor)} wants the bytes {start} to {end} of '{entries['location']}', which has "
            f"{len(content)}: one of the two files is damaged, or of another export"
        )
    tensors.check_size(tensor, end - start)
    return memoryview(content)[start:end]


def _number(tensor: onnx.TensorProto, key: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise ModelRefused(f"{tensors.label(tensor)} gives '{text[:40]}' as the {key} of its weights")
    return int(text)
