"""A client's stream, for threads. It outlives a loss.

One thread of its own reads, and makes the next stream when one is lost. Callers never read, although that would save a
change of threads: Ctrl-C interrupts the main thread anywhere, and an interrupted call of gRPC may hold
one of its locks for ever. A caller waits for its answer on a lock of its own.
"""

import logging
from _thread import start_new_thread
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from threading import TIMEOUT_MAX, Event, Lock, Thread, Timer, current_thread
from typing import TYPE_CHECKING, Any

import grpc

from tidegate.errors import ConnectionLost, TidegateError
from tidegate.protocol.conversation import Requests
from tidegate.protocol.promise import Promise
from tidegate.protocol.registry import Books
from tidegate.transport.bundles import Bundler
from tidegate.transport.endpoint import Endpoint
from tidegate.transport.link import GOODBYE, Link
from tidegate.transport.process import OwnProcess
from tidegate.transport.recovery import Resuming
from tidegate.transport.status import explain
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1.tidegate_pb2_grpc import TidegateStub

if TYPE_CHECKING:
    from grpc import _CallIterator  # a name that only type checkers know

log = logging.getLogger("tidegate")


class _Stream:
    """One stream: an outbox for any thread, and a call that one thread makes and reads."""

    def __init__(self) -> None:
        self.outbox: SimpleQueue[pb.StreamRequest | None] = SimpleQueue()
        self.call: _CallIterator[pb.StreamResponse] | None = None

    def hang_up(self) -> None:
        self.outbox.put(None)
        if self.call is not None:
            self.call.cancel()

    def messages(self, limit: Callable[[], int]) -> Iterator[pb.StreamRequest]:
        """What gRPC is to send: what is in the outbox until its end, bundled where several messages wait."""
        bundler = Bundler(self.outbox, limit)
        while (request := bundler.left() or self.outbox.get()) is not None:
            yield bundler.fill(request)


class Connection(Link):
    """One stream after the other, which any number of threads share."""

    _lock: Lock

    def __init__(
        self, stub: TidegateStub, address: Endpoint, route: str, resuming: Resuming, within: float | None
    ) -> None:
        super().__init__(address, route, resuming, within)
        self._stub = stub
        self._process = OwnProcess()
        self._check_place = self._process.check
        self._lock = Lock()
        self._stream = _Stream()
        self._closed = Event()
        self._reader = Thread(target=self._read_on, name=f"tidegate reader of {address}", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        return self.talk.lost is None

    def leave(self, books: Books) -> None:
        """Has sequences ended, without waiting for the server or the lock.

        The lock may be held by the caller: a garbage collection in the midst of anything may finalise a generator that
        has a sequence open. The next caller ends them before it sends anything else.
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
        for request in requests:
            self._stream.outbox.put(request)

    def _hang_up(self) -> None:
        self._stream.hang_up()

    def _after(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(seconds, call)
        timer.daemon = True
        timer.start()
        return timer

    async def _settled(self, promise: Promise[Any], timeout: float | None) -> bool:
        self._check_place()
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

    # Reading, in the reader's thread.

    def _read_on(self) -> None:
        try:
            self._call(self._stream)
            while (stream := self._next_stream()) is not None:
                response = self._read(stream)
                with self._lock:
                    self._enter(response)
        except Exception as error:
            log.exception("reading from %s failed", self._address)
            with self._lock:
                self._lose(ConnectionLost(f"this client failed while it read from {self._address}: {error!r}"))

    def _call(self, stream: _Stream) -> None:
        messages = stream.messages(lambda: self.talk.max_message_bytes)
        stream.call = self._stub.Stream(messages, metadata=(*self._headers, *self._address.headers()))

    def _read(self, stream: _Stream) -> pb.StreamResponse | TidegateError:
        assert stream.call is not None
        try:
            return next(stream.call)
        except StopIteration:
            return ConnectionLost(f"the server at {self._address} ended the stream")
        except grpc.RpcError as error:
            return explain(error, self._address)

    def _next_stream(self) -> _Stream | None:
        while True:
            with self._lock:
                if self._left:
                    self._carry_out()
                if self.talk.lost is not None or self._closed.is_set():
                    return None
                if self.talk.broken is None:
                    return self._stream
                wait = self._wait_to_reconnect()
                if wait is None:
                    return None
            self._closed.wait(wait)
            self._reconnect()

    def _reconnect(self) -> None:
        with self._lock:
            if self.talk.lost is None and not self._closed.is_set():
                self._stream = _Stream()
                self._call(self._stream)
                self._put(self.talk.resume())

    # Closing.

    def close(self, why: str) -> None:
        """Ends the stream: in order if nothing is open on it, else by cancelling it. Calls that wait raise an error.

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
                self._end(why)

    def _part(self) -> None:
        """Lets the server confirm what is being closed, on a new stream if need be, and end the stream."""
        with self._lock:
            self._carry_out()
            if not self.talk.idle or self.talk.lost is not None:
                return
            confirmed = Event()
            self._confirmed = confirmed.set
            if not self.talk.closing:
                confirmed.set()
        if confirmed.wait(GOODBYE):
            self._stream.outbox.put(None)
            self._reader.join(GOODBYE)
