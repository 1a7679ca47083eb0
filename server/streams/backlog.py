"""Requests of one client that wait until their sequences are ready, and for their turn; others go on meanwhile.

A request is taken up once, when it is the first in the lines of all of its sequences and all of them are ready.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from server.durability.sequence import UNREADY, ServedSequence
from server.errors import TidegateError
from server.runtime.input_check import Named
from server.runtime.turns import Line, Work
from server.streams.events import Failed
from server.streams.handles import Handles
from server.streams.lines import Lines
from server.streams.window import Window

if TYPE_CHECKING:
    from server.durability.keeper import AnyKeeper

log = logging.getLogger(__name__)

_PIECE = 256  # sequences that are looked at without a break
_EACH = 4_096  # bytes for which a request counts beside its inputs


@dataclass(slots=True, eq=False)
class _Held:
    """A request that waits."""

    request: str
    handles: np.ndarray
    again: Callable[[], None]
    first_step: int
    size: int  # bytes for which it counts
    ready: bool  # whether its sequences have to be ready


class Backlog:
    """The requests of one stream that wait.

    Args:
        handles: knows which sequences are asleep or branched.
        keeper: makes them ready.
        window: tells the client of refusals.
        line: does what is long in turns with the work of other clients.
    """

    def __init__(self, handles: Handles, keeper: AnyKeeper, window: Window, line: Line) -> None:
        self._handles = handles
        self._keeper = keeper
        self._window = window
        self._line = line
        self._putting = 0  # requests that have not their place in all of their lines
        self._lines = Lines[_Held]()
        self.waiting = self._lines.entries
        self.bytes = 0  # for which they count
        self._called: set[ServedSequence] | tuple[()] = ()  # that are being made ready
        self._turn = False  # whether a request that was held is being taken up

    def concerns(self, handle: int) -> bool:
        """Whether a request waits for this sequence."""
        return self._lines.concern((handle,))

    def queue(self, request: str, handles: np.ndarray, again: Callable[[], None]) -> bool:
        """Like `hold`, for a request that waits behind earlier ones alone, whether its sequences are ready or not."""
        if self._turn or not self._concern(handles):
            return False
        self._put(_Held(request, handles, again, 0, _EACH, ready=False))
        return True

    def hold(
        self, request: str, handles: np.ndarray, again: Callable[[], None], first_step: int = 0, inputs: Named = ()
    ) -> bool:
        """Has a request wait if its sequences are not ready or have earlier requests; returns whether it waits.

        `again` takes it up then, with its `inputs`. `request`, its kind as the contract names it, and `first_step` are
        told to the client if it is refused.
        """
        if self._turn:
            return False
        if not len(self._handles.unready(handles)) and not self._concern(handles):
            return False
        size = _EACH + sum(x.nbytes for _, x in inputs)
        self._put(_Held(request, handles, again, first_step, size, ready=True))
        return True

    def _concern(self, handles: np.ndarray) -> bool:
        """Whether requests wait for any of these, or may once they have their places."""
        return bool(self._putting) or self._lines.concern(handles.tolist())

    def clear(self) -> None:
        self._lines.clear()
        self.bytes = 0

    def _put(self, one: _Held) -> None:
        self.bytes += one.size
        self._putting += 1
        self.waiting[one] = ()  # until it has its places
        self._line.run(self._take_place(one))

    def _take_place(self, one: _Held) -> Work:
        try:
            if one in self.waiting:
                yield from self._lines.putting(one, one.handles.tolist(), _PIECE)
        finally:
            self._putting -= 1
        if one in self.waiting and self._lines.is_first(one):
            self._take_up_all([one])
        elif one in self.waiting and one.ready:
            self._call(one)

    def _remove(self, one: _Held) -> Sequence[int]:
        self.bytes -= one.size
        return self._lines.remove(one)

    # Made ready -------------------------------------------------------------------------------------------------------

    def _unready(self, handles: np.ndarray) -> list[ServedSequence]:
        """The open sequences of these that are not ready."""
        unready = self._handles.unready(handles).tolist()
        return [sequence for handle in unready if (sequence := self._handles.sequences.get(handle)) is not None]

    def _call(self, one: _Held) -> bool:
        """Has the sequences of a request made ready; whether there are any that are not."""
        unready = self._unready(one.handles)
        self._make_ready(unready)
        return bool(unready)

    def _make_ready(self, unready: Sequence[ServedSequence]) -> None:
        called = [sequence for sequence in unready if sequence not in self._called]
        if called:
            self._called = self._called or set()
            self._called.update(called)
            self._keeper.parking.wake(called, partial(self._made_ready, called))

    def _made_ready(self, called: Sequence[ServedSequence], error: TidegateError | None) -> None:
        self._line.run(self._take_back(called, error))

    def _take_back(self, called: Sequence[ServedSequence], error: TidegateError | None) -> Work:
        """Takes up the requests that waited for these, or refuses them."""
        concerned = list[int]()
        for at in range(0, len(called), _PIECE):
            if at:
                yield
            concerned += self._note_ready(called[at : at + _PIECE], error)
        self._go_on(concerned)

    def _note_ready(self, called: Sequence[ServedSequence], error: TidegateError | None) -> list[int]:
        """The handles of all requests that may be taken up thereby."""
        if self._called:
            self._called.difference_update(called)
        concerned = [sequence.handle for sequence in called]
        for sequence in called:
            handle = sequence.handle
            if self._handles.sequences.get(handle) is not sequence:
                continue  # it is gone
            if sequence.slot >= 0 and self._handles.slots[handle] < 0:
                self._handles.slots[handle] = sequence.slot
                sequence.model.asleep -= 1
            if error is not None and sequence.life in UNREADY:
                concerned += self._refuse_all(handle, error)
        return concerned

    def _go_on(self, handles: Iterable[int]) -> None:
        self._take_up_all(self._lines.first(handles))

    def _take_up_all(self, first: Iterable[_Held]) -> None:
        """Takes up those of these that are ready, and those behind them; all are the first in their lines."""
        ready = deque(first)
        while ready:
            one = ready.popleft()
            if one not in self.waiting or not self._lines.is_first(one):
                continue
            if one.ready and self._call(one):
                continue
            concerned = self._remove(one)
            self._take_up(one)
            ready.extend(self._lines.first(concerned))

    def _take_up(self, one: _Held) -> None:
        self._turn = True
        try:
            one.again()
        except TidegateError as refusal:
            self._refuse(one, refusal)
        except Exception:
            log.exception("a request that had waited failed")
            self._refuse(one, TidegateError("the server failed; its log has the details"))
        finally:
            self._turn = False

    def _refuse_all(self, handle: int, error: TidegateError) -> list[int]:
        """Refuses the requests that wait for a sequence; returns the handles of all of their sequences."""
        handles: list[int] = []
        for one in self._lines.of(handle):
            handles += self._remove(one)
            self._refuse(one, error)
        return handles

    def _refuse(self, one: _Held, error: TidegateError) -> None:
        expected = self._handles.expected(one.handles)
        self._window.emit(Failed(error, one.handles, one.first_step, expected, one.request))
