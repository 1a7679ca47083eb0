"""What connections for threads and for asyncio have in common: a conversation and its recoveries. Sends nothing."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from tidegate.errors import TidegateError
from tidegate.protocol.budget import Budget
from tidegate.protocol.conversation import Conversation, Requests
from tidegate.protocol.promise import Promise
from tidegate.protocol.registry import Books
from tidegate.protocol.route import headers
from tidegate.transport.endpoint import Endpoint
from tidegate.transport.recovery import Pace, Recovery, Resuming, report
from tidegate.v1 import sequence_pb2 as pb

GOODBYE = 1.0  # seconds that a server may take to end a stream on which nothing is open


K = TypeVar("K", bound=Promise[Any])
Build = Callable[..., tuple[K, Requests]]  # enters something in the books: its promise, and what to send


class Timer(Protocol):
    """Something that will be called."""

    def cancel(self) -> None: ...


class Link(ABC):
    """One stream after the other to one server. `within`: for how many seconds it resumes; None: for ever."""

    def __init__(self, address: Endpoint, route: str, resuming: Resuming, within: float | None) -> None:
        self._address = address
        self._headers = headers(route)
        self._resuming = resuming
        self._within = within
        self._talk = Conversation(None if within == 0 else Budget(resuming.keep_bytes, resuming.keep_steps))
        self._waiting: set[Promise[Any]] = set()
        self._pace = Pace(resuming)
        self._recovery: Recovery | None = None
        self._later: Timer | None = None  # for what the server had no room for

    @property
    def talk(self) -> Conversation:
        return self._talk

    _lock: AbstractContextManager[object]  # guards what is said; never held while anybody waits

    @abstractmethod
    def ask(self, build: Build[K], *values: object) -> K:
        """Builds messages and sends them, without a look at what is kept."""

    @abstractmethod
    def _put(self, requests: Requests) -> None:
        """These go out on the stream of now."""

    @abstractmethod
    def _hang_up(self) -> None:
        """Nothing more goes out on the stream of now, or comes."""

    @abstractmethod
    def _after(self, seconds: float, call: Callable[[], None]) -> Timer: ...

    def enrol(self, books: Books) -> None:
        with self._lock:
            self._put(self._talk.enrol(books))

    def disown(self, promise: Promise[pb.Opened]) -> None:
        with self._lock:
            self._put(self._talk.disown(promise))

    # With the lock held.

    def _break_off(self, error: TidegateError) -> None:
        """Lets go of the stream; the conversation goes on, on another one, if there is something to resume."""
        self._talk.break_off(error)
        self._hang_up()
        if self._talk.broken is not None:
            self._recover()

    def _lose(self, error: TidegateError) -> None:
        self._talk.lose(error)
        self._hang_up()

    def _defer(self) -> None:
        """Asks for what there was no room for again, after a while."""
        if not self._talk.resumption.deferred or self._later is not None:
            return
        wait = self._next_wait()
        if wait is None:
            self._talk.resumption.give_up_deferred()
        else:
            self._later = self._after(wait, self._try_deferred)

    def _try_deferred(self) -> None:
        with self._lock:
            self._later = None
            self._put(self._talk.resumption.try_deferred())

    def _recover(self) -> Recovery:
        if self._recovery is None:
            self._recovery = Recovery(self._resuming, self._within, self._address, self._talk, self._pace)
        return self._recovery

    def _next_wait(self) -> float | None:
        """Seconds until the next attempt; None: the time is over, which runs only while somebody waits."""
        return self._recover().next_wait(anew=not self._waiting)

    def _give_up(self) -> None:
        self._talk.give_up(self._recover().why_over(self._talk))
        report(self._talk)

    def _note_recovered(self) -> None:
        if self._recovery is not None and self._recovery.over(self._talk):
            self._recovery = None
        elif self._talk.resumption.casualties:
            report(self._talk)
