"""Sequences of one client that are rewound to an earlier step, or moved to another version of their model.

They take no steps meanwhile. The caller has checked that the move is possible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from server.durability.checkpoint import Checkpoint
from server.durability.sequence import Move, ServedSequence
from server.errors import TidegateError
from server.streams.events import Failed, Moved, Rewound
from server.streams.handles import BUSY, Handles
from server.streams.replies import Group
from server.streams.trace import TracePlan
from server.streams.window import Window

if TYPE_CHECKING:
    from server.durability.keeper import AnyKeeper
    from server.runtime.served_model import ServedModel


@dataclass(frozen=True, slots=True, eq=False)
class Destination:
    """Where a move leads: another version, a slot [1] in it, and the trace that the client will see."""

    model: ServedModel
    slot: np.ndarray
    trace: TracePlan


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """A rewind, or a move to a destination, that is under way."""

    handle: int
    group: Group
    sequence: ServedSequence
    to: Destination | None = None

    def give_back_slot(self) -> None:
        if self.to is not None:
            self.to.model.slots.give_back(self.to.slot.tolist())


@dataclass(slots=True, eq=False)
class Moves:
    """The rewinds and moves of one stream that are under way."""

    handles: Handles
    keeper: AnyKeeper  # reads the checkpoint of a rewind, and writes that of a move
    window: Window  # knows when their steps are through, and tells the client
    _under_way: dict[int, _Change] = field(default_factory=dict, init=False)  # by handle

    def rewind(self, group: Group, handle: int, step: int) -> None:
        """Goes back to the newest checkpoint at or before a step, after the steps that were sent before."""
        change = _Change(handle, group, self.handles.sequences[handle])
        wanted, then = partial(self._is_wanted, change), partial(self._rewound, change, step)
        self._begin(change, lambda: self.keeper.commits.go_back(change.sequence, step, wanted, then))

    def move(self, group: Group, handle: int, to: Destination) -> None:
        """Moves to another version, after the steps that were sent before."""
        change = _Change(handle, group, self.handles.sequences[handle], to)
        self._begin(change, partial(self._move_reached, change, to))

    def stay(self, group: Group, handle: int) -> None:
        """Answers a move to the version that the sequence has already, after the steps that were sent before."""
        self.window.after(group, np.array([handle]), partial(self._stayed, group, handle))

    def cancel_all(self) -> None:
        self.cancel(list(self._under_way))

    def cancel(self, handles: Iterable[int]) -> None:
        """Gives up the rewinds and moves of these: the sequences stay as they are, and take steps again."""
        for handle in self._under_way.keys() & set(handles) if self._under_way else ():
            change = self._under_way[handle]
            self._end(change)
            change.give_back_slot()

    def _begin(self, change: _Change, go: Callable[[], None]) -> None:
        handles = np.array([change.handle])
        self.handles.mark(handles, BUSY)
        change.sequence.move(Move.TURN)
        self._under_way[change.handle] = change
        self.window.after(change.group, handles, lambda: go() if self._is_wanted(change) else None)

    def _is_wanted(self, change: _Change) -> bool:
        """Whether it was not given up."""
        return self._under_way.get(change.handle) is change

    def _end(self, change: _Change) -> bool:
        """Has the sequence take steps again. False if this one was given up before."""
        if not self._is_wanted(change):
            return False
        del self._under_way[change.handle]
        self.handles.unmark(change.handle, change.group)
        change.sequence.move(Move.READY)
        return True

    def _fail(self, change: _Change, step: int, error: TidegateError) -> None:
        request = "rewind" if change.to is None else "move"
        handles = np.array([change.handle])
        self.window.emit(Failed(error, handles, step, self.handles.expected(handles), request))

    # Going back -------------------------------------------------------------------------------------------------------

    def _rewound(self, change: _Change, step: int, found: Checkpoint | TidegateError) -> None:
        if not self._end(change):
            return
        if isinstance(found, TidegateError):
            self._fail(change, step, found)
            return
        handle, model = change.handle, change.group.model
        row = model.graph.initial if found.state is None else found.state
        model.slots.restore(self.handles.slots[handle : handle + 1], row[np.newaxis], np.array([found.step]))
        model.watermarks.go_back(self.handles.slots.item(handle), found.step)
        self.handles.next[handle] = self.handles.told[handle] = found.step
        self.window.emit(Rewound(handle, found.step))

    # Going over -------------------------------------------------------------------------------------------------------

    def _move_reached(self, change: _Change, to: Destination) -> None:
        row = change.group.model.slots.row(self.handles.slots.item(change.handle))[0].copy()
        step = self.handles.next.item(change.handle)
        wanted, then = partial(self._is_wanted, change), partial(self._moved, change, to, step)
        self.keeper.commits.go_over(change.sequence, to.model, step, row, wanted, then)

    def _moved(self, change: _Change, to: Destination, step: int, error: TidegateError | None) -> None:
        if not self._end(change):
            return
        if error is not None:
            change.give_back_slot()
            self._fail(change, step, error)
            return
        group, handle = change.group, change.handle
        slots = self.handles.slots[handle : handle + 1].copy()
        to.model.slots.restore(to.slot, group.model.slots.gather(slots), np.array([step]))
        self.keeper.commits.relocate(change.sequence, to.model, to.slot.item())
        group.model.slots.give_back(slots.tolist())
        self.handles.settle(np.array([handle]), to.slot, step, self.handles.join(to.model, group.manner, to.trace))
        self.handles.leave(group, 1)
        self.window.emit(Moved(handle, to.model.version, step, to.trace.columns))

    def _stayed(self, group: Group, handle: int) -> None:
        step = group.model.slots.done.item(self.handles.slots.item(handle))
        self.window.emit(Moved(handle, group.model.version, step, group.trace.columns))
