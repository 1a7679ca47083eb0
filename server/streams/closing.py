"""How sequences leave a stream: once their steps are through they are ended or parked, unless they are lost already."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from server.durability.sequence import Life, Move, ServedSequence
from server.runtime.turns import Line, Work
from server.streams.handles import CLOSING, FREE, Handles, pieces
from server.streams.replies import Group
from server.streams.window import Window

if TYPE_CHECKING:
    from server.durability.keeper import AnyKeeper


log = logging.getLogger(__name__)


class Ending(Enum):
    """What happens to a sequence that leaves its stream."""

    END = "its client has closed it"
    PARK = "it is kept, where checkpoints are kept, and is gone once the store has it"
    LEAVE = "likewise, and is gone at once: the server stops, and writes all"
    ABANDON = "its client is gone: likewise, unless it never took a step"
    NONE = "the keeper has removed it already"


@dataclass(slots=True, eq=False)
class Closing:
    """Ends sequences of one stream."""

    handles: Handles
    keeper: AnyKeeper  # parks or ends them
    window: Window  # knows when their steps are through
    line: Line  # does it in turns with the work of other clients
    _under_way: list[np.ndarray] = field(default_factory=list, init=False)  # handles of those that are leaving
    _waiting: list[tuple[np.ndarray, Callable[[], None]]] = field(default_factory=list, init=False)

    def end(self, handles: np.ndarray, leaving: Ending, done: Callable[[], None]) -> None:
        """Frees sequences once all their steps are through, and then calls `done`."""
        if not len(handles):
            done()
            return
        split = self.handles.split(handles)
        self.handles.mark(handles, CLOSING)
        self._under_way.append(handles)
        freed = countdown(len(split), partial(self._ended, handles, done))
        self.line.run(self._begin(split, leaving, freed))

    def _begin(self, split: Sequence[tuple[Group, np.ndarray]], leaving: Ending, freed: Callable[[], None]) -> Work:
        """Has each group freed once its steps are through."""
        for group, members in split:
            for part in pieces(members):
                for handle in part.tolist():
                    sequence = self.handles.sequences[handle]
                    if sequence.life is not Life.LOST:
                        sequence.move(Move.CLOSE)
                yield
            self.window.after(group, members, partial(self.line.run, self._free(group, members, leaving, freed)))

    def _ended(self, handles: np.ndarray, done: Callable[[], None]) -> None:
        self._under_way = [leaving for leaving in self._under_way if leaving is not handles]
        done()
        waiting, self._waiting = self._waiting, []
        for others, call in waiting:
            self.after(others, call)

    def after(self, handles: np.ndarray, call: Callable[[], None]) -> None:
        """Calls once none of these is leaving, and the client was told of those that were."""
        if any(np.isin(leaving, handles).any() for leaving in self._under_way):
            self._waiting.append((handles, call))
        else:
            call()

    def _free(self, group: Group, members: np.ndarray, leaving: Ending, freed: Callable[[], None]) -> Work:
        def known() -> None:
            self.handles.mark(members, FREE)
            freed()

        parts = list(pieces(members))
        left = countdown(1 + len(parts), known)  # pieces that the store does not know of, and the work itself
        for part in parts:
            asleep = int((self.handles.slots[part] < 0).sum())  # as far as this stream was told
            sequences = [self.handles.sequences.pop(handle) for handle in part.tolist()]
            slots = [one.slot for one in sequences if one.slot >= 0]
            try:
                self._hand_over(sequences, leaving, left)
            except Exception:
                log.exception("sequences failed to leave")
                left()  # their client does not wait for them
            group.model.slots.give_back(slots)
            group.model.asleep -= asleep
            if leaving is Ending.END:
                group.model.counters.closed += len(part)
            self.handles.leave(group, len(part))
            yield
        left()

    def _hand_over(self, sequences: Sequence[ServedSequence], leaving: Ending, then: Callable[[], None]) -> None:
        for sequence in sequences:
            sequence.holder = None
        ours = [sequence for sequence in sequences if sequence.life is not Life.LOST]
        if not ours or leaving is Ending.NONE:
            then()
        elif leaving is Ending.END:
            self.keeper.end(ours, then)
        elif leaving is Ending.LEAVE:
            self.keeper.park(ours, lambda: None)
            then()
        else:
            self.keeper.park(ours, then, abandoned=leaving is Ending.ABANDON)


def countdown(count: int, call: Callable[[], None]) -> Callable[[], None]:
    """Is to be called so many times; the last time calls `call`."""

    def one() -> None:
        nonlocal count
        count -= 1
        if not count:
            call()

    return one
