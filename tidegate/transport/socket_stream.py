"""A stream over an HTTP/2 connection of its own, for threads: callers write to its socket, and read from it.

A change of threads costs as much as all else that a client does for a step. So a caller that waits reads by itself, for
others that wait, too, and the thread that reads otherwise rests meanwhile.
"""

import socket
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial
from queue import Empty, SimpleQueue
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector, DefaultSelector, SelectorKey
from ssl import SSLWantReadError, SSLWantWriteError
from threading import get_ident
from typing import Any

from tidegate.plain.answers import Response
from tidegate.plain.steps import Request
from tidegate.protocol.promise import Promise
from tidegate.transport.deadline import Deadline
from tidegate.transport.endpoint import Place
from tidegate.transport.signals import undisturbed
from tidegate.transport.stream_call import AT_ONCE, CLOSED, CONNECT, Headers, StreamCall

_READ = 2**18  # bytes
_NOT_NOW = (BlockingIOError, SSLWantReadError, SSLWantWriteError)
_BEAT = 0.05  # seconds: a caller that reads shows that often that it does
_REST = 0.2  # seconds that the reader rests without a sign of one

Gate = SimpleQueue[None]  # what a caller waits at
Waiting = Mapping[Gate, Promise[Any]]
Ready = list[tuple[SelectorKey, int]]


