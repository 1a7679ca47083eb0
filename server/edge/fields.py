"""Parses messages; whether one has more fields than an honest one of its size is found out before protobuf does it.

protobuf makes an object of each field, and holds the interpreter's lock: 4 MiB of empty fields stop it for 0.3 s. It
also copies each value, and so does whoever asks it for one: large ones stay where they are instead.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Generic, TypeVar, cast

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from server.edge.varints import VARINT
from server.errors import OverLimit, Refusal

Read = TypeVar("Read", bound=Message)
Buffer = bytes | bytearray | memoryview
Beside = Mapping[bytes, memoryview]

SMALL = 2**16  # bytes: a message of so many is read in a few ms, whatever it holds
_LARGE = 2**18  # bytes of a value: to copy it takes a tenth of a millisecond
_MARK = 16  # bytes that nobody can guess
_MOST = 5_120  # fields that are looked at one by one: some milliseconds
_BESIDE = 64  # fields of a message beside those that it is split by
_MOST_ALIKE = 2**17  # elements of lists
_FEW_ALIKE = 64  # fields that are compared at first
_DEEPEST = 100  # messages in messages: protobuf takes no more
_LENGTH = 2  # the kind of a field on the wire that says how long it is
_FIXED = {1: 8, 5: 4}  # bytes of a field of these kinds


NOTHING: Beside = {}


@dataclass(frozen=True, slots=True, eq=False)
class Cut(Generic[Read]):
    """A message, and large values of it that lie beside: in their place it has the bytes by which they are found."""

    message: Read
    beside: Beside


def parsed(kind: type[Read], data: Buffer) -> Read:
    """A message of this kind. Raises Refusal: it is none, or parsing it would take long."""
    if len(data) > SMALL:
        check_fields(data, kind)
    return _parsed(kind, data)


def cut(kind: type[Read], data: Buffer) -> Cut[Read]:
    """Likewise; its large values of bytes are not copied."""
    if len(data) <= SMALL:
        return Cut(_parsed(kind, data), NOTHING)
    look = _looked_through(data, kind)
    return Cut(_parsed(kind, b"".join(look.parts) if look.beside else data), look.beside)


def _parsed(kind: type[Read], data: Buffer) -> Read:
    try:
        return kind.FromString(data)  # type: ignore[arg-type] # it takes any buffer
    except DecodeError:
        raise _no(kind) from None


def _no(kind: type[Message]) -> Refusal:
    return Refusal(f"a message came that is no {kind.DESCRIPTOR.name}")


def check_fields(data: Buffer, kind: type[Message]) -> None:
    """Whether a message of more than SMALL bytes is parsed quickly. Raises OverLimit; Refusal: it breaks off."""
    _looked_through(data, kind)


def _looked_through(data: Buffer, kind: type[Message]) -> "_Look":
    look = _Look(data)
    try:
        look.parts = look.through(0, len(data), cast("Descriptor", kind.DESCRIPTOR))
    except IndexError:
        raise _no(kind) from None
    return look


def split(data: Buffer, number: int, most: int) -> list[Buffer]:
    """A message without its fields of a number, and then each of these fields; the whole message, if it is cut short.

    Raises:
        OverLimit: they are too many.
    """
    parts, rest, at, view = list[Buffer](), list[memoryview](), 0, memoryview(data)
    try:
        for _ in range(most + _BESIDE):
            begin, (tag, start, at) = at, _field(data, at)
            if tag == number << 3 | _LENGTH:
                parts.append(view[start:at])
            else:
                rest.append(view[begin:at])
            if at >= len(data):
                break
    except IndexError:
        return [data]
    if at < len(data) or len(parts) >= most:
        raise _too_many()
    if at != len(data) or not parts:
        return [data]
    return [rest[0] if len(rest) == 1 else b"".join(rest), *parts]


class _Look:
    """Counts the fields of one message, and finds its large values."""

    def __init__(self, data: Buffer) -> None:
        self.parts: list[Buffer] = []  # of the message without its large values
        self.beside: dict[bytes, memoryview] = {}
        self._data, self._view = data, memoryview(data).toreadonly()
        self._fields = self._elements = 0

    def through(self, at: int, end: int, kind: Descriptor, depth: int = 0) -> list[Buffer]:
        """Counts the fields of the message at this place, and of the messages in it; its bytes without large values."""
        if depth > _DEEPEST or end > len(self._data):
            raise IndexError
        data, fields, parts, done = self._data, _fields(kind), list[Buffer](), at  # all up to `done` is in the parts
        while at < end:
            self._fields += 1
            if self._fields > _MOST:
                raise _too_many()
            begin, (tag, start, at) = at, _field(data, at)
            if tag & 7 != _LENGTH:
                continue
            size = at - start
            inner, weight, bytes_ = fields.get(tag >> 3, (None, 0, False))
            if inner is not None and size:
                value = self.through(start, at, inner, depth + 1)
            elif bytes_ and size > _LARGE and at <= end:
                value = [self._put_beside(start, at)]
            else:
                alike = self._alike(begin, start, at, end) if at < end and data[at] == data[begin] else 1
                self._elements += alike * (max(size, 1) if weight else 1)
                if self._elements > _MOST_ALIKE:
                    raise _too_many()
                at = begin + alike * (at - begin)
                continue
            if (left := sum(map(len, value))) < size:
                parts += (self._view[done:begin], VARINT[tag] + VARINT[left], *value)
                done = at
        if at > end:
            raise IndexError
        parts.append(self._view[done:end])
        return parts

    def _put_beside(self, start: int, end: int) -> bytes:
        mark = secrets.token_bytes(_MARK)
        self.beside[mark] = self._view[start:end]
        return mark

    def _alike(self, begin: int, start: int, body: int, end: int) -> int:
        """How many fields of the same number and length follow each other here."""
        head, stride = self._view[begin:start], body - begin
        if self._view[body : body + len(head)] != head:
            return 1
        most, count, looked = min((end - begin) // stride, _MOST_ALIKE + 1), 0, _FEW_ALIKE
        while count < most:  # ever more at a time: what is looked at is in proportion to how many are alike
            rows = min(looked, most - count)
            table = np.frombuffer(self._data, np.uint8, rows * stride, begin + count * stride).reshape(rows, stride)
            same = np.logical_and.reduce([table[:, at] == byte for at, byte in enumerate(head)])
            if not same.all():
                return count + int(np.argmin(same))
            count, looked = count + rows, 4 * looked
        return count


def _too_many() -> OverLimit:
    return OverLimit("a message came that consists of too many fields; send fewer requests in one")


def _field(data: Buffer, at: int) -> tuple[int, int, int]:
    """The tag of the field at this place, where its value begins, and where it ends. Raises IndexError."""
    tag, number = data[at], data[at + 1]
    if tag < 0x80 and tag & 7 == _LENGTH and number < 0x80:  # nearly always
        return tag, at + 2, at + 2 + number
    tag, start = _varint(data, at)
    number, end = _varint(data, start)
    match tag & 7:
        case 0:
            return tag, start, end
        case 2:
            return tag, end, end + number
        case kind if kind in _FIXED:
            return tag, start, start + _FIXED[kind]
    raise IndexError  # a group, which no message here has, or nothing


def _varint(data: Buffer, at: int) -> tuple[int, int]:
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
def _fields(of: Descriptor) -> Mapping[int, tuple[Descriptor | None, bool, bool]]:
    """By number: the message that a field holds, whether an element of its list may take one byte, if it is bytes."""
    kind = FieldDescriptor
    fixed = kind.TYPE_FLOAT, kind.TYPE_DOUBLE, kind.TYPE_FIXED32, kind.TYPE_FIXED64
    text = kind.TYPE_STRING, kind.TYPE_BYTES
    return {f.number: (f.message_type, f.type not in (*fixed, *text), f.type == kind.TYPE_BYTES) for f in of.fields}
