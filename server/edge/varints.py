"""Numbers as protobuf writes them, for messages that are put together from bytes, and lists that are read."""

import numpy as np

from tidegate.varints import varint

_KEPT = 2  # bytes of a number that is small


class Varints(dict[int, bytes]):
    """Numbers as protobuf writes them; small ones are kept, and cost a look-up from the second time on."""

    def __missing__(self, number: int) -> bytes:
        """Makes the bytes of a number that is not kept."""
        made = varint(number)
        if len(made) <= _KEPT:
            self[number] = made
        return made


VARINT = Varints()


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
