"""A client's streams, one after the other: sends the requests of a Conversation, and enters what comes into it.

Written once for threads and for asyncio. What waits is a coroutine; with threads it blocks where it waits, so that one
`send(None)` runs it to its end.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from tidegate.errors import ConnectionLost, ProtocolError, TidegateError, TimedOut
from tidegate.plain.answers import Response
from tidegate.plain.steps import Request
from tidegate.protocol.budget import Budget, why_no_room
from tidegate.protocol.conversation import Conversation, Requests
from tidegate.protocol.promise import Promise
from tidegate.protocol.registry import Books
from tidegate.protocol.route import headers
from tidegate.transport.deadline import Deadline
from tidegate.transport.endpoint import Endpoint
from tidegate.transport.recovery import Pace, Recovery, Resuming, report
from tidegate.v1 import sequence_pb2 as pb

GOODBYE = 1.0  # seconds that a server may take to end a stream on which nothing is open

K = TypeVar("K", bound=Promise[Any])
R = TypeVar("R")
Build = Callable[..., tuple[K, Requests]]  # enters something in the books: its promise, and what to send


class Timer(Protocol):
    """A call that is to be made later."""

    def cancel(self) -> None: ...


class Stream(Protocol):
    """The present stream of a link."""

    def put(self, *requests: Request | None, waits: bool = False) -> None:
        """Sends requests, or with None the end of them. Where a caller `waits` for the answer, it may do so then."""

    def hang_up(self) -> None:
        """Ends it in both directions."""


class Link(ABC):
    """One stream after the other to one server. `within`: for how many seconds it resumes; None: without a limit."""

    _lock: AbstractContextManager[object]  # guards the conversation; never held during a wait
    _stream: Stream
    _check_place: Callable[[], None]  # raises RuntimeError in another process, or event loop, than that of the link

    def __init__(self, address: Endpoint, route: str, resuming: Resuming, within: float | None) -> None:
        self._address = address
        self._place = address.direct()  # where connections of its own lead to; None: gRPC's channel has the streams
        self._headers = headers(route)
        self._resuming = resuming
        self._within = within
        self.talk = Conversation(None if within == 0 else Budget(resuming.keep_bytes, resuming.keep_steps))
        self._left: deque[Books] = deque()  # to be ended before the next message is sent
        self._waiting: dict[Any, Promise[Any]] = {}  # who waits, and for what
        self._pace = Pace(resuming)
        self._recovery: Recovery | None = None
        self._later: Timer | None = None  # for what the server had no room for
        self._confirmed: Callable[[], object] | None = None  # called when nothing is left to be closed

    @abstractmethod
    def _connect(self) -> None:
        """Makes the next stream."""

    @abstractmethod
    def _after(self, seconds: float, call: Callable[[], None]) -> Timer: ...

    @abstractmethod
    async def settled(self, promise: Promise[Any], timeout: float | None) -> bool:
        """Waits until the promise is settled; whether it is, after `timeout` seconds at most."""

    # Sending and waiting.

    async def send(self, books: Books, deadline: Deadline, build: Build[K], *values: object) -> K:
        """Builds messages with steps and sends them; one after the other, so that their numbers go out in order.

        gRPC takes them from the outbox as the server reads. Waits only while the inputs that are kept have reached
        their bound, or the sequence is being rewound. Raises TimedOut if that lasts until the deadline.
        """
        self._check_place()
        while True:
            with self._lock:
                if self._left:
                    self._carry_out()
                room = books.room()
                if room is None:
                    return self._say(build, *values, waits=True)
            await self._await_room(room, deadline.left)

    def ask(self, build: Build[K], *values: object) -> K:
        """Builds messages and sends them, however many inputs are kept."""
        self._check_place()
        with self._lock:
            self._carry_out()
            return self._say(build, *values)

    async def wait(self, promise: Promise[Any], timeout: float | None) -> None:
        """Until the promise is settled. Raises TimedOut after `timeout` seconds; the answer is then dropped."""
        if not await self.settled(promise, timeout):
            raise self.timed_out()

    def timed_out(self) -> TimedOut:
        return TimedOut(f"no answer from {self._address} in the given time")

    async def _await_room(self, room: Promise[None], timeout: float | None) -> None:
        settled = False
        try:
            settled = await self.settled(room, timeout)
        finally:
            if not settled:
                with self._lock:
                    why = why_no_room(self.talk.budget, room)
        if not settled:
            raise TimedOut(why)

    def look(self, read: Callable[[], R]) -> R:
        with self._lock:
            return read()

    def leave(self, books: Books) -> None:
        """Has sequences ended, without waiting."""
        self._left.append(books)
        self._carry_out()

    def enrol(self, books: Books) -> None:
        with self._lock:
            self._put(self.talk.enrol(books))

    def disown(self, promise: Promise[pb.Opened]) -> None:
        with self._lock:
            self._put(self.talk.disown(promise))

    # With the lock held.

    def _put(self, requests: Requests) -> None:
        if requests:
            self._stream.put(*requests)

    def _hang_up(self) -> None:
        self._stream.hang_up()

    def _limit(self) -> int:
        return self.talk.max_message_bytes

    def _carry_out(self) -> None:
        while self._left:
            self._say(self.talk.close, self._left[0])
            self._left.popleft()

    def _say(self, build: Build[K], *values: object, waits: bool = False) -> K:
        try:
            promise, requests = build(*values)
            if requests:
                self._stream.put(*requests, waits=waits)
        except Exception:
            raise
        except BaseException:  # interrupted: how much of it was sent is unknown
            self._break_off(ConnectionLost("sending was interrupted, which ends the stream"))
            raise
        return promise

    def _enter(self, response: Response | TidegateError) -> None:
        """Enters a message, or the error that ended the stream."""
        if self.talk.broken is not None:  # an interrupted caller has broken the stream off meanwhile
            return
        if isinstance(response, TidegateError):
            self._break_off(response)
            return
        try:
            self._put(self.talk.receive(response))
        except ProtocolError as error:
            self._lose(error)
            return
        self._look_around()

    def _took(self, response: Response) -> bool:
        """Enters a message; whether no more of this stream is wanted."""
        self._enter(response)
        return (self.talk.lost or self.talk.broken) is not None

    def _why_ended(self) -> TidegateError:
        why = self.talk.lost or self.talk.broken
        return why or ConnectionLost(f"the server at {self._address} ended the stream")

    def _failed(self, error: BaseException) -> TidegateError:
        return ConnectionLost(f"this client failed while it read from {self._address}: {error!r}")

    def _look_around(self) -> None:
        """Does what a message has made due."""
        if self.talk.resumption.deferred and self._later is None:
            self._defer()
        if self.talk.broken is not None:
            self._break_off(self.talk.broken)
        elif self._recovery is not None and self._recovery.over(self.talk):
            self._recovery = None
        elif self.talk.resumption.casualties:
            report(self.talk)
        if self._confirmed is not None and not self.talk.closing:
            self._confirmed()

    def _break_off(self, error: TidegateError) -> None:
        """Drops the stream; the conversation continues on another one if there is something to resume."""
        self.talk.break_off(error)
        self._hang_up()
        if self.talk.broken is not None:
            self._recover()

    def _lose(self, error: TidegateError) -> None:
        self.talk.lose(error)
        self._hang_up()

    def _end(self, why: str) -> None:
        if self._later is not None:
            self._later.cancel()
        self._lose(ConnectionLost(why))

    def _defer(self) -> None:
        """Asks again after a while for sequences that the server had no room for."""
        wait = self._next_wait()
        if wait is None:
            self.talk.resumption.give_up_deferred()
        else:
            self._later = self._after(wait, self._try_deferred)

    def _try_deferred(self) -> None:
        with self._lock:
            self._later = None
            self._put(self.talk.resumption.try_deferred())

    def _recover(self) -> Recovery:
        if self._recovery is None:
            self._recovery = Recovery(self._resuming, self._within, self._address, self.talk, self._pace)
        return self._recovery

    def _next_wait(self) -> float | None:
        """Seconds until the next attempt; None: the time is over, which runs only while a caller waits."""
        return self._recover().next_wait(anew=not self._waiting)

    def _wait_to_reconnect(self) -> float | None:
        """Seconds until the next stream is to be made; None: there will be none."""
        wait = self._next_wait()
        if wait is None:
            self.talk.give_up(self._recover().why_over(self.talk))
            report(self.talk)
        return wait
