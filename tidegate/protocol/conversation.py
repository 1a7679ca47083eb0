"""A client's side of the protocol, without the stream: which messages to send, and what each that comes belongs to.

Any number of sequences and fleets share it, and it outlives its streams: `break_off` when one is lost, `resume` for the
first messages on the next. Pure: a connection sends the requests, hands in what comes, waits for promises, with threads
or with asyncio, and decides when to try again. Not thread-safe by itself.
"""

from collections.abc import Sequence
from copy import copy

from tidegate.errors import ConnectionLost, ProtocolError, Refused, SequenceEnded, TidegateError
from tidegate.messages import read_refusal
from tidegate.plain.answers import PlainAnswer, Response, SomeAnswers
from tidegate.plain.steps import Request
from tidegate.protocol.budget import Budget
from tidegate.protocol.fleet_books import FleetBooks
from tidegate.protocol.handles import Handles
from tidegate.protocol.opening import Claim, Order, whole
from tidegate.protocol.pending import Pending
from tidegate.protocol.promise import Promise
from tidegate.protocol.registry import Books, Registry
from tidegate.protocol.resumption import Resumption, as_loss
from tidegate.protocol.sequence_books import SequenceBooks
from tidegate.v1 import sequence_pb2 as pb

Requests = Sequence[Request]

# Refusals that pass: the same server will take the same request.
SOON = {"MODEL_NOT_READY", "STORE_UNAVAILABLE"}
# Refusals of a Resume after which it is sent again, perhaps to another server; every other is final.
_LATER = {*SOON, "DRAINING"}
# Ends of a stream that say nothing against the next one, besides the connection's own.
_PASSING = {*_LATER, "TOO_MANY_STREAMS", "UNAUTHENTICATED", "PERMISSION_DENIED"}


