"""A client's talk with a server, without the stream: which messages to send, and to whom each that comes belongs.

Any number of sequences and fleets share it, and it outlives its streams: `break_off` when one is gone, `resume` for the
first words on the next. Pure: a shell puts the requests on a wire, hands in what comes, waits for tickets in its own
way, with threads or with asyncio, and decides when to try again. Not thread-safe by itself.
"""

from collections.abc import Iterable
from copy import copy

import numpy as np

from tidegate.budget import Budget
from tidegate.errors import (
    ConnectionLost,
    ModelNotReady,
    ProtocolError,
    Refused,
    SequenceEnded,
    SequenceLost,
    ServerBusy,
    TidegateError,
    reason_name,
    refused,
)
from tidegate.fleet_ledger import FleetLedger
from tidegate.handles import Handles
from tidegate.ledger import Ledger
from tidegate.members import HANDLE, STEP
from tidegate.opening import Claim, Order
from tidegate.ticket import Ticket
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1.error_pb2 import REASON_HANDLE_IN_USE

Books = Ledger | FleetLedger
Requests = list[pb.StreamRequest]

# Reasons for which a client tries again after a while; every other is final for what it concerns.
_LATER = {"DRAINING", "MODEL_NOT_READY", "STORE_UNAVAILABLE"}
# Ends of a stream that say nothing against the next one, besides the connection's own.
_PASSING = {*_LATER, "TOO_MANY_STREAMS"}
# There is nothing left to end.
_ENDED = {"UNKNOWN_SEQUENCE", "SEQUENCE_ENDED", "SEQUENCE_EXPIRED", "SEQUENCE_EVICTED"}


class _Entry:
    """What is being opened, or was and has no books yet: who asked may have to learn more before it can make them."""

    __slots__ = ("gone", "opened", "order", "ticket", "wanted")

    def __init__(self, order: Order | Claim) -> None:
        self.order = order
        self.ticket: Ticket[pb.Opened] = Ticket()
        self.opened = False
        self.gone = False  # from the server that opened it, since
        self.wanted = True


