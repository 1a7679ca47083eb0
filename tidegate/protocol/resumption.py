"""What is resumed after a loss: which sequences are claimed, which have gone on since, which are lost. Pure.

Knows the books of what is open. Knows neither what is being opened nor when another stream is tried.
"""

import numpy as np

from tidegate.errors import ConnectionLost, Refused, SequenceLost, TidegateError
from tidegate.protocol.registry import Books, Registry, close_request
from tidegate.v1 import sequence_pb2 as pb

# There is nothing left to close.
_ENDED = {"UNKNOWN_SEQUENCE", "SEQUENCE_ENDED", "SEQUENCE_EXPIRED", "SEQUENCE_EVICTED"}
# The server has no room for it now.
_FULL = {"TOO_MANY_SEQUENCES", "TOO_MANY_OF_OWNER"}


class Resumption:
    """The resumption of everything that one client has open, over all its losses."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.deferred: dict[int, Refused] = {}  # by handle, what a server has no room for now, and its refusal
        self.resumed = 0  # sequences since the first loss, and how many of their steps were sent again
        self.sent_again = 0
        self.casualties: list[SequenceLost] = []  # what could not be resumed

    @property
    def possible(self) -> bool:
        return any(self._goes_on(books) for books in self._registry.all())

    def _goes_on(self, books: Books) -> bool:
        return books.resumable and (books.ended is None or books.handle in self._registry.closing)

    def break_off(self, error: TidegateError, *, unanswered: bool) -> None:
        """Enters that the stream is lost. What can go on waits for the next; a Resume sent on it is `unanswered`."""
        self._registry.hang_up()
        for books in self._registry.all():
            if self._goes_on(books):
                if books.parked and unanswered:
                    self._registry.doubted.add(books.handle)
                books.park()
                self._registry.recovering.add(books.handle)
            else:
                self._registry.remove(books)
                books.end(as_loss(error))
                books.abandon(error)
        self.deferred.clear()

    def park(self, books: Books) -> pb.StreamRequest:
        books.park()
        self._registry.recovering.add(books.handle)
        return _claim(books)

    def claims(self) -> list[pb.StreamRequest]:
        return [_claim(books) for books in self._registry.all() if books.parked]

    # The server's answers to that.

    def opened(self, books: Books, opened: pb.Opened) -> list[pb.StreamRequest]:
        try:
            requests = books.resumed(opened)
        except (SequenceLost, Refused) as error:  # refused by the books: this server takes no message as large as a row
            lost = error if isinstance(error, SequenceLost) else books.loss(error.reason, error.message)
            books.parked = False
            books.abandon(lost)
            return self.after_refusal(books)
        self.resumed += books.count
        self.sent_again += books.sent_again
        self.check_recovered(books)
        closing = books.handle in self._registry.closing
        return [*requests, *books.say([close_request(books)])] if closing else requests

    def refused(self, books: Books, refusal: Refused) -> list[pb.StreamRequest]:
        """Enters that this server refused to resume sequences; returns what to send instead."""
        if refusal.reason in _FULL:  # others go on meanwhile
            self.deferred[books.handle] = refusal
            return []
        if refusal.reason == "UNKNOWN_SEQUENCE" and books.order is not None:
            return [books.order.request(books.handle)]
        if books.handle in self._registry.closing and refusal.reason in _ENDED and not books.waiting:
            steps = np.atleast_1d(books.answered).tolist()
            self._registry.closed(pb.Closed(handle=books.handle, count=books.count, steps=steps))
            return []
        self._fail(books, books.loss(refusal.reason, refusal.message))
        return []

    def after_refusal(self, books: Books) -> list[pb.StreamRequest]:
        """Removes books that a refusal has ended; returns what to send."""
        if self._registry.recovering:
            self.check_recovered(books)
        closing = books.handle in self._registry.closing
        if books.ended is not None and books.caught_up and not closing:
            if isinstance(books.ended, SequenceLost):
                self.casualties.append(books.ended)
            return self._registry.leave(books)
        return books.say([])

    def check_recovered(self, books: Books) -> None:
        """Called when an answer came: notes those that have gone on since the loss."""
        if books.caught_up:
            self._registry.recovering.discard(books.handle)

    def may_be_ours(self, concerned: list[Books]) -> bool:
        """Whether a Resume of this client that a server carried out late may have taken these over. True only once."""
        doubted = bool(self._registry.doubted.intersection(books.handle for books in concerned))
        if doubted:
            self._registry.doubted.clear()
        return doubted

    def released(self, concerned: list[Books], refusal: Refused) -> list[pb.StreamRequest]:
        """Enters that the server released these. A fleet goes on as a whole only, so its other members are parked."""
        requests = []
        for books in concerned:
            requests += self._registry.leave(books)
            self._abandon_as_lost(books, books.loss(refusal.reason, refusal.message))
        return requests

    # What there was no room for.

    def try_deferred(self) -> list[pb.StreamRequest]:
        deferred, self.deferred = self.deferred, {}
        return [_claim(books) for books in self._registry.all() if books.handle in deferred]

    def give_up_deferred(self) -> None:
        deferred, self.deferred = self.deferred, {}
        for books in [books for books in self._registry.all() if books.handle in deferred]:
            refusal = deferred[books.handle]
            self._fail(books, books.loss(refusal.reason, refusal.message))

    # What is not resumed.

    def give_up(self, why: str) -> None:
        for books in self._registry.all():
            self._fail(books, books.loss("UNREACHABLE", why))

    def _fail(self, books: Books, error: SequenceLost) -> None:
        self._registry.remove(books)
        self._abandon_as_lost(books, error)

    def _abandon_as_lost(self, books: Books, error: SequenceLost) -> None:
        self.casualties.append(error)
        books.abandon(error)
        self._registry.not_closed(books.handle, error)


def as_loss(error: TidegateError) -> ConnectionLost:
    return error if isinstance(error, ConnectionLost) else ConnectionLost(f"the stream is gone: {error}")


def _claim(books: Books) -> pb.StreamRequest:
    return books.claim().request(books.handle)
