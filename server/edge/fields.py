"""Parses messages; whether one has more fields than an honest one of its size is found out before protobuf does it.

protobuf makes an object of each field, and holds the interpreter's lock: 4 MiB of empty fields stop it for 0.3 s.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import TypeVar, cast

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from server.errors import OverLimit, Refusal

Read = TypeVar("Read", bound=Message)

SMALL = 2**16  # bytes: a message of so many is read in a few ms, whatever it holds
_MOST = 12_288  # fields that are looked at one by one
_BESIDE = 64  # fields of a message beside those that it is split by
_MOST_ALIKE = 2**17  # elements of lists
_FEW_ALIKE = 64  # fields that are compared at first
_DEEPEST = 100  # messages in messages: protobuf takes no more
_LENGTH = 2  # the kind of a field on the wire that says how long it is
_FIXED = {1: 8, 5: 4}  # bytes of a field of these kinds


def parsed(kind: type[Read], data: bytes) -> Read:
    """A message of this kind. Raises Refusal: it is none, or parsing it would take long."""
    if len(data) > SMALL:
        check_fields(data, kind)
    try:
        return kind.FromString(data)
    except DecodeError:
        raise Refusal(f"a message came that is no {kind.DESCRIPTOR.name}") from None


def check_fields(data: bytes, kind: type[Message]) -> None:
    """Whether a message of more than SMALL bytes is parsed quickly, or is none. Raises OverLimit."""
    with suppress(IndexError):  # it breaks off
        _Look(data).through(0, len(data), cast("Descriptor", kind.DESCRIPTOR))


def split(data: bytes, number: int, most: int) -> list[bytes]:
    """A message without its fields of a number, and then each of these fields; the whole message, if it is cut short.

    Raises:
        OverLimit: they are too many.
    """
    parts, rest, at = list[bytes](), list[tuple[int, int]](), 0
    try:
        for _ in range(most + _BESIDE):
            begin, (tag, start, at) = at, _field(data, at)
            if tag == number << 3 | _LENGTH:
                parts.append(data[start:at])
            else:
                rest.append((begin, at))
            if at >= len(data):
                break
    except IndexError:
        return [data]
    if at < len(data) or len(parts) >= most:
        raise _too_many()
    if at != len(data) or not parts:
        return [data]
    return [b"".join(data[begin:end] for begin, end in rest), *parts]


class _Look:
    """Counts the fields of one message."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._fields = self._elements = 0

    def through(self, at: int, end: int, kind: Descriptor, depth: int = 0) -> None:
        """Counts the fields of the message at this place, and of the messages in it."""
        if depth > _DEEPEST:
            raise IndexError
        lists = _lists(kind)
        while at < end:
            self._count(0)
            begin, (tag, start, at) = at, _field(self._data, at)
            if tag & 7 != _LENGTH:
                continue
            size = at - start
            inner, weight = lists.get(tag >> 3, (None, 0))
            if inner is not None and size:
                self.through(start, min(at, end), inner, depth + 1)
            else:
                alike = self._alike(begin, start, at, end)
                self._count(alike * (max(size, 1) if weight else 1))
                at = begin + alike * (at - begin)

    def _count(self, elements: int) -> None:
        self._fields += not elements
        self._elements += elements
        if self._fields > _MOST or self._elements > _MOST_ALIKE:
            raise _too_many()

    def _alike(self, begin: int, start: int, body: int, end: int) -> int:
        """How many fields of the same number and length follow each other here."""
        head, stride = self._data[begin:start], body - begin
        if not self._data.startswith(head, body):
            return 1
        most, count, looked = min((end - begin) // stride, _MOST_ALIKE + 1), 0, _FEW_ALIKE
        while count < most:  # ever more at a time: what is looked at is in proportion to how many are alike
            rows = min(looked, most - count)
            table = np.frombuffer(self._data, np.uint8, rows * stride, begin + count * stride).reshape(rows, stride)
            same = (table[:, : len(head)] == np.frombuffer(head, np.uint8)).all(1)
            if not same.all():
                return count + int(np.argmin(same))
            count, looked = count + rows, 4 * looked
        return count


def _too_many() -> OverLimit:
    return OverLimit("a message came that consists of too many fields; send fewer requests in one")


def _field(data: bytes, at: int) -> tuple[int, int, int]:
    """The tag of the field at this place, where its value begins, and where it ends. Raises IndexError."""
    tag, start = _varint(data, at)
    number, end = _varint(data, start)
    if tag & 7 == _LENGTH:
        return tag, end, end + number
    return tag, start, start + _FIXED.get(tag & 7, end - start)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that is written at this place, and where it ends. Raises IndexError."""
    number = data[at]
    if number < 0x80:
        return number, at + 1
    number &= 0x7F
    for shift in range(7, 70, 7):
        at += 1
        number |= (data[at] & 0x7F) << shift
        if data[at] < 0x80:
            break
    return number, at + 1


@cache
def _lists(kind: Descriptor) -> Mapping[int, tuple[Descriptor | None, bool]]:
    """By number: the message that a field holds, and whether an element of it, as a list, may take a single byte."""
    fixed = FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_FIXED64
    text = FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES
    return {f.number: (f.message_type, f.type not in (*fixed, *text)) for f in kind.fields}
