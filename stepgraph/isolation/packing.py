"""Frozen dataclasses to bytes and back, with a checksum and without pickle.

Reads back nothing but values of the types that are asked for. The layout is
the mark, the sha256 of the rest, the length of the outline, the outline (JSON), and the arrays and models one by one.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import onnx

from stepgraph.graphs.weights import LARGE

T = TypeVar("T")
Blob = bytes | memoryview

_MARK = b"tidegate packed 1\n"  # a new layout gets a new number
_LENGTH = struct.Struct("<Q")
_NUMBERS = "biuf"  # kinds of arrays; objects are not among them


class Corrupt(ValueError):
    """Bytes that are damaged, or hold another type."""


def pack(value: object) -> bytes:
    """A dataclass of dataclasses, tuples, sets, mappings with text keys, arrays of numbers, models and plain values."""
    return b"".join(packed(value))


def packed(value: object) -> list[Blob]:
    """The same in parts; those of arrays are no copies."""
    blobs: list[Blob] = []
    outline = json.dumps(_outline(value, blobs)).encode()
    body, digest = [_LENGTH.pack(len(outline)), outline, *blobs], hashlib.sha256()
    for part in body:
        digest.update(part)
    return [_MARK, digest.digest(), *body]


def unpack(kind: type[T], content: bytes) -> T:
    """The dataclass of type `kind` that was packed."""
    body = memoryview(content)[len(_MARK) + hashlib.sha256().digest_size :]
    if not content.startswith(_MARK + hashlib.sha256(body).digest()):
        raise Corrupt("the mark or the checksum is wrong")
    try:
        (length,) = _LENGTH.unpack_from(body)
        outline = json.loads(bytes(body[_LENGTH.size : _LENGTH.size + length]))
        value: T = _Reader(body[_LENGTH.size + length :]).read(kind, outline)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, struct.error) as error:
        raise Corrupt(f"no {kind.__name__}: {error}") from error
    return value


def _outline(value: object, blobs: list[Blob]) -> object:
    match value:
        case None | bool() | str():
            return value
        case int() | np.integer():
            return int(value)
        case float() | np.floating():
            return float(value)
        case np.dtype():
            return value.name
        case np.ndarray():
            blobs.append(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
            return {"type": value.dtype.name, "shape": value.shape, "bytes": len(blobs[-1])}
        case onnx.ModelProto():
            blobs.append(value.SerializeToString())
            return {"bytes": len(blobs[-1])}
        case Mapping():
            return [[key, _outline(each, blobs)] for key, each in value.items()]
        case tuple() | list() | frozenset():
            return [_outline(each, blobs) for each in value]
    if is_dataclass(value):
        named = {f.name: _outline(getattr(value, f.name), blobs) for f in fields(value)}
        return {"is": type(value).__name__, "fields": named}
    raise TypeError(f"{type(value).__name__} cannot be packed")


class _Reader:
    """Takes the arrays and models in the order in which they were packed."""

    def __init__(self, blobs: memoryview) -> None:
        self._blobs = blobs

    def read(self, kind: Any, outline: Any) -> Any:  # noqa: ANN401 # whatever the types ask for
        origin, inner = get_origin(kind), get_args(kind)
        if origin in (Union, UnionType):
            return self.read(self._member(inner, outline), outline)
        if origin is tuple:
            kinds = [inner[0]] * len(outline) if inner[1:] == (...,) else inner
            return tuple(self.read(each, part) for each, part in zip(kinds, outline, strict=True))
        if origin is frozenset:
            return frozenset(self.read(inner[0], part) for part in outline)
        if origin is Mapping:
            return {str(key): self.read(inner[1], part) for key, part in outline}
        if origin is Literal:
            return inner[inner.index(outline)]
        if is_dataclass(kind):
            return self._dataclass(kind, outline)
        return self._plain(kind, outline)

    def _member(self, kinds: tuple[Any, ...], outline: Any) -> Any:  # noqa: ANN401
        """Which of several types an outline is of; of dataclasses the one of that name."""
        if outline is None:
            return kinds[kinds.index(NoneType)]
        named = outline.get("is") if isinstance(outline, dict) else None
        return next(k for k in kinds if k is not NoneType and (named is None or k.__name__ == named))

    def _dataclass(self, kind: Any, outline: Any) -> Any:  # noqa: ANN401
        types, given = get_type_hints(kind), outline["fields"]
        if outline["is"] != kind.__name__ or given.keys() != {f.name for f in fields(kind)}:
            raise Corrupt(f"no {kind.__name__}")
        return kind(**{name: self.read(types[name], part) for name, part in given.items()})

    def _plain(self, kind: Any, outline: Any) -> Any:  # noqa: ANN401
        if kind is np.ndarray:
            dtype = np.dtype(outline["type"])
            if dtype.kind not in _NUMBERS:
                raise Corrupt(f"an array of {dtype}")
            array = np.frombuffer(self._take(outline["bytes"]), dtype).reshape(outline["shape"])
            return array if array.nbytes >= LARGE and array.flags.aligned else array.copy()
        if kind is np.dtype:
            return np.dtype(outline)
        if kind is onnx.ModelProto:
            return onnx.ModelProto.FromString(bytes(self._take(outline["bytes"])))
        if kind is float and type(outline) is int:
            return float(outline)
        if kind not in (bool, int, float, str, NoneType) or type(outline) is not kind:
            raise Corrupt(f"{type(outline).__name__} where {kind} was expected")
        return outline

    def _take(self, size: int) -> memoryview:
        if not 0 <= size <= len(self._blobs):
            raise Corrupt("it ends too early")
        taken, self._blobs = self._blobs[:size], self._blobs[size:]
        return taken
