"""What is being opened: asked for, or opened and without books yet. Knows nothing of what is open. Pure."""

from collections.abc import Collection

import numpy as np

from tidegate.errors import ModelNotReady, Refused, SequenceLost, ServerBusy, TidegateError
from tidegate.protocol.handles import Handles
from tidegate.protocol.opening import Claim, Order
from tidegate.protocol.promise import Promise
from tidegate.v1 import sequence_pb2 as pb


class _PendingOpening:
    """What is being opened, or was and has no books yet: who asked may have to learn more before it can make them."""

    __slots__ = ("gone", "opened", "order", "promise", "wanted")

    def __init__(self, order: Order | Claim) -> None:
        self.order = order
        self.promise: Promise[pb.Opened] = Promise()
        self.opened = False
        self.gone = False  # from the server that opened it, since
        self.wanted = True


class Pending:
    """All that one client is opening, by the handles that it takes for that."""

    def __init__(self, handles: Handles) -> None:
        self._handles = handles
        self._entering: dict[int, _PendingOpening] = {}

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for something to be opened, or is about to enrol it."""
        return any(entry.wanted for entry in self._entering.values())

    def asked(self, handle: int) -> bool:
        return handle in self._entering and not self._entering[handle].opened

    def open(self, order: Order | Claim) -> tuple[Promise[pb.Opened], pb.StreamRequest]:
        """Enters what is asked for, and how to say it; nothing if it cannot be said."""
        handle = self._handles.take(order.count)
        try:
            request = order.request(handle)
        except BaseException:
            self._handles.give(handle, order.count)
            raise
        entry = self._entering[handle] = _PendingOpening(order)
        return entry.promise, request

    def disown(self, promise: Promise[pb.Opened]) -> list[pb.StreamRequest]:
        """Nobody will enrol what was asked for: what is new is ended; what was there before is parked again."""
        handle = next((handle for handle, entry in self._entering.items() if entry.promise is promise), None)
        if handle is None:
            return []
        self._entering[handle].wanted = False
        return self._discard(handle) if self._entering[handle].opened else []

    def enrol(self, handle: int) -> bool:
        """It has books from now on; whether it is gone from the server that opened it."""
        entry = self._entering.pop(handle, None)
        return entry is not None and entry.gone

    # What a server says.

    def opened(self, opened: pb.Opened) -> list[pb.StreamRequest]:
        entry = self._entering[opened.handle]
        entry.opened = True
        entry.promise.resolve(opened)
        return [] if entry.wanted else self._discard(opened.handle)

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

    def released(self, handles: Collection[int]) -> bool:
        """The server let go of these; whether anything here is among them."""
        entering = [entry for handle, entry in self._entering.items() if entry.opened and handle in handles]
        for entry in entering:
            entry.gone = True
        return bool(entering)

    # A stream is gone.

    def break_off(self) -> None:
        """The stream is gone, and with it what was opened on it. The rest is asked for on the next one."""
        for handle, entry in list(self._entering.items()):
            entry.gone = entry.opened
            if not entry.wanted:
                self._leave(handle)

    def again(self) -> list[pb.StreamRequest]:
        return [entry.order.request(handle) for handle, entry in self._entering.items() if not entry.opened]

    def fail(self, error: TidegateError) -> None:
        for handle, entry in list(self._entering.items()):
            if not entry.opened:
                self._leave(handle)
                entry.promise.fail(error)

    def _discard(self, handle: int) -> list[pb.StreamRequest]:
        """Ends what was opened for nobody, or parks it if it was only taken up."""
        order = self._entering[handle].order
        close = pb.Close(handle=handle, count=order.count, park=isinstance(order, Claim))
        return [pb.StreamRequest(close=close)]

    def _leave(self, handle: int) -> None:
        self._handles.give(handle, self._entering.pop(handle).order.count)