class Conversation:
    """The bookkeeping of one client. Without a `budget` nothing is kept, and nothing is resumed."""

    def __init__(self, budget: Budget | None = None) -> None:
        self.lost: TidegateError | None = None  # finally
        self._refusal: Refused | None = None  # the server's refusal by which it was lost
        self.broken: TidegateError | None = None  # for the moment: why there is no stream
        self.max_message_bytes = 0  # of the server; 0: it did not say
        self.budget = budget
        handles = Handles()
        self._pending = Pending(handles)
        self._registry = Registry(handles)
        self.resumption = Resumption(self._registry)
        self._worked = False  # whether a server ever answered

    @property
    def idle(self) -> bool:
        return not self._pending.awaited and self._registry.idle

    @property
    def closing(self) -> bool:
        return bool(self._registry.closing)

    @property
    def recovering(self) -> int:
        """How many sequences and fleets have had no answer since the last loss."""
        return len(self._registry.recovering)

    @property
    def resumable(self) -> bool:
        return self.resumption.possible

    # Sending.

    def open(self, order: Order | Claim) -> tuple[Promise[pb.Opened], Requests]:
        if self.lost is not None:
            raise copy(self._refusal or self.lost)
        promise, request = self._pending.open(order)
        return promise, [] if self.broken else [request]

    def disown(self, promise: Promise[pb.Opened]) -> Requests:
        return self._pending.disown(promise)

    def enrol(self, books: Books) -> Requests:
        self._registry.enter(books)
        entry = self._pending.enrol(books.handle)
        if entry.doubted:
            self._registry.doubted.add(books.handle)
        if self.lost is not None:
            books.abandon(self.lost)
        elif entry.released is not None:
            return self.resumption.released([books], entry.released)
        elif entry.gone and not books.resumable:
            books.abandon(ConnectionLost("the stream was lost while the sequence was being opened"))
        elif entry.gone:
            request = self.resumption.park(books)
            return [] if self.broken else [request]
        return []

    def close(self, books: Books) -> tuple[Promise[pb.Closed], Requests]:
        """Asks to end sequences after their last answer, once. No more steps can be sent."""
        over = books.ended
        books.end(SequenceEnded("this sequence was closed"))
        if self.lost is None and self._registry.find(books.handle) is books:
            promise, requests = self._registry.close(books)
            return promise, books.say(requests)
        promise = Promise()
        if books.closed:
            promise.resolve(pb.Closed(handle=books.handle, count=books.count))
        else:
            promise.fail(over or self.lost or SequenceEnded("this sequence was closed"))
        return promise, []

    def read_state(self, books: SequenceBooks) -> "Asked":
        return books.ask("read_state", pb.StreamRequest(read_state=pb.ReadState(handle=books.handle)))

    def rewind(self, books: SequenceBooks, step: int) -> "Asked":
        if whole("step", step) < 0:
            raise ValueError(f"step {step}: steps are numbered from 0")
        return books.ask("rewind", pb.StreamRequest(rewind=pb.Rewind(handle=books.handle, step=step)))

    def move(self, books: SequenceBooks, version: int) -> "Asked":
        if whole("version", version) < 0:
            raise ValueError(f"version {version}: versions are numbered from 1, and 0 is the newest")
        return books.ask("move", pb.StreamRequest(move=pb.Move(handle=books.handle, version=version)))

    # Receiving.

    def receive(self, response: Response) -> Requests:
        """Enters a message, or a bundle of them, and returns the requests to send. Raises ProtocolError.

        If the stream has to be left, `broken` says why.
        """
        self._worked = True
        if isinstance(response, list):
            return self._steps_answered(response)
        requests = self._receive(response)
        if response.more:
            for message in response.more:
                if self.broken is None and self.lost is None:
                    requests = [*requests, *self._receive(message)]
        return requests

    def _receive(self, response: pb.StreamResponse) -> Requests:
        match response.WhichOneof("response"):
            case "answers":
                return self._answered(response.answers)
            case "fleet":
                self._fleet_answered(response.fleet)
            case "opened":
                return self._opened(response.opened)
            case "closed":
                if not self._registry.closed(response.closed):
                    self._pending.closed(response.closed.handle)
            case "failure":
                return self._refused(response.failure)
            case "released":
                return self._released(response.released)
            case "checkpointed":
                self._registry.checkpointed(response.checkpointed)
            case "state" | "rewound" | "moved" as kind:
                books = self._registry.sequence(getattr(response, kind).handle)
                return [] if books is None else books.told(kind, response)
            case _:
                pass  # a message newer than this client
        return []

    def _steps_answered(self, bundle: list[PlainAnswer]) -> Requests:
        requests: list[Request] = []
        for answer in bundle:
            if self.broken is not None or self.lost is not None:
                break
            requests += self._answered(answer)
        return requests

    def _answered(self, answers: SomeAnswers) -> Requests:
        registry = self._registry
        books = registry.sequences.get(answers.handle) or registry.sequence(answers.handle)
        if books is None:
            return []
        requests = books.receive(answers)
        if registry.recovering:
            self.resumption.check_recovered(books)
        return requests

    def _fleet_answered(self, answers: pb.FleetAnswers) -> None:
        books = self._registry.fleet(int.from_bytes(answers.handles[:4], "little"))
        if books is not None:
            books.receive(answers)
            if self._registry.recovering:
                self.resumption.check_recovered(books)

    def _opened(self, opened: pb.Opened) -> Requests:
        self.max_message_bytes = opened.max_message_bytes
        if self._pending.asked(opened.handle):
            return self._pending.opened(opened)
        books = self._registry.opened_as(opened.handle)
        if books is None or not books.parked:
            raise ProtocolError(f"the server opened handle {opened.handle}, which was not asked for")
        return self.resumption.opened(books, opened)

    def _refused(self, failure: pb.Failure) -> Requests:
        if not failure.handles:  # no call would ever get an answer
            raise ProtocolError(f"the server could not tell whose message it refused: {failure.error.message}")
        handle = failure.handles[0]
        refusal = read_refusal(failure.error)
        if refusal.reason == "UNKNOWN_HANDLE":  # the server has released it: Released has the reason, now or before
            if isinstance(fleet := self._registry.find(handle), FleetBooks):
                fleet.member_released()
            return []
        if self._pending.asked(handle):
            self._open_refused(handle, refusal)
            return []
        books = self._registry.find(handle)
        if books is not None and books.parked:
            return self._resume_refused(books, refusal)
        if books is not None and books.resumable and refusal.reason == "DRAINING":
            self.break_off(refusal)
            return []
        if books is not None and failure.request != "close" and books.refused(failure):
            return self.resumption.after_refusal(books)
        stays_open = failure.request in {"", "close"} and self._registry.not_closed(handle, refusal)
        if stays_open and books is not None and not failure.expected_steps:  # the server does not have it
            books.abandon(refusal)
            return self._registry.leave(books)
        return []

    def _open_refused(self, handle: int, refusal: Refused) -> None:
        if refusal.reason == "DRAINING" and self.resumable:  # what is open moves, and this goes with it
            self.break_off(refusal)
        else:
            self._pending.refused(handle, refusal)

    def _resume_refused(self, books: Books, refusal: Refused) -> Requests:
        if refusal.reason in _LATER:
            self.break_off(refusal)
            return []
        return self.resumption.refused(books, refusal)

    def _released(self, released: pb.Released) -> Requests:
        refusal = read_refusal(released.error)
        concerned = self._registry.books_of(released.handles)
        entering = self._pending.having(released.handles)
        if refusal.reason == "DRAINING" and (entering or any(books.resumable for books in concerned)):
            self.break_off(refusal)
            return []
        if refusal.reason == "TAKEN_OVER" and self._may_be_ours(released, concerned):
            self.break_off(ConnectionLost(f"an earlier attempt to resume may have come through late: {refusal}"))
            return []
        requests = self._pending.released(released.handles, refusal)
        return [*requests, *self.resumption.released(concerned, refusal)]

    def _may_be_ours(self, released: pb.Released, concerned: list[Books]) -> bool:
        return self._pending.may_be_ours(released.handles) or self.resumption.may_be_ours(concerned)

    # A stream is gone.

    def break_off(self, error: TidegateError) -> None:
        """Enters that the stream is lost. What can be resumed waits for the next; all else fails with `error`."""
        if self.lost is not None:
            return
        passing = isinstance(error, ConnectionLost) or (isinstance(error, Refused) and error.reason in _PASSING)
        goes_on = self.resumable or (self._worked and self._pending.awaited and self.budget is not None)
        if not passing or not goes_on:
            self.lose(error)
            return
        self.resumption.break_off(error, unanswered=self.broken is None)
        self._pending.break_off()
        self.broken = error

    def resume(self) -> Requests:
        self.broken = None
        return self.resumption.claims() + self._pending.again()

    def give_up(self, why: str) -> None:
        self.resumption.give_up(why)
        self.lose(ConnectionLost(why))

    def lose(self, error: TidegateError) -> None:
        if self.lost is not None:
            return
        self.lost, self._refusal = as_loss(error), error if isinstance(error, Refused) else None
        self._registry.lose(error, self.lost)
        self._pending.fail(error)


Asked = tuple[Promise[pb.StreamResponse], Requests]
