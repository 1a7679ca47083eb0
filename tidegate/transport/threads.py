"""A client's stream, for threads. It outlives a loss.

One thread of its own reads, and makes the next stream when one is lost. Over a connection of its own, a caller that
waits reads in its stead; else it waits at a gate of its own.
"""

import logging
from _thread import start_new_thread
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import TIMEOUT_MAX, Event, Lock, Thread, Timer, current_thread
from typing import Any

import grpc

from tidegate.errors import TidegateError
from tidegate.plain.answers import Response
from tidegate.protocol.promise import Promise
from tidegate.protocol.registry import Books
from tidegate.transport.deadline import NEVER, Deadline
from tidegate.transport.endpoint import Endpoint
from tidegate.transport.grpc_stream import GrpcThreadStream
from tidegate.transport.link import GOODBYE, Link
from tidegate.transport.process import OwnProcess
from tidegate.transport.recovery import Resuming
from tidegate.transport.socket_stream import Gate, SocketStream
from tidegate.transport.status import explain
from tidegate.v1.tidegate_pb2_grpc import TidegateStub

log = logging.getLogger("tidegate")


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
        self._connect()
        self._closed = Event()
        self._reader = Thread(target=self._read_on, name=f"tidegate reader of {address}", daemon=True)
        self._reader.start()

    def _connect(self) -> None:
        headers = (*self._headers, *self._address.headers())
        self._stream: SocketStream | GrpcThreadStream
        if self._place is not None:
            self._stream = SocketStream(self._place, headers, self._limit, self._lock, self._waiting)
        else:
            self._stream = GrpcThreadStream(self._stub, headers, self._limit, self._lock)

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

    def _after(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(seconds, call)
        timer.daemon = True
        timer.start()
        return timer

    async def settled(self, promise: Promise[Any], timeout: float | None) -> bool:
        self._check_place()
        deadline = NEVER if timeout is None else Deadline(timeout)
        gate: Gate = SimpleQueue()
        try:
            with self._lock:
                settled = promise.done
                if not settled:
                    promise.call(partial(gate.put, None))
                    self._waiting[gate] = promise
            while not promise.done and deadline.limit > 0:
                if not self._lead(gate, promise, deadline):
                    with suppress(Empty):
                        gate.get(timeout=None if deadline.left is None else min(deadline.limit, TIMEOUT_MAX))
            return promise.done
        finally:
            self._waiting.pop(gate, None)

    def _lead(self, gate: Gate, promise: Promise[Any], deadline: Deadline) -> bool:
        try:
            return self._stream.lead(gate, promise, deadline)
        except Exception:
            if self.talk.lost is None:
                raise
            return True  # as all who wait, this caller hears of it by its promise

    # Reading, in the reader's thread.

    def _read_on(self) -> None:
        try:
            while self.talk.lost is None and not self._closed.is_set():
                error = self._read_all()
                with self._lock:
                    self._enter(error)
                self._reconnect()
        except Exception as error:  # noqa: BLE001 # whoever waits hears of it
            with self._lock:
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self.talk.lost is None:
            log.error("reading from %s failed", self._address, exc_info=error)
            self._lose(self._failed(error))

    def _read_all(self) -> TidegateError:
        """Enters what comes, to the end of the stream; returns the error that ended it."""
        try:
            self._stream.read(self._took)
        except grpc.RpcError as error:
            return explain(error, self._address)
        return self._why_ended()

    def _took(self, response: Response) -> bool:
        try:
            if self._left:
                self._carry_out()
            return super()._took(response)
        except BaseException as error:  # it is entered half
            self._fail(error)
            raise

    def _reconnect(self) -> None:
        with self._lock:
            over = self.talk.lost is not None or self._closed.is_set()
            wait = None if over else self._wait_to_reconnect()
        if wait is None:
            return
        self._closed.wait(wait)
        with self._lock:
            if self.talk.lost is None and not self._closed.is_set():
                self._connect()
                self._put(self.talk.resume())

    # Closing.

    def close(self, why: str) -> None:
        """Ends the stream: in order if nothing is open on it, else by cancelling it. Calls that wait raise an error.

        What is open on a server that keeps checkpoints is parked there, and can be resumed.
        """
        # a garbage collection in the midst of reading, as in `leave`
        if current_thread() is self._reader or self._stream.led_here:
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
            self._stream.attend()
        if confirmed.wait(GOODBYE):
            with self._lock:
                self._stream.put(None)
                self._stream.attend()
            self._reader.join(GOODBYE)
