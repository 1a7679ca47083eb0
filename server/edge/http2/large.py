"""A message that is larger than its stream's window: let in once it is asked for and there is room for it.

So many bytes of one address have room at a time, in their order. And what is not read at the end of a call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tidegate.http2.frames import FRAME_SIZE, Code

if TYPE_CHECKING:
    import asyncio

    from server.edge.http2.connection import Connection
    from server.edge.http2.stream import CallStream

_PATIENCE = 3  # so many times `silent_seconds` a client may read less than a frame of what waits for it
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
        self._came, self._looks = self._stream.came, self._looks + 1
        server = self._connection.server
        self._timer = server.loop.call_later(server.options.silent_seconds, self._look)

    def _look(self) -> None:
        if self._stream.came > self._came and self._looks < _LOOKS:
            return self._look_later()
        seconds = self._connection.server.options.silent_seconds * (1 if self._looks < _LOOKS else _LOOKS)
        return self._late(f"of a message of {self._size} bytes {self._came} came, and no more within {seconds:g} s")


class Unread:
    """What waits for its client once the handler has ended: the call ends if for a time too little of it is read.

    Args:
        connection: that it leaves by.
        stream: its own.
    """

    def __init__(self, connection: Connection, stream: CallStream) -> None:
        self._stream = stream
        self._loop = connection.server.loop
        self._seconds = _PATIENCE * connection.server.options.silent_seconds
        self._look_later()

    def _look_later(self) -> None:
        self._sent = self._stream.sent
        self._timer = self._loop.call_later(self._seconds, self._look)

    def _look(self) -> None:
        if self._stream.sent >= self._sent + FRAME_SIZE:
            self._look_later()
        else:
            self._stream.refuse(Code.CANCEL)  # a status would come after what is not read

    def end(self, _: object) -> None:
        """The call has ended."""
        self._timer.cancel()


class Rooms:
    """Of all connections. A message that finds no room waits unread at its client."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._taken = 0
        self._of: dict[str, _Address] = {}

    def take(self, address: str, size: int, ready: Callable[[], None]) -> Callable[[], None]:
        """Calls `ready` once there is room for so many bytes. The function that is returned gives the room back."""
        claim = _Claim(address, size, ready)
        self._of.setdefault(address, _Address()).waiting.append(claim)
        self._serve(address)
        return lambda: self._give_back(claim)

    def _serve(self, address: str) -> None:
        """Whoever is first in its address's line gets room; a message alone always does, however large it is."""
        line = self._of[address]
        while line.waiting:
            claim = line.waiting[0]
            if line.taken and line.taken + claim.size > self._most_of_one:
                return
            if self._taken and self._taken + claim.size > self._most:
                return
            line.waiting.popleft()
            claim.granted = True
            line.taken += claim.size
            self._taken += claim.size
            claim.ready()

    def _give_back(self, claim: _Claim) -> None:
        if claim.gone:
            return
        claim.gone = True
        del claim.ready  # it refers to what refers to this claim
        line = self._of[claim.address]
        if claim.granted:
            line.taken -= claim.size
            self._taken -= claim.size
        else:
            line.waiting.remove(claim)
        if not line.waiting and not line.taken:
            del self._of[claim.address]
        for address in list(self._of):
            self._serve(address)


class _Address:
    def __init__(self) -> None:
        self.taken = 0
        self.waiting: deque[_Claim] = deque()


class _Claim:
    def __init__(self, address: str, size: int, ready: Callable[[], None]) -> None:
        self.address = address
        self.size = size
        self.ready = ready
        self.granted = False
        self.gone = False
