"""The streams of a connection that have more to send than there is room for, in its window or in a turn of the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.edge.http2.codec import Codec
    from server.edge.http2.stream import CallStream

_TURN = 2**17  # bytes that leave before others have their turn


class Blocked(dict[int, "CallStream"]):
    """By number, in the order in which they go on.

    Args:
        later: has `go_on` called in a turn of the loop to come.
    """

    def __init__(self, later: Callable[[], None]) -> None:
        super().__init__()
        self.room = _TURN  # bytes that may still leave in this turn
        self._later = later
        self._due = False

    def add(self, stream: CallStream) -> None:
        """It goes on in a turn to come, or once there is credit."""
        self[stream.id] = stream
        if not self._due:
            self._due = True
            self._later()

    def go_on(self, codec: Codec) -> None:
        """A turn begins."""
        self._due, self.room = False, _TURN
        self.drain(codec)

    def drain(self, codec: Codec) -> None:
        """One after the other, while there is room: else a little credit would have a thousand streams looked at."""
        while self and codec.send_room > 0 and self.room > 0:
            self.pop(next(iter(self))).drain()
