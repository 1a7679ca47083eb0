"""A client's stream, for threads: what a Conversation says goes out, what comes in goes to it. It outlives a loss.

One thread of its own reads, and makes the next stream when one is lost. Nobody else reads, although a caller who read
for itself would save a change of threads: Ctrl-C strikes in the main thread wherever that is, and a call of gRPC that
is left half-way may hold one of its locks for ever. A caller waits for its answer on a lock of its own.
"""

import logging
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import TIMEOUT_MAX, Event, Lock, Thread, Timer, current_thread
from typing import Any, TypeVar

from tidegate.errors import ConnectionLost, ProtocolError, TidegateError, TimedOut
from tidegate.protocol.budget import why_no_room
from tidegate.protocol.conversation import Requests
from tidegate.protocol.promise import Promise
from tidegate.protocol.registry import Books
from tidegate.transport.deadline import Deadline
from tidegate.transport.endpoint import Endpoint
from tidegate.transport.link import GOODBYE, Build, K, Link
from tidegate.transport.process import OwnProcess
from tidegate.transport.recovery import Resuming
from tidegate.transport.thread_stream import Stream
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1.tidegate_pb2_grpc import TidegateStub

log = logging.getLogger("tidegate")

R = TypeVar("R")


class Connection(Link):
    """One stream after the other, which any number of threads share."""

    _lock: Lock

    def __init__(
        self, stub: TidegateStub, address: Endpoint, route: str, resuming: Resuming, within: float | None
    ) -> None:
        super().__init__(address, route, resuming, within)
        self._stub = stub
        self._process = OwnProcess()
        self._lock = Lock()
        self._left: deque[Books] = deque()  # what is to be ended by the next one who has the lock
        self._stream = self._new_stream()
        self._confirmed: Event | None = None  # set when nothing is left to be closed
        self._closed = Event()
        self._reader = Thread(target=self._read_on, name=f"tidegate reader of {address}", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        return self._talk.lost is None

    # Sending.

    def send(self, books: Books, timeout: float | None, build: Build[K], *values: object) -> K:
        """Builds messages with steps and sends them; one after the other, so that their numbers go out in order.

        gRPC takes them from the outbox as the server reads. Blocks only where as much is kept for a resumption as may
        be, or the sequence is being rewound. Raises TimedOut if that lasts for `timeout` seconds.
        """
        self._process.check()
        deadline = Deadline(timeout)
        while True:
            with self._lock:
                self._carry_out()
                room = books.room()
                if room is None:
                    return self._say(build, *values)
            self._await_room(room, deadline.left)

    def ask(self, build: Build[K], *values: object) -> K:
        self._process.check()
        with self._lock:
            self._carry_out()
            return self._say(build, *values)

    def look(self, read: Callable[[], R]) -> R:
        with self._lock:
            return read()

    def leave(self, books: Books) -> None:
        """Has sequences ended, and waits for nothing: not for the server, nor for who has the lock.

        That may be whoever calls: a garbage collection in the midst of anything may finalise a generator that has a
        sequence open. Whoever comes next ends them before it says anything else.
        """
        if not self._process.here:  # they are its parent's
            return
        self._left.append(books)
        if not self._lock.locked():
            self._end_left()
        else:
            with suppress(RuntimeError):  # no thread can be started while the interpreter ends
                start_new_thread(self._end_left, ())

    def _end_left(self) -> None:
        with self._lock:
            self._carry_out()

    def _put(self, requests: Requests) -> None:
        self._stream.put(requests)

    def _hang_up(self) -> None:
        self._stream.hang_up()

    def _after(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(seconds, call)
        timer.daemon = True
        timer.start()
        return timer

    # With the lock held.

    def _carry_out(self) -> None:
        while self._left:
            self._say(self._talk.close, self._left[0])
            self._left.popleft()

    def _say(self, build: Build[K], *values: object) -> K:
        try:
            promise, requests = build(*values)
            self._stream.put(requests)
        except Exception:
            raise
        except BaseException:  # interrupted, and nobody knows how much of it is said
            self._break_off(ConnectionLost("sending was interrupted, which ends the stream"))
            raise
        return promise

    # Waiting, without the lock.

    def wait(self, promise: Promise[Any], timeout: float | None) -> None:
        """Until the promise is settled. Raises TimedOut after `timeout` seconds; the answer is then dropped."""
        if not self._settled(promise, timeout):
            raise TimedOut(f"no answer from {self._address} in the given time")

    def _settled(self, promise: Promise[Any], timeout: float | None) -> bool:
        self._process.check()
        gate = Lock()
        gate.acquire()  # until the promise is settled
        with self._lock:
            if promise.done:
                return True
            promise.call(gate.release)
        try:
            self._waiting.add(promise)
            return gate.acquire(timeout=-1 if timeout is None else min(max(timeout, 0.0), TIMEOUT_MAX))
        finally:
            self._waiting.discard(promise)

    def _await_room(self, room: Promise[None], timeout: float | None) -> None:
        settled = False
        try:
            settled = self._settled(room, timeout)
        finally:
            if not settled:
                with self._lock:
                    why = why_no_room(self._talk.budget, room)
        if not settled:
            raise TimedOut(why)

    # Reading, in the reader's thread.

    def _read_on(self) -> None:
        try:
            self._stream.call()
            while (stream := self._next_stream()) is not None:
                response = stream.read()
                with self._lock:
                    self._enter(response)
        except Exception as error:
            log.exception("reading from %s failed", self._address)
            with self._lock:
                self._lose(ConnectionLost(f"this client failed while it read from {self._address}: {error!r}"))

    def _next_stream(self) -> Stream | None:
        while True:
            with self._lock:
                self._carry_out()
                if self._talk.lost is not None or self._closed.is_set():
                    return None
                if self._talk.broken is None:
                    return self._stream
                wait = self._next_wait()
                if wait is None:
                    self._give_up()
                    return None
            self._closed.wait(wait)
            self._reconnect()

    def _reconnect(self) -> None:
        with self._lock:
            if self._talk.lost is None and not self._closed.is_set():
                self._stream = self._new_stream()
                self._stream.call()
                self._stream.put(self._talk.resume())

    def _new_stream(self) -> Stream:
        return Stream(self._stub, self._address, self._headers, lambda: self._talk.max_message_bytes)

    def _enter(self, response: pb.StreamResponse | TidegateError) -> None:
        if self._talk.broken is not None:  # an interrupted caller has broken the stream off meanwhile
            return
        if isinstance(response, TidegateError):
            self._break_off(response)
            return
        try:
            self._stream.put(self._talk.receive(response))
        except ProtocolError as error:
            self._lose(error)
            return
        self._defer()
        self._look_around()

    def _look_around(self) -> None:
        if self._talk.broken is not None:
            self._break_off(self._talk.broken)
        else:
            self._note_recovered()
        if self._confirmed is not None and not self._talk.closing:
            self._confirmed.set()

    # Closing.

    def close(self, why: str) -> None:
        """Ends the stream: in peace if nothing is open on it, else by cancelling it. Whoever waits gets an error.

        What is open on a server that keeps checkpoints is parked there, and can be resumed.
        """
        if current_thread() is self._reader:  # a garbage collection in the midst of its work, as in `leave`
            start_new_thread(self.close, (why,))
            return
        try:
            self._part()
        finally:
            self._closed.set()
            with self._lock:
                if self._later is not None:
                    self._later.cancel()
                self._lose(ConnectionLost(why))

    def _part(self) -> None:
        """Lets the server confirm what is being closed, on a new stream if need be, and end the stream."""
        with self._lock:
            self._carry_out()
            if not self._talk.idle or self._talk.lost is not None:
                return
            self._confirmed = Event()
            if not self._talk.closing:
                self._confirmed.set()
        if self._confirmed.wait(GOODBYE):
            self._stream.end()
            self._reader.join(GOODBYE)
