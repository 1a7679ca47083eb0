"""Messages whose numbers stay in their arrays until they leave: large ones are made a piece at a time.

A message of protobuf is one field after the other, and a tensor's numbers are the bytes of such a field as they lie in
memory. So none has to be put together as a whole before it is sent.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from server.edge.varints import VARINT

PIECE = 2**16  # bytes that are made at a time; a message of fewer is made at once


class Numbers:
    """The numbers of an array in their order, each written as this type; little-endian ones in all."""

    __slots__ = ("_array", "_dtype", "size")

    def __init__(self, array: np.ndarray, dtype: np.dtype[Any] | None = None) -> None:
        self._array = array
        self._dtype = dtype or array.dtype.newbyteorder("<")
        self.size = array.size * self._dtype.itemsize  # bytes

    def pieces(self) -> Iterator[bytes]:
        """Their bytes, at most PIECE at a time."""
        return self._pieces(self._array)

    def _pieces(self, x: np.ndarray) -> Iterator[bytes]:
        rows = PIECE * len(x) // (x.size * self._dtype.itemsize) if x.ndim and x.size else 1
        if not x.ndim or len(x) <= rows:
            yield x.astype(self._dtype, copy=False).tobytes()
        elif rows:
            yield from chain.from_iterable(self._pieces(x[at : at + rows]) for at in range(0, len(x), rows))
        else:
            yield from chain.from_iterable(map(self._pieces, x))


Part = bytes | Numbers


class Pieces:
    """A message of more than PIECE bytes."""

    __slots__ = ("_parts", "_size")

    def __init__(self, parts: Sequence[Part], size: int) -> None:
        self._parts, self._size = parts, size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        """Each piece is made when it is asked for."""
        for part in self._parts:
            if isinstance(part, bytes):
                yield part
            else:
                yield from part.pieces()

    def __bytes__(self) -> bytes:
        return b"".join(self)


Message = bytes | Pieces


def size_of(parts: Sequence[Part]) -> int:
    return sum([len(part) if isinstance(part, bytes) else part.size for part in parts])


def field(tag: bytes, parts: Sequence[Part]) -> list[Part]:
    """A field of a message that holds what these parts are together."""
    return [tag + VARINT[size_of(parts)], *parts]


def made_of(parts: Sequence[Part]) -> Message:
    """A small one is bytes at once."""
    whole = Pieces(parts, size_of(parts))
    return whole if len(whole) > PIECE else bytes(whole)


class Joined:
    """Messages that are one after the other: joined once, until others are asked for."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._whole = b""

    def of(self, parts: list[bytes]) -> bytes:
        if parts != self._parts:
            self._parts, self._whole = parts, b"".join(parts)
        return self._whole
