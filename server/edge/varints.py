"""Numbers and tags as protobuf writes them, for messages that are put together from bytes, and lists that are read."""

import numpy as np
from google.protobuf.message import Message

_KEPT = 2  # bytes of a number that is small


class Varints(dict[int, bytes]):
    """Numbers as protobuf writes them; small ones are kept, and cost a look-up from the second time on."""

    def __missing__(self, number: int) -> bytes:
        """Makes the bytes of a number that is not kept."""
        if 2**14 <= number < 2**21:  # steps of sequences that live long
            return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14))
        start, digits = number, bytearray()
        while number > 0x7F:
            digits.append(number & 0x7F | 0x80)
            number >>= 7
        digits.append(number)
        made = bytes(digits)
        if len(made) <= _KEPT:
            self[start] = made
        return made


class Numbers(dict[bytes, int]):
    """What such bytes stand for; those of small numbers are kept likewise."""

    def __missing__(self, digits: bytes) -> int:
        """Reads bytes that are not kept."""
        number = sum([(digit & 0x7F) << 7 * place for place, digit in enumerate(digits)])
        if len(digits) <= _KEPT:
            self[digits] = number
        return number


VARINT, NUMBER = Varints(), Numbers()


def tag(message: type[Message], field: str, kind: int) -> bytes:
    """The tag of a field, with which protobuf begins it. `kind`: 0 is a number, 2 a value with a length."""
    return bytes([message.DESCRIPTOR.fields_by_name[field].number << 3 | kind])


def packed(field: bytes) -> np.ndarray:
    """The numbers [N] of a packed list, from the bytes of its field; those below 0 are from 2^63 on."""
    start = 2
    while field[start - 1] >= 0x80:  # how many bytes follow
        start += 1
    digits = np.frombuffer(field, np.uint8, offset=start)
    last = np.flatnonzero(digits < 0x80)
    sizes = np.diff(last, prepend=-1)
    numbers = np.zeros(len(last), np.uint64)
    for at in range(int(sizes.max(initial=0))):
        longer = sizes > at
        more = digits[(last - sizes + 1 + at)[longer]] & 0x7F
        numbers[longer] |= more.astype(np.uint64) << np.uint64(7 * at)
    return numbers
