"""The listening sockets and connections of a server, of which each turn of the event loop takes a few.

asyncio and uvloop read all connections that have something to say in one turn: a thousand that speak at the same time
hold the loop for 5 ms. Here those that a turn does not come to have the next one.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

log = logging.getLogger(__name__)

_AT_ONCE = 256  # sockets of one turn: to read so many takes a millisecond
_ACCEPTED = 4  # connections that are accepted in one turn: likewise
_BACKLOG = 1_024  # connections that wait to be accepted
_READ = 2**16  # bytes that are read of a connection at a time
_NOT_NOW = BlockingIOError, InterruptedError
_IN, _OUT, _ENDED = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP | select.EPOLLERR


class _Watched(Protocol):
    """A socket, listening or connected."""

    def ready(self, events: int) -> None:
        """It can be read or written, or has failed, as epoll says."""


class Sockets:
    """Of one server, in its event loop. For the loop they are one file: Linux's epoll knows which of them are ready.

    Args:
        loop: the event loop.
        begins, ends: are called before the sockets of a turn are read, with their number, and after that.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, begins: Callable[[int], None], ends: Callable[[], None]
    ) -> None:
        self.loop = loop
        self._begins, self._ends = begins, ends
        self._epoll = select.epoll()
        self._watched: dict[int, _Watched] = {}
        self._doors: list[_Door] = []
        loop.add_reader(self._epoll.fileno(), self._turn)

    def listen(self, listening: socket.socket, made: Callable[[], asyncio.Protocol]) -> None:
        """Accepts connections from now on, for each of which `made` makes a protocol."""
        listening.setblocking(False)
        listening.listen(_BACKLOG)
        door = _Door(self, listening, made)
        self._doors.append(door)
        self.watch(listening.fileno(), door, select.EPOLLIN)

    def stop_listening(self) -> None:
        """After those were accepted that wait for it: else the system resets them."""
        for door in self._doors:
            while door.accept():
                pass
            door.close()
        self._doors.clear()

    def close(self) -> None:
        """After the last connection was closed."""
        self.loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def watch(self, number: int, watched: _Watched, events: int) -> None:
        self._epoll.register(number, events)
        self._watched[number] = watched

    def change(self, number: int, events: int) -> None:
        self._epoll.modify(number, events)

    def forget(self, number: int) -> None:
        del self._watched[number]
        self._epoll.unregister(number)

    def _turn(self) -> None:
        """Those that are left out are ready in the next turn too; epoll puts those that were looked at behind them."""
        ready = self._epoll.poll(0, _AT_ONCE)
        self._begins(len(ready))
        try:
            for number, events in ready:
                if (watched := self._watched.get(number)) is not None:
                    watched.ready(events)
        finally:
            self._ends()


class _Door:
    """Accepts the connections of one listening socket."""

    def __init__(self, sockets: Sockets, listening: socket.socket, made: Callable[[], asyncio.Protocol]) -> None:
        self._sockets = sockets
        self._listening = listening
        self._made = made
        self._spare = socket.socket()  # holds a descriptor

    def ready(self, _: int) -> None:
        """See _Watched."""
        for _ in range(_ACCEPTED):
            if not self.accept():
                break

    def accept(self) -> bool:
        """Takes the next connection, if there is one."""
        try:
            accepted, _ = self._listening.accept()
        except (*_NOT_NOW, ConnectionAbortedError):
            return False
        except OSError as error:
            self._refuse(error)
            return False
        Socket(self._sockets, accepted).begin(self._made())
        return True

    def _refuse(self, error: OSError) -> None:
        """No descriptor is left but the one kept for this: so a client sees its connection end, and need not wait."""
        log.warning("connections are refused: %s", error.strerror)
        self._spare.close()
        with suppress(OSError):  # it was something else, or another thread has taken the descriptor
            self._listening.accept()[0].close()
            self._spare = socket.socket()

    def close(self) -> None:
        self._sockets.forget(self._listening.fileno())
        self._listening.close()
        self._spare.close()


