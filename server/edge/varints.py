"""Numbers and tags as protobuf writes them, for messages that are put together from bytes that are kept."""

from google.protobuf.message import Message


class Varints(dict[int, bytes]):
    """Numbers as protobuf writes them; small ones are kept, and cost a look-up."""

    def __missing__(self, number: int) -> bytes:
        """Makes the bytes of a number that is not kept."""
        if 2**14 <= number < 2**21:  # steps of sequences that live long
            return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14))
        digits = bytearray()
        while number > 0x7F:
            digits.append(number & 0x7F | 0x80)
            number >>= 7
        digits.append(number)
        return bytes(digits)


VARINT = Varints()
VARINT.update({number: VARINT[number] for number in range(2**14)})


def tag(message: type[Message], field: str, kind: int) -> bytes:
    """The tag of a field, with which protobuf begins it. `kind`: 0 is a number, 2 a value with a length."""
    return bytes([message.DESCRIPTOR.fields_by_name[field].number << 3 | kind])
