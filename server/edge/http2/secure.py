"""TLS between a connection and its socket: what came in one read is handed on at once, what is put leaves in one write.

Over OpenSSL's buffers in memory, so that each connection can have other certificates than the one before.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from server.edge.http2.connection import Connection

log = logging.getLogger(__name__)

_RECORD = 16_384  # bytes: the most that one record of TLS carries
_EMPTY = 64  # records that carry nothing for us, such as new keys, each of which takes 20 us; and one more for
_EACH = 2**16  # records that do
_HEAD = 5  # bytes of a record: the type, the version, and the length of what follows
_MOST = 64  # records of one part, after which the clock is looked at
_TURN = 0.0005  # seconds of what one client sent: a record of one byte takes 5 us
_FEW = 4  # records for which no turn is waited


class SecureTransport(asyncio.Protocol):
    """For the connection it is a transport; for the socket's own transport it is a protocol.

    A handshake takes a millisecond of processor time. So each of its steps waits for a turn of its own, and nothing is
    read from the socket until then. How long it may take in all is for the connection to know.
    """

    def __init__(self, connection: Connection, context: ssl.SSLContext) -> None:
        self._connection = connection
        self._socket: asyncio.Transport
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._ready = False  # the handshake is over
        self._early: list[bytes] = []  # written before that
        self._records = Records()  # from then on
        self._parts: Iterator[tuple[memoryview, int]] = iter(())  # of what came, not decrypted yet
        self._behind = self._paused = False  # some wait for their turn; the connection wants nothing read
        self._empty, self._full = 0, 0  # how many of them have carried nothing, or something

    # The socket's -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._socket = cast("asyncio.Transport", transport)
        self._connection.connection_made(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._ready:
            return self._take(memoryview(data))
        self._incoming.write(data)
        self._socket.pause_reading()
        return self._connection.server.ends.take(self._shake_hands)

    def eof_received(self) -> bool:
        """See asyncio.Protocol, and that of the connection."""
        self._connection.server.ends.take(self._socket.close)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._connection.connection_lost(error)
        del self._connection  # they refer to each other, and what OpenSSL takes is large

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._connection.resume_writing()

    # TLS --------------------------------------------------------------------------------------------------------------

    def _shake_hands(self) -> None:
        if self._socket.is_closing():
            return None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
            return self._socket.resume_reading()
        except ssl.SSLError as error:
            return self._refuse(error.reason)
        if self._tls.selected_alpn_protocol() != "h2":
            return self._refuse("it does not offer HTTP/2")
        self._ready = True
        self._socket.resume_reading()
        self.write(b"".join(self._early))
        self._early.clear()
        return self._take(memoryview(self._incoming.read()))  # what came with its end

    def _refuse(self, why: str) -> None:
        log.debug("TLS with %s failed: %s", self._connection.peer, why)
        self._send()  # an alert says why
        self._socket.close()

    def _take(self, data: memoryview) -> None:
        self._parts = self._records.parts(data)
        self._go_on()

    def _take_turn(self) -> None:
        self._behind = False
        if self._socket.is_closing():
            return
        self._go_on()
        if not (self._behind or self._paused):
            self._socket.resume_reading()

    def _go_on(self) -> None:
        """Decrypts what came, for `_TURN` at most; what is left waits until others had their turn."""
        pieces, turn, began = list[bytes](), self._connection.server.decrypting, perf_counter()
        now, ends = began, began + min(_TURN, turn.left)
        for part, records in self._parts:
            if records > _FEW and now > ends:
                self._parts = chain(((part, records),), self._parts)
                self._behind = True
                break
            self._incoming.write(part)
            before = len(pieces)
            if not self._decrypt(pieces):
                return None
            self._full += len(pieces) - before
            self._empty += records - (len(pieces) - before)
            if self._empty > _EMPTY + self._full // _EACH:
                return self._refuse("it sends records that carry nothing")
            now = perf_counter()
        turn.spend(now - began)
        if self._behind:
            self._socket.pause_reading()
            turn.wait(self._take_turn)
        if pieces:
            self._connection.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        return None

    def _decrypt(self, pieces: list[bytes]) -> bool:
        """Adds what each whole record carries; False: the connection has ended."""
        try:
            while self._incoming.pending or self._tls.pending():
                if not (piece := self._tls.read(_RECORD)):
                    self.close()  # the client said so
                    return False
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass  # a record that is not whole yet
        except ssl.SSLError as error:
            self._refuse(error.reason)
            return False
        self._send()  # an answer of TLS itself
        return True

    def _send(self) -> None:
        if self._outgoing.pending:
            self._socket.write(self._outgoing.read())

    # The connection's -------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """See asyncio.Transport."""
        if self._socket.is_closing():
            return None
        if not self._ready:
            return self._early.append(data)
        sent = self._tls.write(data) if data else 0
        while sent < len(data):
            sent += self._tls.write(memoryview(data)[sent:])
        return self._socket.write(self._outgoing.read())

    def close(self) -> None:
        """See asyncio.Transport."""
        with suppress(ssl.SSLError):  # what the client says to it is not waited for
            self._tls.unwrap()
        self._send()
        self._socket.close()

    def get_extra_info(self, name: str) -> Any:  # noqa: ANN401 # asyncio's
        """See asyncio.Transport."""
        return self._tls.getpeercert() if name == "peercert" else self._socket.get_extra_info(name)

    def abort(self) -> None:
        """See asyncio.Transport."""
        self._socket.abort()

    def is_closing(self) -> bool:
        """See asyncio.Transport."""
        return self._socket.is_closing()

    def pause_reading(self) -> None:
        """See asyncio.Transport."""
        self._paused = True
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        """See asyncio.Transport."""
        self._paused = False
        if not self._behind:
            self._socket.resume_reading()

    def get_write_buffer_size(self) -> int:
        """See asyncio.Transport."""
        return self._socket.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int) -> None:
        """See asyncio.Transport."""
        self._socket.set_write_buffer_limits(high)


class Records:
    """Where the records of one direction of a connection begin, by their heads. Knows no keys."""

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
