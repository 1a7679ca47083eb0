"""A client's stream, for threads: what a Conversation says goes out, what comes in goes to it. It outlives a loss.

No thread of its own while nobody sets a time limit: whoever waits for an answer reads the stream itself and hands the
others what is theirs, so that a lone sequence pays for no change of threads. A wait with a limit needs a reading
thread, because a blocked read cannot be left; it is started once, with the first such wait. Whoever reads when the
stream is lost makes the next one.
"""

import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Condition, Event, Lock, Thread, Timer
from typing import Any, TypeVar

import grpc

from tidegate.budget import Budget
from tidegate.bundles import Bundler
from tidegate.conversation import Conversation
from tidegate.errors import ConnectionLost, ProtocolError, TidegateError, TimedOut
from tidegate.opening import Claim, Order
from tidegate.recovery import Recovery, Resuming, report
from tidegate.register import Books
from tidegate.route import headers
from tidegate.status import explain
from tidegate.ticket import Ticket
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1.tidegate_pb2_grpc import TidegateStub

K = TypeVar("K", bound=Ticket[Any])
R = TypeVar("R")
Outbox = SimpleQueue[pb.StreamRequest | None]

_GOODBYE = 1.0  # seconds that a server may take to end a stream on which nothing is open


class Connection:
    """One stream after the other, which any number of threads share."""

    def __init__(self, stub: TidegateStub, address: str, route: str, resuming: Resuming, within: float | None) -> None:
        self._stub = stub
        self._address = address
        self._headers = headers(route)
        self._resuming = resuming
        self._within = within
        self._talk = Conversation(None if within == 0 else Budget(resuming.keep_bytes, resuming.keep_steps))
        # Guards everything below; never held while reading.
        self._lock = Lock()
        self._reading = False
        self._reader: Thread | None = None
        self._waiting: dict[Ticket[Any], Condition] = {}
        self._recovery: Recovery | None = None
        self._later: Timer | None = None  # for what the server had no room for
        self._closed = Event()
        self._connect()

    def _connect(self) -> None:
        self._outbox: Outbox = SimpleQueue()
        self._call = self._stub.Stream(
            _messages(self._outbox, lambda: self._talk.max_message_bytes), metadata=self._headers
        )

    @property
    def alive(self) -> bool:
        """Whether sequences can be opened on it."""
        return self._talk.lost is None and (self._call.is_active() or self._talk.resumable)

    def send(
        self,
        books: Books,
        timeout: float | None,
        build: Callable[..., tuple[K, list[pb.StreamRequest]]],
        *values: object,
    ) -> K:
        """Builds messages with steps and sends them; one after the other, so that their numbers go out in order.

        gRPC takes them from the outbox as the server reads, while whoever waits reads the answers. Blocks only where as
        much is kept for a resumption as may be. Raises TimedOut if that lasts for `timeout` seconds.
        """
        with self._lock:
            if (room := books.room()) is not None:
                deadline = _deadline(timeout)
                while room is not None:
                    self._await(room, deadline)
                    room = books.room()
            ticket, requests = build(*values)
            for request in requests:
                self._outbox.put(request)
        return ticket

    def ask(self, build: Callable[..., tuple[K, list[pb.StreamRequest]]], *values: object) -> K:
        """Builds messages without steps and sends them."""
        with self._lock:
            ticket, requests = build(*values)
            for request in requests:
                self._outbox.put(request)
        return ticket

    def look(self, read: Callable[[], R]) -> R:
        """Reads something of the books while nobody writes there."""
        with self._lock:
            return read()

    def open(self, order: Order | Claim) -> Ticket[pb.Opened]:
        """Asks for new sequences, or for ones that were opened before."""
        return self.ask(self._talk.open, order)

    def enrol(self, books: Books) -> None:
        """Enters what was opened."""
        with self._lock:
            for request in self._talk.enrol(books):
                self._outbox.put(request)

    def disown(self, ticket: Ticket[pb.Opened]) -> None:
        """Nobody will enrol what this ticket was for."""
        with self._lock:
            for request in self._talk.disown(ticket):
                self._outbox.put(request)

    def end(self, books: Books) -> Ticket[pb.Closed]:
        """Asks to end sequences."""
        return self.ask(self._talk.close, books)

    @property
    def talk(self) -> Conversation:
        """What is said: how to build what `ask` sends."""
        return self._talk

    def wait(self, ticket: Ticket[Any], timeout: float | None) -> None:
        """Until the ticket is settled. Raises TimedOut after `timeout` seconds; the answer is then dropped."""
        deadline = _deadline(timeout)
        with self._lock:
            self._await(ticket, deadline)

    def close(self, why: str) -> None:
        """Ends the stream: in peace if nothing is open on it, else by cancelling it. Whoever waits gets an error.

        What is open on a server that keeps checkpoints is parked there, and can be resumed.
        """
        self._closed.set()
        with self._lock:
            if self._later is not None:
                self._later.cancel()
            peaceful = self._talk.idle and self._talk.lost is None and (self._talk.closing or self._call.is_active())
            others_read = self._reading and self._reader is None
            self._reading = True
        if peaceful and not others_read:
            self._part(self._reader)
        self._outbox.put(None)
        self._call.cancel()
        with self._lock:
            self._lose(ConnectionLost(why))

    # Reading, with the lock held except while the read blocks.

    def _await(self, ticket: Ticket[Any], deadline: float | None) -> None:
        try:
            while not ticket.done:
                if self._reading:
                    self._follow(ticket, deadline)
                elif deadline is not None:
                    self._start_reader()
                elif self._talk.broken is not None:
                    self._reconnect()
                else:
                    self._read()
        finally:
            self._hand_over()

    def _read(self) -> None:
        self._reading = True
        self._lock.release()
        try:
            response = self._next()
        finally:
            self._lock.acquire()
            self._reading = self._reader is not None
        self._enter(response)

    def _next(self) -> pb.StreamResponse | TidegateError:
        """The next message, or why there is none."""
        try:
            return next(self._call)
        except StopIteration:
            return ConnectionLost(f"the server at {self._address} ended the stream")
        except grpc.RpcError as error:
            return explain(error, self._address)
        except BaseException:  # interrupted in the middle of a read, which cannot be taken up again
            with self._lock:
                self._break_off(ConnectionLost("reading was interrupted, which ends the stream"))
            raise

    def _enter(self, response: pb.StreamResponse | TidegateError) -> None:
        if isinstance(response, TidegateError):
            self._break_off(response)
            return
        try:
            for request in self._talk.receive(response):
                self._outbox.put(request)
        except ProtocolError as error:
            self._lose(error)
            return
        if self._talk.resumption.deferred and self._later is None:
            self._defer()
        if self._talk.broken is not None:
            self._break_off(self._talk.broken)
        elif self._recovery is not None and self._recovery.over(self._talk):
            self._recovery = None
        elif self._talk.resumption.casualties:
            report(self._talk)

    def _recover(self) -> Recovery:
        """The recovery that is under way, or else begins."""
        if self._recovery is None:
            self._recovery = Recovery(self._resuming, self._within, self._address, self._talk)
        return self._recovery

    def _defer(self) -> None:
        """Has what there was no room for asked for again, after a while."""
        wait = self._recover().next_wait()
        if wait is None:
            self._talk.resumption.give_up_deferred()
            return
        self._later = Timer(wait, self._try_deferred)
        self._later.daemon = True
        self._later.start()

    def _try_deferred(self) -> None:
        with self._lock:
            self._later = None
            for request in self._talk.resumption.try_deferred():
                self._outbox.put(request)

    # A stream is lost.

    def _break_off(self, error: TidegateError) -> None:
        """Lets go of the stream; the conversation goes on, on another one, if there is something to resume."""
        self._talk.break_off(error)
        self._hang_up()
        if self._talk.broken is not None:
            self._recover()

    def _hang_up(self) -> None:
        self._call.cancel()
        self._outbox.put(None)

    def _lose(self, error: TidegateError) -> None:
        self._talk.lose(error)
        self._hang_up()

    def _reconnect(self) -> None:
        """Waits for its turn and makes the next stream; whether it works is seen when it is read."""
        assert self._recovery is not None
        wait = self._recovery.next_wait()
        if wait is None:
            self._talk.give_up(self._recovery.why_over(self._talk))
            report(self._talk)
            return
        self._reading = True
        self._lock.release()
        try:
            self._closed.wait(wait)
        finally:
            self._lock.acquire()
            self._reading = self._reader is not None
        if self._talk.lost is None and not self._closed.is_set():
            self._connect()
            for request in self._talk.resume():
                self._outbox.put(request)

    # Waiting while another thread reads.

    def _follow(self, ticket: Ticket[Any], deadline: float | None) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimedOut(f"no answer from {self._address} in the given time")
        turn = self._waiting.setdefault(ticket, Condition(self._lock))
        ticket.wake = turn.notify
        try:
            turn.wait(left)
        finally:
            self._waiting.pop(ticket, None)

    def _hand_over(self) -> None:
        """Wakes one of those who wait, so that it reads from here on."""
        if self._waiting and not self._reading:
            next(iter(self._waiting.values())).notify()

    def _start_reader(self) -> None:
        self._reading = True
        self._reader = Thread(target=self._read_on, name=f"tidegate reader of {self._address}", daemon=True)
        self._reader.start()

    def _read_on(self) -> None:
        while True:
            with self._lock:
                while self._talk.broken is not None and self._talk.lost is None and not self._closed.is_set():
                    self._reconnect()
                if self._talk.lost is not None or self._talk.broken is not None:
                    return
            response = self._next()
            with self._lock:
                self._enter(response)

    # Closing.

    def _part(self, reader: Thread | None) -> None:
        """Hears what is still to come, and lets the server end the stream."""
        if reader is not None and self._talk.broken is None:
            self._outbox.put(None)
            reader.join(_GOODBYE)
            return
        if reader is not None:  # it is about to end, too
            reader.join(_GOODBYE)
        with self._lock:
            self._repeat_closes()
        limit = Timer(_GOODBYE, self._call.cancel)
        try:
            limit.start()
            self._hear_closed()
            self._outbox.put(None)
            while not isinstance(self._next(), TidegateError):
                pass
        finally:
            limit.cancel()

    def _repeat_closes(self) -> None:
        """A close that a lost stream took with it is said on a new one, or the server would keep the sequence."""
        if not self._call.is_active() and self._talk.broken is None:
            self._talk.break_off(ConnectionLost("the stream ended"))
        if self._talk.broken is not None:
            self._hang_up()
            self._connect()
            for request in self._talk.resume():
                self._outbox.put(request)

    def _hear_closed(self) -> None:
        while self._talk.closing and self._talk.broken is None and self._talk.lost is None:
            response = self._next()
            with self._lock:
                self._enter(response)


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _messages(outbox: Outbox, limit: Callable[[], int]) -> Iterator[pb.StreamRequest]:
    """What gRPC is to send: what waits in an outbox until its end, bundled where several wait."""

    def next_now() -> pb.StreamRequest | None:
        if outbox.empty():
            return None
        request = outbox.get()  # nobody else takes from it
        if request is None:
            outbox.put(None)
        return request

    bundler = Bundler(next_now, limit)
    while (request := bundler.left() or outbox.get()) is not None:
        yield bundler.fill(request)
