"""One stream, for threads: what a Conversation says goes out, what comes in goes to it.

No thread of its own while nobody sets a time limit: whoever waits for an answer reads the stream itself and hands the
others what is theirs, so that a lone sequence pays for no change of threads. A wait with a limit needs a reading
thread, because a blocked read cannot be left; it is started once, with the first such wait.
"""

import time
from collections.abc import Callable
from queue import SimpleQueue
from threading import Condition, Lock, Thread, Timer
from typing import Any, TypeVar

import grpc

from tidegate.conversation import Conversation
from tidegate.errors import ConnectionLost, ProtocolError, TidegateError, TimedOut
from tidegate.fleet_ledger import FleetLedger
from tidegate.ledger import Ledger
from tidegate.opening import Order
from tidegate.status import explain
from tidegate.ticket import Ticket
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1.tidegate_pb2_grpc import TidegateStub

K = TypeVar("K", bound=Ticket[Any])

_GOODBYE = 1.0  # seconds that a server may take to end a stream on which nothing is open


class Connection:
    """A stream that any number of threads share."""

    def __init__(self, stub: TidegateStub, address: str) -> None:
        self._address = address
        self._talk = Conversation()
        self._outbox: SimpleQueue[pb.StreamRequest | None] = SimpleQueue()
        self._call = stub.Stream(iter(self._outbox.get, None))
        # Guards the conversation and the three fields below; never held while reading.
        self._lock = Lock()
        self._reading = False
        self._reader: Thread | None = None
        self._waiting: dict[Ticket[Any], Condition] = {}

    @property
    def alive(self) -> bool:
        """Whether sequences can be opened on it."""
        return self._talk.lost is None and self._call.is_active()

    def send(self, build: Callable[..., tuple[K, list[pb.StreamRequest]]], *values: object) -> K:
        """Builds messages and sends them; one after the other, so that step numbers go out in their order.

        Never blocks: gRPC takes them from the outbox as the server reads, while whoever waits reads the answers.
        """
        with self._lock:
            ticket, requests = build(*values)
            for request in requests:
                self._outbox.put(request)
        return ticket

    def open(self, order: Order) -> Ticket[pb.Opened]:
        """Asks for new sequences."""
        return self.send(self._talk.open, order)

    def enrol(self, ledger: Ledger | FleetLedger) -> None:
        """Enters what was opened."""
        with self._lock:
            self._talk.enrol(ledger)

    def end(self, ledger: Ledger | FleetLedger) -> Ticket[pb.Closed]:
        """Asks to end sequences."""
        return self.send(self._talk.close, ledger)

    def wait(self, ticket: Ticket[Any], timeout: float | None) -> None:
        """Until the ticket is settled. Raises TimedOut after `timeout` seconds; the answer is then dropped."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            try:
                while not ticket.done:
                    if self._reading:
                        self._follow(ticket, deadline)
                    elif deadline is None:
                        self._read()
                    else:
                        self._start_reader()
            finally:
                self._hand_over()

    def close(self, why: str) -> None:
        """Ends the stream: in peace if nothing is open on it, else by cancelling it. Whoever waits gets an error."""
        with self._lock:
            peaceful = self.alive and self._talk.idle
            reader, others_read = self._reader, self._reading
            self._reading = True
        self._outbox.put(None)
        if peaceful and reader is not None:
            reader.join(_GOODBYE)
        elif peaceful and not others_read:
            self._drain()
        self._call.cancel()
        with self._lock:
            self._lose(ConnectionLost(why))

    # Reading, with the lock held except while the read blocks.

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
            self._call.cancel()
            with self._lock:
                self._lose(ConnectionLost("reading was interrupted, which ends the stream"))
            raise

    def _enter(self, response: pb.StreamResponse | TidegateError) -> None:
        if isinstance(response, TidegateError):
            self._lose(response)
            return
        try:
            ticket = self._talk.receive(response)
        except ProtocolError as error:
            self._call.cancel()
            self._lose(error)
            return
        waiting = None if ticket is None else self._waiting.get(ticket)
        if waiting is not None:
            waiting.notify()

    def _lose(self, error: TidegateError) -> None:
        self._talk.lose(error)
        self._outbox.put(None)
        for waiting in self._waiting.values():
            waiting.notify()

    # Waiting while another thread reads.

    def _follow(self, ticket: Ticket[Any], deadline: float | None) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimedOut(f"no answer from {self._address} in the given time")
        turn = self._waiting.setdefault(ticket, Condition(self._lock))
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
        while self._talk.lost is None:
            response = self._next()
            with self._lock:
                self._enter(response)

    def _drain(self) -> None:
        """Reads what is left on a stream that the other side is about to end."""
        limit = Timer(_GOODBYE, self._call.cancel)
        limit.start()
        try:
            while not isinstance(self._next(), TidegateError):
                pass
        finally:
            limit.cancel()
