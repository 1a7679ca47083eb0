"""What the keeper calls of a stream: there are new checkpoints, sequences are lost, or are to sleep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

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


@dataclass(frozen=True, slots=True, eq=False)
class Notices:
    """The sequence.Holder of all sequences of one stream."""

    handles: Handles
    window: Window  # tells the client, and knows what is under way
    backlog: Backlog  # requests that wait for those that sleep
    moves: Moves  # those that are being rewound or moved
    closing: Closing  # frees what is lost
    line: Line  # what is under way, and what is done after it

    def tell(self) -> None:
        """Tells the client of new checkpoints of sequences that no answer is under way for."""
        handles, steps = [], []
        for model, members in self.handles.announced():
            slots = self.handles.slots[members]
            told = np.where(slots < 0, 0, model.watermarks.told[slots])
            quiet = self.handles.next[members] == model.slots.done[slots]
            news = quiet & (told > self.handles.told[members])
            self.handles.told[members[news]] = told[news]
            handles.append(members[news])
            steps.append(told[news])
        if handles and sum(map(len, handles)):
            self.window.emit(Checkpointed(np.concatenate(handles), np.concatenate(steps)))

    def take_away(self, sequences: Sequence[ServedSequence], error: TidegateError) -> None:
        """These sequences are lost: frees what they hold, and tells the client why."""
        coming = [sequence for sequence in sequences if self.handles.is_opening(sequence.handle)]
        if coming and self.line.work:  # until they are open
            self.line.run(once(partial(self.take_away, coming, error)))
        self.moves.cancel([sequence.handle for sequence in sequences])
        # the client is not told of one that it is closing
        lost = [sequence.handle for sequence in sequences if self.handles.is_open(sequence.handle)]
        if lost:
            told = Released(tuple(lost), error)
            self.closing.end(np.array(lost), Ending.NONE, lambda: self.window.emit(told))

    def let_sleep(self, sequence: ServedSequence) -> bool:
        """Whether an idle sequence may give up its slot now: nothing of it is under way."""
        handle, model, window = sequence.handle, sequence.model, self.window
        if window.gone or window.holds(handle) or not self.handles.is_open(handle):
            return False
        written = model.watermarks.written.item(self.handles.slots.item(handle))
        # not `done`: a step under way may end in the engine's thread between two looks at it
        if self.handles.next.item(handle) != written or self.backlog.concerns(handle):
            return False
        self.handles.slots[handle] = ASLEEP
        return True
