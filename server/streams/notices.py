"""What the keeper calls of a stream: which checkpoints moved on, which sequences are lost, which are to sleep.

It is the sequence.Holder of all sequences of the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from server.durability.sequence import ServedSequence
from server.errors import TidegateError
from server.runtime.turns import Line, once
from server.streams.backlog import Backlog
from server.streams.closing import Closing, Ending
from server.streams.events import Checkpointed, Released
from server.streams.handles import ASLEEP, Handles
from server.streams.moves import Moves
from server.streams.window import Window

if TYPE_CHECKING:
    from server.durability.keeper import AnyKeeper


class Notices:
    """Called by the keeper.

    Args:
        handles: what the client's numbers stand for.
        keeper: puts them to sleep.
        window: tells the client, and knows what is under way.
        backlog: what waits for those that sleep.
        moves: those that are being rewound or moved.
        closing: frees what is lost.
        line: does it after what is under way.
    """

    def __init__(
        self,
        handles: Handles,
        keeper: AnyKeeper,
        window: Window,
        backlog: Backlog,
        moves: Moves,
        closing: Closing,
        line: Line,
    ) -> None:
        self._handles = handles
        self._keeper = keeper
        self._window = window
        self._backlog = backlog
        self._moves = moves
        self._closing = closing
        self._line = line

    def tell(self) -> None:
        """Of sequences that no answer is under way for, says how much is safe if that is news."""
        handles, steps = [], []
        for model, members in self._handles.announced():
            slots = self._handles.slots[members]
            told = np.where(slots < 0, 0, model.watermarks.told[slots])
            quiet = self._handles.next[members] == model.slots.done[slots]
            news = quiet & (told > self._handles.told[members])
            self._handles.told[members[news]] = told[news]
            handles.append(members[news])
            steps.append(told[news])
        if handles and sum(map(len, handles)):
            self._window.emit(Checkpointed(np.concatenate(handles), np.concatenate(steps)))

    def take_away(self, sequences: Sequence[ServedSequence], error: TidegateError) -> None:
        """They are not here any more: frees what they hold, and tells the client why."""
        coming = [sequence for sequence in sequences if self._handles.is_opening(sequence.handle)]
        if coming and self._line.work:  # until they are open
            self._line.run(once(partial(self.take_away, coming, error)))
        self._moves.turn_back([sequence.handle for sequence in sequences])
        # one that is being closed is not told of: its client has done with it
        lost = [sequence.handle for sequence in sequences if self._handles.is_open(sequence.handle)]
        if lost:
            told = Released(tuple(lost), error)
            self._closing.end(np.array(lost), Ending.NONE, lambda: self._window.emit(told))

    def put_to_sleep(self, sequence: ServedSequence) -> bool:
        """Gives the slot of an idle sequence back. False if something of it is under way."""
        handle, model, window = sequence.handle, sequence.model, self._window
        if window.gone or window.holds(handle) or not self._handles.is_open(handle):
            return False
        slot = self._handles.slots.item(handle)
        if self._handles.next.item(handle) != model.slots.done.item(slot) or self._backlog.concerns(handle):
            return False
        self._keeper.parking.sleep(sequence)
        model.slots.give_back([slot])
        model.asleep += 1
        self._handles.slots[handle] = ASLEEP
        return True
