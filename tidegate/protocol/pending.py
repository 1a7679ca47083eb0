"""Sequences that were asked for, or are open and have no books yet. Does not know the books. Pure."""

from collections.abc import Collection

import numpy as np

from tidegate.errors import ModelNotReady, Refused, SequenceLost, ServerBusy, TidegateError
from tidegate.protocol.handles import Handles
from tidegate.protocol.opening import Claim, Order
from tidegate.protocol.promise import Promise
from tidegate.v1 import sequence_pb2 as pb


class _PendingOpening:
    """What is being opened, or is open and has no books yet: the caller may have to ask for its inputs first."""

    __slots__ = ("doubted", "gone", "opened", "order", "promise", "released", "wanted")

    def __init__(self, order: Order | Claim) -> None:
        self.order = order
        self.promise: Promise[pb.Opened] = Promise()
        self.opened = False
        self.gone = False  # with its stream, since it was opened
        self.released: Refused | None = None  # why the server released some of it, on the stream that opened it
        self.doubted = False  # whether a stream was lost that its Resume was sent on, unanswered
        self.wanted = True

    def close(self, handle: int) -> pb.StreamRequest:
        """The request that ends new sequences, or parks them if they were resumed or the server released them."""
        park = isinstance(self.order, Claim) or self.released is not None
        return pb.StreamRequest(close=pb.Close(handle=handle, count=self.order.count, park=park))


class Pending:
    """Everything that one client is opening, by its handles."""

    def __init__(self, handles: Handles) -> None:
        self._handles = handles
        self._entering: dict[int, _PendingOpening] = {}

    @property
    def awaited(self) -> bool:
        return any(entry.wanted for entry in self._entering.values())

    def asked(self, handle: int) -> bool:
        return handle in self._entering and not self._entering[handle].opened

    def open(self, order: Order | Claim) -> tuple[Promise[pb.Opened], pb.StreamRequest]:
        """Enters an opening: its promise, and the request. Enters nothing if the request cannot be built."""
        handle = self._handles.take(order.count)
        try:
            request = order.request(handle)
        except BaseException:
            self._handles.give(handle, order.count)
            raise
        entry = self._entering[handle] = _PendingOpening(order)
        return entry.promise, request

    def disown(self, promise: Promise[pb.Opened]) -> list[pb.StreamRequest]:
        """The caller gives up what it asked for: new sequences are ended, resumed ones parked again."""
        handle = next((handle for handle, entry in self._entering.items() if entry.promise is promise), None)
        if handle is None:
            return []
        entry = self._entering[handle]
        entry.wanted = False
        if entry.gone:
            self._leave(handle)
        return [entry.close(handle)] if entry.opened and not entry.gone else []

    def enrol(self, handle: int) -> _PendingOpening:
        """Removes an opening that gets books; returns what happened to it since it was opened."""
        return self._entering.pop(handle)

    # What comes from the server.

    def opened(self, opened: pb.Opened) -> list[pb.StreamRequest]:
        entry = self._entering[opened.handle]
        entry.opened = True
        entry.promise.resolve(opened)
        return [] if entry.wanted else [entry.close(opened.handle)]

    def refused(self, handle: int, refusal: Refused) -> None:
        entry = self._entering.pop(handle)
        order, promise = entry.order, entry.promise
        if refusal.reason != "HANDLE_IN_USE":
            self._handles.give(handle, order.count)
        if isinstance(order, Claim) and not isinstance(refusal, ServerBusy | ModelNotReady):
            promise.fail(SequenceLost(refusal.reason, refusal.message, int(np.min(order.answered))))
        else:
            promise.fail(refusal)

    def closed(self, handle: int) -> None:
        if handle in self._entering:
            self._leave(handle)

    def having(self, handles: Collection[int]) -> dict[int, _PendingOpening]:
        """The openings that have one of these handles, by their first handles."""
        return {
            first: entry
            for first, entry in self._entering.items()
            if entry.opened and any(first <= handle < first + entry.order.count for handle in handles)
        }

    def may_be_ours(self, handles: Collection[int]) -> bool:
        """Whether a late Resume of this client may have taken these over; see Resumption. True only once."""
        doubted = [entry for entry in self.having(handles).values() if entry.doubted and entry.wanted]
        for entry in doubted:
            entry.doubted = False
        return bool(doubted)

    def released(self, handles: Collection[int], refusal: Refused) -> list[pb.StreamRequest]:
        """Enters that the server released these sequences; returns what to send.

        The Close of new sequences that are not wanted is refused if one of them is gone: they are parked instead.
        """
        requests = []
        for first, entry in self.having(handles).items():
            close_refused = not entry.wanted and entry.released is None and isinstance(entry.order, Order)
            entry.released = entry.released or refusal
            if close_refused:
                requests.append(entry.close(first))
        return requests

    # A stream is gone.

    def break_off(self) -> None:
        for handle, entry in list(self._entering.items()):
            entry.gone, entry.released = entry.opened, None
            entry.doubted = entry.doubted or (isinstance(entry.order, Claim) and not entry.opened)
            if not entry.wanted:
                self._leave(handle)

    def again(self) -> list[pb.StreamRequest]:
        return [entry.order.request(handle) for handle, entry in self._entering.items() if not entry.opened]

    def fail(self, error: TidegateError) -> None:
        for handle, entry in list(self._entering.items()):
            if not entry.opened:
                self._leave(handle)
                entry.promise.fail(error)

    def _leave(self, handle: int) -> None:
        self._handles.give(handle, self._entering.pop(handle).order.count)