class Conversation:
    """The bookkeeping of one client. Without a `budget` nothing is kept, and nothing is resumed."""

    def __init__(self, budget: Budget | None = None) -> None:
        self.lost: TidegateError | None = None  # for good
        self.broken: TidegateError | None = None  # for now: why there is no stream
        self.recovering: set[int] = set()  # handles of books that did not get on since the last loss
        self.resumed = 0  # sequences since the first loss, and how many of their steps were sent again
        self.sent_again = 0
        self.casualties: list[SequenceLost] = []  # what could not be resumed
        self.max_message_bytes = 0  # of the server; 0: it did not say
        self.budget = budget
        self._handles = Handles()
        self._entering: dict[int, _Entry] = {}
        self._sequences: dict[int, Ledger] = {}
        self._fleets: dict[int, FleetLedger] = {}
        self._closing: dict[int, Ticket[pb.Closed]] = {}
        self.deferred: dict[int, Refused] = {}  # by handle: what a server has no room for now, and how it said so
        self._doubted: set[int] = set()  # handles of books whose Resume a stream took with it, unanswered
        self._worked = False  # whether a server ever answered

    @property
    def idle(self) -> bool:
        """Whether nothing is open on it, but for what is already being closed."""
        return not self._awaited and {*self._sequences, *self._fleets} <= self._closing.keys()

    @property
    def closing(self) -> bool:
        """Whether a server is still to confirm that something is closed."""
        return bool(self._closing)

    @property
    def resumable(self) -> bool:
        """Whether something is open that can go on after a loss."""
        return any(self._goes_on(books) for books in self._all())

    # Sending.

    def open(self, order: Order | Claim) -> tuple[Ticket[pb.Opened], Requests]:
        """Asks for new sequences, or for ones that were opened before."""
        if self.lost is not None:
            raise copy(self.lost)
        handle = self._handles.take(order.count)
        entry = self._entering[handle] = _Entry(order)
        return entry.ticket, [] if self.broken else [order.request(handle)]

    def disown(self, ticket: Ticket[pb.Opened]) -> Requests:
        """Nobody will enrol what was asked for: what is new is ended; what was there before stays as it is."""
        handle = next((handle for handle, entry in self._entering.items() if entry.ticket is ticket), None)
        if handle is None:
            return []
        self._entering[handle].wanted = False
        return self._discard(handle) if self._entering[handle].opened else []

    def enrol(self, books: Books) -> Requests:
        """Enters the books of what was opened; from now on its answers go there."""
        if isinstance(books, FleetLedger):
            self._fleets[books.handle] = books
        else:
            self._sequences[books.handle] = books
        entry = self._entering.pop(books.handle, None)
        gone = entry is not None and entry.gone
        if self.lost is not None:
            books.abandon(self.lost)
        elif gone and not books.resumable:
            books.abandon(ConnectionLost("the stream was lost while the sequence was being opened"))
        elif gone:
            books.park()
            self.recovering.add(books.handle)
            return [] if self.broken else [self._claim(books)]
        return []

    def close(self, books: Books) -> tuple[Ticket[pb.Closed], Requests]:
        """Asks to end sequences after their last answer. No more steps can be sent."""
        ticket: Ticket[pb.Closed] = Ticket()
        over = books.ended
        books.end(SequenceEnded("this sequence was closed"))
        if self.lost is not None or self._find(books.handle) is not books:  # lost, or closed before
            ticket.fail(over or self.lost or SequenceEnded("this sequence was closed"))
        else:
            self._closing[books.handle] = ticket
            return ticket, books.say([_close(books)])
        return ticket, []

    def read_state(self, ledger: Ledger) -> "Asked":
        """Asks for the state after the steps that were sent."""
        return ledger.ask("read_state", pb.StreamRequest(read_state=pb.ReadState(handle=ledger.handle)))

    def rewind(self, ledger: Ledger, step: int) -> "Asked":
        """Asks to go back to the newest checkpoint at or before a step."""
        return ledger.ask("rewind", pb.StreamRequest(rewind=pb.Rewind(handle=ledger.handle, step=step)))

    def move(self, ledger: Ledger, version: int) -> "Asked":
        """Asks to go on with another version of the model."""
        return ledger.ask("move", pb.StreamRequest(move=pb.Move(handle=ledger.handle, version=version)))

    # Receiving.

    def receive(self, response: pb.StreamResponse) -> Requests:
        """Enters a message, or a bundle of them; what is to be said to it. Raises ProtocolError if it makes no sense.

        It may turn out that the stream is to be left: then `broken` says why.
        """
        self._worked = True
        requests = self._receive(response)
        if response.more:
            for message in response.more:
                if self.broken is None and self.lost is None:
                    requests = [*requests, *self._receive(message)]
        return requests

    def _receive(self, response: pb.StreamResponse) -> Requests:
        match response.WhichOneof("response"):
            case "answers":
                self._answered(response.answers)
            case "fleet":
                self._fleet_answered(response.fleet)
            case "opened":
                return self._opened(response.opened)
            case "closed":
                self._closed(response.closed)
            case "failure":
                return self._refused(response.failure)
            case "released":
                return self._released(response.released)
            case "checkpointed":
                self._checkpointed(response.checkpointed)
            case _:
                return self._told(response)
        return []

    def _told(self, response: pb.StreamResponse) -> Requests:
        match response.WhichOneof("response"):
            case "state":
                self._sequence(response.state.handle).told_state(response)
            case "rewound":
                return self._sequence(response.rewound.handle).rewound(response)
            case "moved":
                return self._sequence(response.moved.handle).moved(response)
            case _:
                pass  # a message newer than this client
        return []

    def _answered(self, answers: pb.Answers) -> None:
        ledger = self._sequences.get(answers.handle)
        if ledger is None:
            raise ProtocolError(f"the server answered handle {answers.handle}, which is not open")
        ledger.receive(answers)
        if self.recovering:
            self._check_recovered(ledger)

    def _fleet_answered(self, answers: pb.FleetAnswers) -> None:
        ledger = self._find(int.from_bytes(answers.handles[:4], "little"))
        if not isinstance(ledger, FleetLedger):
            raise ProtocolError("the server answered a fleet that is not open")
        ledger.receive(answers)
        if self.recovering:
            self._check_recovered(ledger)

    def _opened(self, opened: pb.Opened) -> Requests:
        self.max_message_bytes = opened.max_message_bytes
        entry = self._entering.get(opened.handle)
        if entry is not None and not entry.opened:
            entry.opened = True
            entry.ticket.resolve(opened)
            return [] if entry.wanted else self._discard(opened.handle)
        books = self._sequences.get(opened.handle) or self._fleets.get(opened.handle)
        if books is None or not books.parked:
            raise ProtocolError(f"the server opened handle {opened.handle}, which nobody asked for")
        return self._resumed(books, opened)

    def _closed(self, closed: pb.Closed) -> None:
        books = self._sequences.pop(closed.handle, None) or self._fleets.pop(closed.handle, None)
        if books is not None:
            books.abandon(SequenceEnded("the server closed this sequence"))
            self.recovering.discard(closed.handle)
            self._doubted.discard(closed.handle)
        ticket = self._closing.pop(closed.handle, None)
        if ticket is not None:
            self._handles.give(closed.handle, closed.count or 1)
            ticket.resolve(closed)
        elif closed.handle in self._entering:  # what was opened for nobody
            self._leave(closed.handle)

    def _refused(self, failure: pb.Failure) -> Requests:
        if not failure.handles:  # a message of ours, and nobody would ever hear of it
            raise ProtocolError(f"the server could not tell whose message it refused: {failure.error.message}")
        handle = failure.handles[0]
        refusal = refused(reason_name(failure.error.reason), failure.error.message)
        if handle in self._entering and not self._entering[handle].opened:
            self._open_refused(handle, refusal, failure)
            return []
        books = self._find(handle)
        if books is not None and books.parked:
            return self._resume_refused(books, refusal)
        if books is not None and books.resumable and refusal.reason == "DRAINING":
            self.break_off(refusal)
            return []
        if books is not None and books.refused(failure):
            return self._after_refusal(books)
        if handle in self._closing:
            self._closing.pop(handle).fail(refusal)
            if books is not None and not failure.expected_steps:  # the server does not have it
                self._forget(books)
                books.abandon(refusal)
        return []

    def _after_refusal(self, books: Books) -> Requests:
        """A step that could not be repeated has ended the books, and the server has to be told."""
        if self.recovering:
            self._check_recovered(books)
        if isinstance(books.ended, SequenceLost) and books.caught_up and books.handle not in self._closing:
            self.casualties.append(books.ended)
            self._closing[books.handle] = Ticket()
            return [_close(books)]
        return books.say([])

    def _open_refused(self, handle: int, refusal: Refused, failure: pb.Failure) -> None:
        order, ticket = self._entering[handle].order, self._entering[handle].ticket
        if refusal.reason == "DRAINING" and self.resumable:  # what is open moves, and this goes with it
            self.break_off(refusal)
            return
        del self._entering[handle]
        if failure.error.reason != REASON_HANDLE_IN_USE:
            self._handles.give(handle, order.count)
        if isinstance(order, Claim) and not isinstance(refusal, ServerBusy | ModelNotReady):
            ticket.fail(SequenceLost(refusal.reason, refusal.message, int(np.min(order.answered))))
        else:
            ticket.fail(refusal)

    def _checkpointed(self, message: pb.Checkpointed) -> None:
        handles = np.frombuffer(message.handles, HANDLE).astype(np.int64)
        steps = np.frombuffer(message.steps, STEP)
        for fleet in self._fleets.values():
            rows = (handles >= fleet.handle) & (handles < fleet.handle + fleet.count)
            if rows.any():
                fleet.checkpointed(handles[rows] - fleet.handle, steps[rows])
                handles, steps = handles[~rows], steps[~rows]
        for handle, step in zip(handles.tolist(), steps.tolist(), strict=True):
            ledger = self._sequences.get(handle)
            if ledger is not None:
                ledger.checkpointed(step)

    def _released(self, released: pb.Released) -> Requests:
        refusal = refused(reason_name(released.error.reason), released.error.message)
        concerned = self._books_of(released.handles)
        entering = [entry for handle, entry in self._entering.items() if handle in released.handles]
        for entry in entering:
            entry.gone = True
        if refusal.reason == "DRAINING" and (entering or any(books.resumable for books in concerned)):
            self.break_off(refusal)
            return []
        if refusal.reason == "TAKEN_OVER" and self._doubted.intersection(books.handle for books in concerned):
            self._doubted.clear()  # perhaps by ourselves: a server may carry out late what it was asked
            self.break_off(ConnectionLost(f"an earlier attempt to resume may have come through late: {refusal}"))
            return []
        requests = []
        for books in concerned:
            rest = _close_rest(books, released.handles)
            self._fail(books, SequenceLost(refusal.reason, refusal.message, _answered(books)), free=not rest)
            requests += rest
        return requests

    # A stream is gone.

    def break_off(self, error: TidegateError) -> None:
        """The stream is gone. What can be resumed waits for the next one; everything else fails with this error."""
        if self.lost is not None:
            return
        passing = isinstance(error, ConnectionLost) or (isinstance(error, Refused) and error.reason in _PASSING)
        goes_on = self.resumable or (self._worked and self._awaited and self.budget is not None)
        if not passing or not goes_on:
            self.lose(error)
            return
        for books in self._all():
            if self._goes_on(books):
                if books.parked and self.broken is None:
                    self._doubted.add(books.handle)
                books.park()
                self.recovering.add(books.handle)
            else:
                self._forget(books)
                books.end(_as_loss(error))
                books.abandon(error)
        self.deferred.clear()
        for handle, entry in list(self._entering.items()):
            entry.gone = entry.opened
            if not entry.wanted:
                self._leave(handle)
        self.broken = error

    def resume(self) -> Requests:
        """The first words on a new stream."""
        self.broken = None
        requests = [self._claim(books) for books in self._all() if books.parked]
        opening = ((handle, entry) for handle, entry in self._entering.items() if not entry.opened)
        return requests + [entry.order.request(handle) for handle, entry in opening]

    def try_deferred(self) -> Requests:
        """Asks again for what the server had no room for."""
        deferred, self.deferred = self.deferred, {}
        return [self._claim(books) for books in self._all() if books.handle in deferred]

    def give_up_deferred(self) -> None:
        """There was no room in time."""
        deferred, self.deferred = self.deferred, {}
        for books in [books for books in self._all() if books.handle in deferred]:
            refusal = deferred[books.handle]
            self._fail(books, SequenceLost(refusal.reason, refusal.message, _answered(books)))

    def give_up(self, why: str) -> None:
        """No stream could be had: what waited for one is lost."""
        for books in self._all():
            self._fail(books, SequenceLost("UNREACHABLE", why, _answered(books)))
        self.lose(ConnectionLost(why))

    def lose(self, error: TidegateError) -> None:
        """It is over: everything that waits fails with this error, and so does whatever comes after."""
        if self.lost is not None:
            return
        self.lost = _as_loss(error)
        for ticket in self._closing.values():
            ticket.fail(error)
        self._closing.clear()
        for books in self._all():
            books.end(self.lost)
            books.abandon(error)
        self.recovering.clear()
        self._fail_opening(error)

    def _fail_opening(self, error: TidegateError) -> None:
        for handle, entry in list(self._entering.items()):
            if not entry.opened:
                self._leave(handle)
                entry.ticket.fail(error)

    @property
    def _awaited(self) -> bool:
        """Whether somebody waits for something to be opened, or is about to enrol it."""
        return any(entry.wanted for entry in self._entering.values())

    def _discard(self, handle: int) -> Requests:
        """Ends what was opened for nobody. What was only taken up is let go of with the stream."""
        order = self._entering[handle].order
        return [] if isinstance(order, Claim) else [pb.StreamRequest(close=pb.Close(handle=handle, count=order.count))]

    def _leave(self, handle: int) -> None:
        self._handles.give(handle, self._entering.pop(handle).order.count)

    def _goes_on(self, books: Books) -> bool:
        return books.resumable and (books.ended is None or books.handle in self._closing)

    def _claim(self, books: Books) -> pb.StreamRequest:
        return books.claim().request(books.handle)

    def _resumed(self, books: Books, opened: pb.Opened) -> Requests:
        try:
            requests = books.resumed(opened)
        except SequenceLost as error:
            books.parked = False
            books.abandon(error)
            return self._after_refusal(books)
        self.resumed += books.count
        self.sent_again += books.sent_again
        self._check_recovered(books)
        return [*requests, *books.say([_close(books)])] if books.handle in self._closing else requests

    def _resume_refused(self, books: Books, refusal: Refused) -> Requests:
        if refusal.reason in _LATER:
            self.break_off(refusal)
            return []
        if refusal.reason == "TOO_MANY_SEQUENCES":  # others go on meanwhile
            self.deferred[books.handle] = refusal
            return []
        if refusal.reason == "UNKNOWN_SEQUENCE" and books.order is not None:
            return [books.order.request(books.handle)]
        if books.handle in self._closing and refusal.reason in _ENDED and not books.waiting:
            self._closed(pb.Closed(handle=books.handle, count=books.count, steps=_steps(books)))
            return []
        self._fail(books, SequenceLost(refusal.reason, refusal.message, _answered(books)))
        return []

    def _check_recovered(self, books: Books) -> None:
        if books.caught_up:
            self.recovering.discard(books.handle)

    def _fail(self, books: Books, error: SequenceLost, *, free: bool = True) -> None:
        """These alone cannot go on. Their handles are `free`, unless the server still has some of them."""
        self.casualties.append(error)
        self._forget(books, free=free)
        books.abandon(error)
        ticket = self._closing.pop(books.handle, None)
        if ticket is not None:
            ticket.fail(error)

    def _forget(self, books: Books, *, free: bool = True) -> None:
        self._sequences.pop(books.handle, None)
        self._fleets.pop(books.handle, None)
        self.recovering.discard(books.handle)
        self._doubted.discard(books.handle)
        if free:
            self._handles.give(books.handle, books.count)

    # Whose is it.

    def _all(self) -> list[Books]:
        return [*self._sequences.values(), *self._fleets.values()]

    def _find(self, handle: int) -> Books | None:
        ledger = self._sequences.get(handle)
        if ledger is not None:
            return ledger
        return next((fleet for fleet in self._fleets.values() if fleet.owns(handle)), None)

    def _sequence(self, handle: int) -> Ledger:
        ledger = self._sequences.get(handle)
        if ledger is None:
            raise ProtocolError(f"the server said something of handle {handle}, which is not an open sequence")
        return ledger

    def _books_of(self, handles: Iterable[int]) -> list[Books]:
        found = {id(books): books for books in map(self._find, handles) if books is not None}
        return list(found.values())


Asked = tuple[Ticket[pb.StreamResponse], Requests]


def _close(books: Books) -> pb.StreamRequest:
    return pb.StreamRequest(close=pb.Close(handle=books.handle, count=books.count))


def _close_rest(books: Books, released: Iterable[int]) -> Requests:
    """Ends the members of a fleet that were not released with the others: it can only go on as a whole."""
    rest = np.setdiff1d(np.arange(books.handle, books.handle + books.count), np.array(list(released)))
    runs = np.split(rest, np.flatnonzero(np.diff(rest) > 1) + 1) if len(rest) else []
    return [pb.StreamRequest(close=pb.Close(handle=int(run[0]), count=len(run))) for run in runs]


def _as_loss(error: TidegateError) -> ConnectionLost:
    return error if isinstance(error, ConnectionLost) else ConnectionLost(f"the stream is gone: {error}")


def _answered(books: Books) -> int:
    return int(np.min(books.answered))


def _steps(books: Books) -> list[int]:
    return [int(step) for step in np.atleast_1d(books.answered)]