class SocketStream:
    """One stream. `put`, `hang_up` and `attend` are called with the lock held, and never wait.

    `limit` says how many bytes of a message the server takes; 0: it has not said. `waiting` are the callers that wait.
    """

    def __init__(
        self,
        place: Place,
        headers: Headers,
        limit: Callable[[], int],
        lock: AbstractContextManager[object],
        waiting: Waiting,
    ) -> None:
        self._place = place
        self._call = StreamCall(place, headers, limit)
        self._lock = lock
        self._waiting = waiting
        # the connection
        self._socket: socket.socket | None = None  # once it is connected, until it is closed
        self._selector: BaseSelector
        self._took: Callable[[Response], bool]
        self._unwritten = b""
        self._full = False  # the system takes no more for now
        self._look_at = 0.0
        # who reads: it matters for speed alone
        self._resting = False  # whether callers do
        self._leader: Gate | None = None  # the caller that does
        self._thread = 0  # that it is in
        self._beats = 0
        self._bell = SimpleQueue[None]()  # ends the rest

    # What a link wants of a stream ------------------------------------------------------------------------------------

    def put(self, *requests: Request | None, waits: bool = False) -> None:
        """Sends requests, or with None the end of them. Where a caller `waits` for the answer, it may do so then."""
        for request in requests:
            self._call.put(request)
        if waits and self._resting and self._leader is None and self._call.waiting() < AT_ONCE:
            return
        self._push()
        if self._full or self._call.blocked:
            self.attend()

    def hang_up(self) -> None:
        """Ends it in both directions."""
        self._call.cancel()
        self._flush()
        self._wake()

    def attend(self) -> None:
        """Has the reader read, if it rests and no caller reads."""
        if self._resting and self._leader is None:
            self._bell.put(None)

    def read(self, took: Callable[[Response], bool]) -> None:
        """Calls `took`, with the lock held, with each response, until it wants no more or the stream has ended.

        Raises grpc.RpcError: with another status than OK.
        """
        self._took = took
        try:
            self._connect()
            while not self._call.ended:
                if self._resting:
                    self._rest()
                    continue
                ready = self._selector.select(max(0.0, self._look_at - time.monotonic()))
                with self._lock:
                    self._turn(ready)
                    self._resting = self._next_caller() is None
        finally:
            with self._lock:
                if self._socket is not None:
                    self._socket.close()
                    self._socket = None
                    del self._selector  # closed once no caller waits at it
                del self._took
        if (error := self._call.error()) is not None:
            raise error

    @property
    def led_here(self) -> bool:
        """Whether this thread is in the midst of reading for its caller, as while garbage is collected."""
        return self._leader is not None and self._thread == get_ident()

    def lead(self, caller: Gate, promise: Promise[Any], deadline: Deadline) -> bool:
        """Reads in the reader's stead until the promise is settled, the stream has ended, or no time is left.

        False: the reader reads, or another caller does. An interrupt leaves nothing half read.
        """
        try:
            if (selector := self._take_over(caller)) is None:
                return False
            while not promise.done and not self._call.ended and (wait := deadline.limit) > 0:
                self._beats += 1
                ready = selector.select(min(wait, _BEAT))
                if ready or time.monotonic() >= self._look_at:
                    undisturbed(partial(self._locked_turn, ready))
            return True
        finally:
            if self._leader is caller:
                self._hand_over(caller)

    # Who reads --------------------------------------------------------------------------------------------------------

    def _take_over(self, caller: Gate) -> BaseSelector | None:
        with self._lock:
            if not self._resting or self._leader is not None or self._call.ended:
                return None
            self._leader, self._thread = caller, get_ident()
            self._push()
            return self._selector

    def _rest(self) -> None:
        beats = self._beats
        try:
            self._bell.get(timeout=_REST)
        except Empty:
            rung = False
        else:
            rung = True
        with self._lock:
            self._flush()
            if rung or beats == self._beats:
                self._resting, self._leader = False, None  # a leader that was interrupted while it handed over

    def _hand_over(self, caller: Gate) -> None:
        with self._lock:
            if self._leader is not caller:  # the reader has taken over
                return
            self._leader = None
            following = self._next_caller(caller)
            if following is not None and not self._call.ended:
                following.put(None)
            elif self._call.ended or self._full or self._call.blocked:
                self._bell.put(None)

    def _next_caller(self, but: Gate | None = None) -> Gate | None:
        waiting = list(self._waiting.items())
        return next((gate for gate, promise in waiting if not promise.done and gate is not but), None)

    # The connection ---------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        place, context = self._place, None if self._place.tls is None else self._place.tls.context()
        try:
            connection = socket.create_connection((place.host, place.port), CONNECT)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                connection = context.wrap_socket(connection, server_hostname=place.host)
            connection.setblocking(False)
            selector = DefaultSelector()
        except OSError as error:
            self._call.unreached(error)
            return
        selector.register(connection, EVENT_READ)
        with self._lock:
            self._socket, self._selector = connection, selector
            self._look()
            self._flush()

    def _locked_turn(self, ready: Ready) -> None:
        with self._lock:
            if self._socket is None:  # it has ended
                return
            try:
                self._turn(ready)
            except BaseException:
                self._call.lost("reading was interrupted")
                self._wake()
                raise

    def _turn(self, ready: Ready) -> None:
        for _, events in ready:
            if events & EVENT_WRITE:
                self._watch(full=False)
            if events & EVENT_READ:
                self._receive()
        if not ready and time.monotonic() >= self._look_at:
            self._look()
        self._flush()

    def _look(self) -> None:
        self._look_at = time.monotonic() + self._call.look()

    def _receive(self) -> None:
        assert self._socket is not None, "it is read"
        try:
            data = self._socket.recv(_READ)
        except _NOT_NOW:
            return
        except OSError as error:
            self._call.lost(f"{CLOSED}: {error}")
            return
        if not data:
            self._call.lost(CLOSED)
        for response in self._call.receive(data):
            if self._took(response):
                return  # it has hung up

    def _push(self) -> None:
        """Writes for a caller, which may be interrupted."""
        try:
            self._flush()
        except BaseException:  # how much of it was written is unknown
            self._full = True
            self._call.lost("writing was interrupted")
            self._wake()
            raise

    def _flush(self) -> None:
        while self._socket is not None and not self._full and (data := self._unwritten or self._call.to_write()):
            try:
                self._unwritten = data[self._socket.send(data) :]
            except _NOT_NOW:
                self._unwritten = data
                self._watch(full=True)
            except OSError:  # what came before is read yet
                self._full = True

    def _watch(self, *, full: bool) -> None:
        assert self._socket is not None, "it is written to"
        self._full = full
        self._selector.modify(self._socket, EVENT_READ | EVENT_WRITE if full else EVENT_READ)

    def _wake(self) -> None:
        """Ends what is read, and every wait for it."""
        self._bell.put(None)
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
