"""A message that is larger than its stream's window: let in once it is asked for and there is room for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from server.edge.http2.connection import Connection
    from server.edge.http2.stream import CallStream

_LOOKS = 10  # so many times `silent_seconds` a message may take that does come on


class LargeMessage:
    """From its first bytes until it is whole, or its call has ended.

    Args:
        connection: that it comes on.
        stream: its own.
        size: of the message, in bytes.
        late: called with a sentence if nothing of it comes for `silent_seconds`, or it takes ten times as long.
    """

    def __init__(self, connection: Connection, stream: CallStream, size: int, late: Callable[[str], None]) -> None:
        self._connection = connection
        self._stream = stream
        self._size = size
        self._late = late
        self._give_back: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._came = 0  # bytes, when it was looked at last
        self._looks = 0

    def ask(self) -> None:
        """Its reader waits for it: asks for room, once."""
        if self._give_back is None:
            rooms, address = self._connection.server.rooms, self._connection.address
            self._give_back = rooms.take(address, self._size, self._let_in)

    def end(self) -> None:
        """It is whole, or will never be."""
        if self._timer is not None:
            self._timer.cancel()
        if self._give_back is not None:
            self._give_back()

    def _let_in(self) -> None:
        self._stream.make_room(self._size)
        self._look_later()

    def _look_later(self) -> None:
        self._came, self._looks = len(self._stream.part), self._looks + 1
        server = self._connection.server
        self._timer = server.loop.call_later(server.options.silent_seconds, self._look)

    def _look(self) -> None:
        if len(self._stream.part) > self._came and self._looks < _LOOKS:
            return self._look_later()
        seconds = self._connection.server.options.silent_seconds * (1 if self._looks < _LOOKS else _LOOKS)
        return self._late(f"of a message of {self._size} bytes {self._came} came, and no more within {seconds:g} s")
