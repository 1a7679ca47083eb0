"""Messages of gRPC, cut out of the bytes that came on a stream."""

from tidegate.http2.frames import U32

PREFIX = 5  # bytes before each: whether it is compressed, and its size
_AT_ONCE = 256  # that are cut without a break, in a third of a millisecond


def size_of(part: bytearray) -> int:
    """The bytes of the first message with its prefix; 0: its prefix is not here."""
    return PREFIX + U32.unpack_from(part, 1)[0] if len(part) >= PREFIX else 0


def begins_whole(part: bytearray) -> bool:
    """Whether the first message is here to its end."""
    return 0 < size_of(part) <= len(part)


def cut(part: bytearray, most: int) -> tuple[list[tuple[bytes, bool]], str]:
    """Takes out messages that are whole, a few hundred at once; each, and whether it is compressed.

    And says what is wrong with the next one.

    Args:
        part: what came, from the beginning of a message on.
        most: bytes of a message.
    """
    those, at, fault, have = list[tuple[bytes, bool]](), 0, "", len(part)
    with memoryview(part) as view:  # it is cut once
        while have - at >= PREFIX and len(those) < _AT_ONCE:
            size, compressed = U32.unpack_from(part, at + 1)[0], part[at]
            end = at + PREFIX + size
            if compressed > 1:
                fault = f"a message says of its compression {compressed}; expected 0 or 1"
            elif size > most:
                fault = f"a message of {size} bytes came; {most} is the limit"
            if fault or have < end:
                break
            those.append((bytes(view[at + PREFIX : end]), compressed == 1))
            at = end
    del part[:at]
    return those, fault
