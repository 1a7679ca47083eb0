"""Numbers, and fields that hold one, as protobuf writes them: for messages that are put together from bytes."""

from typing import Any

_KEPT = 2  # bytes of a number that is small


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    if 2**14 <= number < 2**21:  # steps of sequences that live long
        return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14))
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def tag(message: Any, field: str, kind: int) -> bytes:  # noqa: ANN401 # a message's type
    """The tag of a field, with which protobuf begins it. `kind`: 0 is a number, 2 a value with a length."""
    return bytes([message.DESCRIPTOR.fields_by_name[field].number << 3 | kind])


_DIGITS = rb"[\x80-\xff]{0,%d}[\x00-\x7f]"
A_NUMBER, A_HANDLE = _DIGITS % 7, _DIGITS % 3  # as patterns; longer ones are read by protobuf


class Fields(dict[int, bytes]):
    """One field of a message by its number, or by the length of its value, which follows then.

    Those of small numbers are kept, and cost a look-up from the second time on. A number of 0 is left out.
    """

    def __init__(self, message: Any, field: str, kind: int = 0) -> None:  # noqa: ANN401 # a message's type
        super().__init__({} if kind else {0: b""})
        self._tag = tag(message, field, kind)

    def __missing__(self, number: int) -> bytes:
        """Makes the bytes of a field that is not kept."""
        made = self._tag + varint(number)
        if len(made) <= len(self._tag) + _KEPT:
            self[number] = made
        return made


class Numbers(dict[bytes, int]):
    """What the bytes of a number stand for; those of small ones are kept likewise."""

    def __missing__(self, digits: bytes) -> int:
        """Reads bytes that are not kept."""
        number = sum([(digit & 0x7F) << 7 * place for place, digit in enumerate(digits)])
        if len(digits) <= _KEPT:
            self[digits] = number
        return number


NUMBER = Numbers()
