"""A codec without a socket, an HTTP/2 client of another library beside it (`h2`), and what its calls received."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events

from server.edge.http2.codec import Codec
from server.edge.http2.limits import Limits

if TYPE_CHECKING:
    from server.edge.http2.fields import Request
    from server.edge.http2.receiver import Refusal
    from server.edge.http2.stream import CallStream

METHOD = "/t.T/Echo"
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", METHOD),
    (":authority", "x"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


class Received:
    """A receiver that keeps what it is told; it takes each message at once, unless it is `idle`."""

    def __init__(self, stream: CallStream, request: Request, idle: bool = False) -> None:
        self.stream, self.request, self.idle = stream, request, idle
        self.messages: list[bytes] = []
        self.sizes: list[int] = []  # of large messages that began
        self.ended = self.is_gone = False
        self.times_writable = 0

    def message(self, data: bytes, compressed: bool) -> None:
        assert not compressed
        self.messages.append(data)
        if not self.idle:
            self.stream.took(len(data))

    def large(self, size: int) -> None:
        self.sizes.append(size)
        if not self.idle:
            self.stream.make_room(size)

    def half_closed(self) -> None:
        self.ended = True

    def writable(self) -> None:
        self.times_writable += 1

    def gone(self) -> None:
        assert not self.is_gone
        self.is_gone = True


class Side:
    """The server's side: a codec, and the calls that it was asked for."""

    def __init__(self, limits: Limits | None = None, idle: bool = False) -> None:
        self.now = 0.0
        self.out: list[bytes] = []
        self.calls: list[Received] = []
        self.writes_later = False
        self._idle = idle
        self.codec = Codec(self, limits or Limits(), self.out.append, lambda: self.now)
        self.codec.begin()

    def begin(self, stream: CallStream, request: Request) -> Refusal | None:
        if request.path != METHOD:
            return 12, f"there is no method {request.path}"
        stream.receiver = Received(stream, request, self._idle)
        self.calls.append(stream.receiver)
        return None

    def answered_ping(self) -> None: ...

    def write_later(self) -> None:
        self.writes_later = True

    def said(self) -> bytes:
        """What is to be sent since this was asked last, and then in a turn of the loop, if one was asked for."""
        if self.writes_later:
            self.writes_later = False
            self.codec.blocked.go_on(self.codec)
        data = b"".join(self.out)
        self.out.clear()
        return data


class Wired(Side):
    """With a client of the package h2, which checks all that the codec sends."""

    def __init__(self, limits: Limits | None = None, idle: bool = False) -> None:
        super().__init__(limits, idle)
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.client.initiate_connection()
        self.events: list[h2.events.Event] = []
        self.exchange()

    def exchange(self) -> None:
        """Carries bytes both ways until neither side has any."""
        while True:
            up = self.client.data_to_send()
            if up:
                self.codec.receive(up)
            down = self.said()
            if down:
                self.events += self.client.receive_data(down)
            if not up and not down:
                return

    def call(self, *more: tuple[str, str], end: bool = False) -> int:
        """Begins a call, and returns its stream."""
        number = self.client.get_next_available_stream_id()
        self.client.send_headers(number, [*HEADERS, *more], end_stream=end)
        self.exchange()
        return number

    def of(self, kind: type[h2.events.Event]) -> list[h2.events.Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def data(self, number: int) -> bytes:
        """What came on a stream; it is acknowledged."""
        events = [e for e in self.of(h2.events.DataReceived) if e.stream_id == number]
        for event in events:
            self.client.acknowledge_received_data(event.flow_controlled_length, number)
            self.events.remove(event)
        self.exchange()
        return b"".join(e.data for e in events)

    def trailers(self, number: int) -> dict[str, str]:
        """The fields at the end of a call."""
        kinds = (h2.events.TrailersReceived, h2.events.ResponseReceived)
        return next(dict(e.headers) for kind in kinds for e in self.of(kind) if e.stream_id == number)


def message(data: bytes) -> bytes:
    """A message of gRPC."""
    return b"\0" + len(data).to_bytes(4) + data
