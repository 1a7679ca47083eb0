"""What a connection's codec, and each of its streams, tell those who use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from server.edge.fields import Buffer
    from server.edge.http2.fields import Request
    from server.edge.http2.stream import CallStream


class Receiver(Protocol):
    """What is done with the messages of a stream."""

    def message(self, data: Buffer, compressed: bool) -> None:
        """A message came; its bytes count as unread until `CallStream.took` is called."""

    def large(self, size: int) -> None:
        """A message of so many bytes begins that needs `CallStream.make_room` to come whole."""

    def half_closed(self) -> None:
        """The client has sent its last message."""

    def writable(self) -> None:
        """All that was sent is on its way."""

    def gone(self) -> None:
        """The stream has ended; nothing comes any more. Called once."""


Refusal = tuple[int, str]  # a status of gRPC, and its details


class Acceptor(Protocol):
    """What is done with a connection's calls."""

    def begin(self, stream: CallStream, request: Request) -> Refusal | None:
        """Sets the stream's receiver, or says why not."""

    def answered_ping(self) -> None:
        """The client has answered a ping."""

    def write_later(self) -> None:
        """Has `Blocked.go_on` called in a turn of the loop to come."""


class _Nobody:
    """Takes nothing, for a call that is refused."""

    def message(self, data: Buffer, compressed: bool) -> None: ...
    def large(self, size: int) -> None: ...
    def half_closed(self) -> None: ...
    def writable(self) -> None: ...
    def gone(self) -> None: ...


NOBODY = _Nobody()