class Socket(asyncio.Transport):
    """One connection. Its protocol closes it once the client has sent all: nothing else does."""

    __slots__ = (
        "_closing", "_events", "_full", "_high", "_low", "_number", "_paused", "_protocol", "_socket", "_sockets",
        "_unsent",
    )  # fmt: skip

    def __init__(self, sockets: Sockets, connected: socket.socket) -> None:
        connected.setblocking(False)
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets = sockets
        self._socket = connected
        self._number = connected.fileno()  # -1: it is closed
        self._protocol: asyncio.Protocol
        self._events = 0  # that are waited for
        self._paused = False  # nothing is read
        self._unsent: bytearray | None = None  # what the system's buffer had no room for
        self._high, self._low = _READ, _READ // 4  # bytes from which on that is too much, or is no more
        self._full = False  # the protocol was told that it is too much
        self._closing = False

    def begin(self, protocol: asyncio.Protocol) -> None:
        self._protocol, self._events = protocol, select.EPOLLIN
        self._sockets.watch(self._number, self, select.EPOLLIN)
        try:
            protocol.connection_made(self)
        except Exception:
            log.exception("a connection failed")
            self._lose(None)

    def ready(self, events: int) -> None:
        """See _Watched."""
        try:
            if events & _OUT:
                self._send_unsent()
            if events & _IN and not self._paused:
                self._read()
            elif events & _ENDED:
                self._lose(None)
        except Exception:
            log.exception("a connection failed")
            self._lose(None)

    def _read(self) -> None:
        try:
            data = self._socket.recv(_READ)
        except _NOT_NOW:
            return
        except OSError as error:
            self._lose(error)
            return
        if data:
            self._protocol.data_received(data)
        else:
            self.pause_reading()
            self._protocol.eof_received()

    def pause_reading(self) -> None:
        """See asyncio.Transport."""
        self._paused = True
        self._wait()

    def resume_reading(self) -> None:
        """See asyncio.Transport."""
        if not self._closing:
            self._paused = False
            self._wait()

    def _wait(self) -> None:
        events = (0 if self._paused else select.EPOLLIN) | (0 if self._unsent is None else select.EPOLLOUT)
        if events != self._events and self._number >= 0:
            self._events = events
            self._sockets.change(self._number, events)

    # Writing ----------------------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See asyncio.Transport."""
        if self._closing:
            return
        if self._unsent is None:
            sent = self._sent(data)
            if sent == len(data) or self._closing:
                return
            self._unsent = bytearray(memoryview(data)[sent:])
            self._wait()
        else:
            self._unsent += data
        if len(self._unsent) > self._high and not self._full:
            self._full = True
            self._protocol.pause_writing()

    def _sent(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return self._socket.send(data)
        except _NOT_NOW:
            return 0
        except OSError as error:
            self._lose(error)
            return 0

    def _send_unsent(self) -> None:
        if self._unsent is None:
            return
        del self._unsent[: self._sent(self._unsent)]
        if not self._unsent:
            self._unsent = None
            self._wait()
            if self._closing:
                self._lose(None)
        if self._full and not self._closing and self.get_write_buffer_size() <= self._low:
            self._full = False
            self._protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        """See asyncio.Transport."""
        return 0 if self._unsent is None else len(self._unsent)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See asyncio.Transport."""
        self._high = _READ if high is None else high
        self._low = self._high // 4 if low is None else low

    # The end ----------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """See asyncio.Transport."""
        if not self._closing:
            self._closing = True
            if self._unsent is None:
                self._lose(None)
            else:
                self.pause_reading()

    def abort(self) -> None:
        """See asyncio.Transport."""
        self._lose(None)

    def _lose(self, error: OSError | None) -> None:
        """Closes at once. The protocol is told in another turn of the loop: it may be in the middle of something."""
        self._closing, self._unsent = True, None
        if self._number >= 0:
            self._sockets.forget(self._number)
            self._number = -1
            self._socket.close()
            self._sockets.loop.call_soon(self._lost, error)

    def _lost(self, error: OSError | None) -> None:
        protocol = self._protocol
        del self._protocol  # they refer to each other
        protocol.connection_lost(error)

    def is_closing(self) -> bool:
        """See asyncio.Transport."""
        return self._closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 # asyncio's
        """See asyncio.Transport: `peername` is all that there is."""
        try:
            return self._socket.getpeername() if name == "peername" else default
        except OSError:  # it has gone already
            return default
