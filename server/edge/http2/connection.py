"""One connection: a codec's bytes to and from a transport of asyncio, and how long a client may be silent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import islice
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, cast

from grpc import StatusCode

from server.edge.callers import address_of, peer_of
from server.edge.http2.call import Call
from server.edge.http2.codec import Codec
from tidegate.http2 import frames
from tidegate.http2.frames import Code, ConnectionFault

if TYPE_CHECKING:
    from server.edge.http2.fields import Request
    from server.edge.http2.receiver import Refusal
    from server.edge.http2.secure import SecureTransport
    from server.edge.http2.server import Http2Server
    from server.edge.http2.stream import CallStream

log = logging.getLogger(__name__)

_TURN = 0.001  # seconds of what one client sent
_PIECE = 4_096  # bytes after which the clock is looked at
_BLOCKS = 4  # blocks of header fields likewise: to begin a call costs as much as a hundred messages
_ENDS = 100  # calls of a lost connection that end without a break
_MUCH = 2**16  # bytes that wait for their turn: then no more is read
_EXHAUSTED, _UNIMPLEMENTED = (status.value[0] for status in (StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNIMPLEMENTED))
_FULL = 2**20  # bytes that may wait for the socket: then the client is not read either


class Connection(asyncio.Protocol):
    """Of one client; made by the server's listener."""

    def __init__(self, server: Http2Server) -> None:
        self.server = server
        self.peer = ""  # as grpc names it: ipv4:HOST:PORT
        self.address = ""  # of that, what its messages are counted by, as all else is
        self.full = False  # the socket takes no more for now
        self._transport: asyncio.Transport | SecureTransport
        self._codec: Codec
        self.hearing: list[Call] = []  # those of which a message, or the end, came in this read
        self._reads = False
        self._reading = server.beginners  # shares the time of a turn
        self._unread = b""  # that was read and waits for its turn
        self._waits_for_turn = False
        self._waits = self._closing = False  # nothing is read; nor written
        self._out: list[bytes] = []
        self._due = -1  # at this tick of the timers it is looked at; -1: at none
        self._heard = True  # since the timer ran last
        self._asked = False  # a ping was sent, and nothing was heard since
        self._unsent = 0  # bytes that waited for the socket when the timer ran last
        self._without_calls_since = 0.0

    @property
    def here(self) -> bool:
        """Whether the client is still connected."""
        return not self._closing

    # The transport's --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport | SecureTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport | SecureTransport", transport)
        self.address = address_of(peer := peer_of(self._transport.get_extra_info("peername")))
        if not self.server.take_in(self):
            self._closing = True
            return self._transport.abort()
        self.peer = peer
        self._transport.set_write_buffer_limits(_FULL)
        self._codec = Codec(self, self.server.options.limits, self._put, monotonic)
        self._codec.begin()
        self._without_calls_since = self.server.loop.time()
        self._look_after(self.server.options.silent_seconds)
        return None

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._closing:
            return None
        self._heard = True
        if not self._waits_for_turn and self._reading.left > 0:
            return self._take(data)
        self._unread += data
        return self._read_or_wait() if self._waits_for_turn else self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        self._waits_for_turn = True
        self._reading.wait(self._take_turn)
        self._read_or_wait()

    def _take_turn(self) -> None:
        data, self._unread, self._waits_for_turn = self._unread, b"", False
        self._take(data)

    def _take(self, data: bytes) -> None:
        """Takes what was read, for `_TURN` at most; what is left waits until others had their turn."""
        at, size, reading, began = 0, len(data), self._reading, perf_counter()
        now, ends = began, began + min(_TURN, reading.left)
        while at < size and (now < ends or not at) and not self._closing:
            piece = data[at : at + _PIECE]
            at += len(piece) - self._guarded(self._receive, piece)
            now = perf_counter()
        if self._out and not self._closing:
            self.flush()
        reading.spend(now - began)
        if at < size and not self._closing:
            self._unread = data[at:]
            self._wait_for_turn()
        elif self._waits or self.full:
            self._read_or_wait()

    def _read_or_wait(self) -> None:
        waits = self.full or len(self._unread) > _MUCH
        if waits is not self._waits and not self._closing:
            self._waits = waits
            (self._transport.pause_reading if waits else self._transport.resume_reading)()

    def _receive(self, data: bytes) -> int:
        """How many of its last bytes are left. Each call hears at once of messages that came together: they batch."""
        left = self._codec.receive(data, _BLOCKS)
        hearing, self.hearing = self.hearing, []
        if len(hearing) == 1:
            hearing[0].came()
        elif hearing:
            self.server.turn.read_all([call.came for call in hearing])
        return left

    def _guarded(self, work: Callable[[Any], int | None], given: object) -> int:
        """What some work returns, after which its caller flushes what was put; 0 if it fails."""
        self._reads = True
        try:
            return work(given) or 0
        except ConnectionFault as fault:
            self._fail(fault.code, str(fault))
        except Exception:
            log.exception("a connection failed")
            self._fail(Code.INTERNAL_ERROR, "the server failed")
        finally:
            self._reads = False
        return 0

    def eof_received(self) -> bool:
        """See asyncio.Protocol. Its socket is closed in a turn of its own: a thousand that end at once take 15 ms."""
        self._closing = True
        self.server.ends.take(self._transport.close)
        return True

    def connection_lost(self, _: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._closing = True
        self.server.timers.cancel(self._due, self)
        if self.peer:  # else it was not taken in
            self.server.let_go(self)

    def end_calls(self) -> None:
        """Of a connection that is lost: a few at a time."""
        for stream in list(islice(self._codec.streams.values(), _ENDS)):
            stream.was_reset()
        if self._codec.streams:
            self.server.ends.take(self.end_calls)
        else:
            del self._codec  # they refer to each other

    def pause_writing(self) -> None:
        """See asyncio.Protocol. Who does not read is not read, or its pings could fill the memory."""
        self.full = True
        self._read_or_wait()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self.full = False
        self._read_or_wait()
        self.write_later()
        for stream in list(self._codec.streams.values()):
            if stream.waiting is None:
                stream.receiver.writable()

    def auth_context(self) -> dict[str, list[bytes]]:
        """The common names in the client's certificate, which was verified, as grpc gives them; empty without one."""
        shown = self._transport.get_extra_info("peercert") or {}
        names = [value.encode() for part in shown.get("subject", ()) for key, value in part if key == "commonName"]
        return {"x509_common_name": names} if names else {}

    # Calls ------------------------------------------------------------------------------------------------------------

    def begin(self, stream: CallStream, request: Request) -> Refusal | None:
        """See Acceptor."""
        if not self.server.has_room(self.address):
            return _EXHAUSTED, "as many calls of this address are under way as it may have; end some, or wait for them"
        if (handler := self.server.find(request)) is None:
            return _UNIMPLEMENTED, f"there is no method {request.path[:256]}"
        call = stream.receiver = Call(self, stream, request, handler)
        self._reading = self.server.others
        self.server.begun(call)
        return None

    def left(self) -> None:
        """A stream has ended."""
        if not self._codec.streams and not self._closing:
            self._without_calls_since = self.server.loop.time()
            if self._codec.leaving:
                self._look_after(self.server.options.ping_seconds)

    # Writing ----------------------------------------------------------------------------------------------------------

    def _put(self, data: bytes) -> None:
        if not self._out and not self._reads:
            self.server.will_flush(self)
        self._out.append(data)

    def write_later(self) -> None:
        """See Acceptor."""
        self.server.writers.wait(self._write_on)

    def _write_on(self) -> None:
        """Sends of what had to wait as much as a turn has room for, unless the socket takes no more."""
        if self.full or self._closing:
            return
        began = perf_counter()
        self._guarded(self._codec.blocked.go_on, self._codec)
        if self._out and not self._closing:
            self.flush()
        self.server.writers.spend(perf_counter() - began)

    def flush(self) -> None:
        """Hands to the transport what was put, in one write."""
        out, self._out = self._out, []
        self._transport.write(b"".join(out))

    # The end ----------------------------------------------------------------------------------------------------------

    def retire(self, why: str) -> None:
        """No further calls. The client closes it once those that are under way have ended, or this side a little later.

        A call that it has begun meanwhile is refused by itself, and clients begin it elsewhere. Were this closed at
        once, the call would be lost; one that a GOAWAY refuses by its number grpc-js begins here again, and fails.
        """
        self._codec.retire(why)
        self.left()

    def close(self) -> None:
        """After what was put is written, for which a client that does not read has `ping_seconds`."""
        self._codec.leave()
        self._closing = True
        self.flush()
        self._transport.close()
        self._look_after(self.server.options.ping_seconds)

    def abort(self) -> None:
        """At once."""
        self._transport.abort()

    def _fail(self, code: Code, why: str) -> None:
        self._codec.leave(code, why)
        self.close()

    # Time -------------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Every `keepalive_seconds`: a client that is silent is asked whether it is there."""
        if self._closing:
            return self.abort()
        if not self._codec.ready:
            return self._fail(Code.SETTINGS_TIMEOUT, "no preface and settings came")
        options, now = self.server.options, self.server.loop.time()
        if not self._codec.streams and self._codec.leaving:
            return self.close()
        if not self._codec.streams and now - self._without_calls_since >= options.idle_seconds:
            return self.retire("a connection without calls")
        unsent, self._unsent = self._unsent, self._transport.get_write_buffer_size()
        if self.full:
            if unsent == self._unsent:  # it has not read a byte since
                return self.abort()
        elif not self._heard:
            if self._asked:
                return self.abort()
            self._asked = True
            self._put(frames.frame(frames.PING, 0, 0, b"tidegate"))
        after = options.ping_seconds if self._asked and not self._heard else options.keepalive_seconds
        if self._heard:
            self._asked = False
        self._heard = False
        self._look_after(after)
        return None

    def _look_after(self, seconds: float) -> None:
        """Instead of when it was to be looked at until now."""
        self.server.timers.cancel(self._due, self)
        self._due = self.server.timers.after(seconds, self)

    def answered_ping(self) -> None:
        """See Acceptor."""
        self._asked = False
