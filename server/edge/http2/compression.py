"""Messages that a client has compressed by gzip or deflate; their size is bounded while they are decompressed."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from server.edge.fields import Buffer

ACCEPTED = "identity,gzip,deflate"
_WINDOW_BITS = {"gzip": 31, "deflate": 15}


@dataclass(frozen=True)
class Unreadable:
    """Why a message is not read. A value: an exception would keep the frames that it passed, with their messages."""

    why: str
    too_large: bool = False  # else its bytes are no message of that compression


def knows(encoding: str) -> bool:
    return encoding == "identity" or encoding in _WINDOW_BITS


def decompressed(data: Buffer, encoding: str, most: int) -> bytes | Unreadable:
    """A message of at most so many bytes."""
    if encoding not in _WINDOW_BITS:
        return Unreadable("a message says that it is compressed, and its call names no compression")
    reader = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        message = reader.decompress(data, most + 1)
    except zlib.error as error:
        return Unreadable(f"a message cannot be decompressed as {encoding}: {error}")
    if len(message) > most:
        why = f"a message of more than {most} bytes came, compressed to {len(data)}; {most} is the limit"
        return Unreadable(why, too_large=True)
    if not reader.eof or reader.unused_data:
        return Unreadable(f"a message is cut, or has bytes after its end, as {encoding}")
    return message


class Decompressing:
    """The messages of a call, one after the other, in a thread, because each takes milliseconds."""

    __slots__ = ("_work",)

    def __init__(self) -> None:
        self._work: Any = None  # an asyncio.Future

    def read(
        self, data: Buffer, encoding: str, most: int, aside: Callable[[Any], Any], came: Callable[[], None]
    ) -> bytes | Unreadable | None:
        """Like `decompressed`, which `aside` begins; None: it is being done, and `came` will be called."""
        if self._work is None:
            self._work = aside(partial(decompressed, data, encoding, most))
            self._work.add_done_callback(lambda _: came())
        if not self._work.done():
            return None
        done, self._work = self._work, None
        read: bytes | Unreadable = done.result()
        return read
