"""Messages that a client has compressed by gzip or deflate; their size is bounded while they are decompressed."""

import zlib

ACCEPTED = "identity,gzip,deflate"
_WINDOW_BITS = {"gzip": 31, "deflate": 15}


class TooLarge(Exception):
    """The message is larger than a message may be."""


class NotReadable(Exception):
    """The bytes are no message of that compression."""


def knows(encoding: str) -> bool:
    return encoding == "identity" or encoding in _WINDOW_BITS


def decompressed(data: bytes, encoding: str, most: int) -> bytes:
    """Raises TooLarge, NotReadable."""
    if encoding not in _WINDOW_BITS:
        raise NotReadable("a message says that it is compressed, and its call names no compression")
    reader = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        message = reader.decompress(data, most + 1)
    except zlib.error as error:
        raise NotReadable(f"a message cannot be decompressed as {encoding}: {error}") from error
    if len(message) > most:
        del message  # or the error's frames would keep it
        raise TooLarge(f"a message of more than {most} bytes came, compressed to {len(data)}; {most} is the limit")
    if not reader.eof or reader.unused_data:
        raise NotReadable(f"a message is cut, or has bytes after its end, as {encoding}")
    return message
