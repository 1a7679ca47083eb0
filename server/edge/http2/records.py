"""Where the records of TLS begin in the bytes of a connection, by their heads. Pure; knows no keys."""

from collections.abc import Iterator

_HEAD = 5  # bytes: the type, the version, and the length of what follows
_MOST = 64  # records of one part


class Records:
    """Of one direction of a connection, from the beginning of a record on."""

    def __init__(self) -> None:
        self._at = 0  # where the next record begins in what comes next; below 0: some of its head has come
        self._head = b""  # that some

    def parts(self, data: memoryview) -> Iterator[tuple[memoryview, int]]:
        """`data` in parts in each of which at most 64 records begin, and how many do."""
        start, begun, at = 0, 0, self._at
        while at + _HEAD <= len(data):
            if begun == _MOST:
                yield data[start:at], begun
                start, begun = at, 0
            head = data[at : at + _HEAD] if at >= 0 else self._head + bytes(data[: at + _HEAD])
            at += _HEAD + (head[3] << 8 | head[4])
            begun += 1
        self._head = bytes(data[at:]) if at >= 0 else self._head + bytes(data)
        self._at = at - len(data)
        yield data[start:], begun
