"""How sequences leave a stream: once all their steps are through, they are closed, parked, or were lost already."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from server.durability.sequence import Life, Move, ServedSequence
from server.runtime.turns import Line, Work
from server.streams.handles import CLOSING, FREE, PIECE, Handles, pieces
from server.streams.replies import Group
from server.streams.window import Window

if TYPE_CHECKING:
    from server.durability.keeper import AnyKeeper


log = logging.getLogger(__name__)


class Ending(Enum):
    """What becomes of a sequence that leaves."""

    END = "its client has closed it"
    PARK = "it is kept, if anybody keeps it"
    ABANDON = "its client is gone: likewise, unless it never took a step"
    NONE = "it is out of the keeper's books already"


class Closing:
    """Ends sequences of one stream.

    Args:
        handles: what the client's numbers stand for.
        keeper: parks or ends them.
        window: knows when their steps are through.
        line: does it in turns with what other clients want.
    """

    def __init__(self, handles: Handles, keeper: AnyKeeper, window: Window, line: Line) -> None:
        self._handles = handles
        self._keeper = keeper
        self._window = window
        self._line = line
        self._under_way: list[np.ndarray] = []  # handles of those that are leaving
        self._waiting: list[tuple[np.ndarray, Callable[[], None]]] = []

    def end(self, handles: np.ndarray, leaving: Ending, done: Callable[[], None]) -> None:
        """Frees sequences once all their steps are through, and then calls `done`."""
        split = self._handles.split(handles)
        self._handles.mark(handles, CLOSING)
        self._under_way.append(handles)
        left = len(split)

        def freed() -> None:
            nonlocal left
            left -= 1
            if not left:
                self._under_way = [leaving for leaving in self._under_way if leaving is not handles]
                done()
                self._go_on()

        self._line.run(self._set_out(split, lambda group, members: self._free(group, members, leaving, freed)))

    def _set_out(self, split: Sequence[tuple[Group, np.ndarray]], free: Callable[[Group, np.ndarray], Work]) -> Work:
        """Has each group freed once its steps are through."""
        for group, members in split:
            for part in pieces(members):
                for handle in part.tolist():
                    sequence = self._handles.sequences[handle]
                    if sequence.life is not Life.LOST:
                        sequence.move(Move.CLOSE)
                yield
            self._window.after(group, members, partial(self._line.run, free(group, members)))

    def after(self, handles: np.ndarray, call: Callable[[], None]) -> None:
        """Calls once none of these is leaving any more, and the client was told of those that were."""
        if any(np.isin(leaving, handles).any() for leaving in self._under_way):
            self._waiting.append((handles, call))
        else:
            call()

    def _go_on(self) -> None:
        waiting, self._waiting = self._waiting, []
        for handles, call in waiting:
            self.after(handles, call)

    def _free(self, group: Group, members: np.ndarray, leaving: Ending, freed: Callable[[], None]) -> Work:
        left = 1 + -(-len(members) // PIECE)

        def known() -> None:
            """One more piece is out of the books, and the store knows it; the last call is of the work itself."""
            nonlocal left
            left -= 1
            if not left:
                self._handles.mark(members, FREE)
                freed()

        for part in pieces(members):
            slots = self._handles.slots[part]
            sequences = [self._handles.sequences.pop(handle) for handle in part.tolist()]
            try:
                self._take_leave(sequences, leaving, known)
            except Exception:
                log.exception("sequences failed to leave")
                known()  # their client does not wait for them
            awake = slots[slots >= 0]
            group.model.slots.give_back(awake.tolist())
            group.model.asleep -= len(slots) - len(awake)
            if leaving is Ending.END:
                group.model.counters.closed += len(part)
            self._handles.leave(group, len(part))
            yield
        known()

    def _take_leave(self, sequences: Sequence[ServedSequence], leaving: Ending, then: Callable[[], None]) -> None:
        for sequence in sequences:
            sequence.holder = None
        ours = [sequence for sequence in sequences if sequence.life is not Life.LOST]  # meanwhile
        if ours and leaving is Ending.END:
            self._keeper.end(ours, then)
            return
        if ours and leaving is not Ending.NONE:
            self._keeper.park(ours, abandoned=leaving is Ending.ABANDON)
        then()
