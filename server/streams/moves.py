"""Sequences of one client that go back to an earlier step, or over to another version of their model.

One that is under way takes no steps. Knows no request: whoever sends it has checked that it may go.
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
from server.streams.trace import plan
from server.streams.window import Window
from stepgraph.rewriting.columns import Columns

if TYPE_CHECKING:
    from server.durability.keeper import AnyKeeper
    from server.runtime.served_model import ServedModel


@dataclass(frozen=True, slots=True, eq=False)
class _Move:
    """A rewind or a move that is under way. A move has a model and a slot [1] in it already, so that both stay."""

    handle: int
    group: Group
    sequence: ServedSequence
    model: ServedModel | None = None
    room: np.ndarray = field(default_factory=lambda: np.zeros(0, np.intp))

    def give_up(self) -> None:
        if self.model is not None:
            self.model.slots.give_back(self.room.tolist())


class Moves:
    """Those that are under way.

    Args:
        handles: what the client's numbers stand for.
        keeper: keeps what they go back to, and where they go on.
        window: knows when their steps are through, and tells the client.
    """

    def __init__(self, handles: Handles, keeper: AnyKeeper, window: Window) -> None:
        self._handles = handles
        self._keeper = keeper
        self._window = window
        self._under_way: dict[int, _Move] = {}  # by handle

    def rewind(self, group: Group, handle: int, step: int) -> None:
        """Goes back to the newest checkpoint at or before a step, after the steps that were sent before."""
        sequence = self._handles.sequences[handle]
        trip = _Move(handle, group, sequence)
        then = partial(self._rewound, trip, sequence, step)
        self._set_out(trip, lambda: self._keeper.commits.go_back(sequence, step, then))

    def move(self, group: Group, handle: int, model: ServedModel, room: np.ndarray) -> None:
        """Goes on in the slot `room` [1] of another version, after the steps that were sent before."""
        trip = _Move(handle, group, self._handles.sequences[handle], model, room)
        self._set_out(trip, partial(self._move_reached, trip, model))

    def stay(self, group: Group, handle: int) -> None:
        """It is where it was to move to; the client hears so after the steps that were sent before."""
        self._window.after(group, np.array([handle]), partial(self._stayed, group, handle))

    def turn_all_back(self) -> None:
        """None is under way any more: they end as they are."""
        self.turn_back(list(self._under_way))

    def turn_back(self, handles: Iterable[int]) -> None:
        """Those of these that are under way are not any more: they end as they are."""
        for handle in self._under_way.keys() & set(handles) if self._under_way else ():
            trip = self._under_way[handle]
            self._arrive(trip)
            trip.give_up()

    def _set_out(self, trip: _Move, go: Callable[[], None]) -> None:
        self._handles.mark(np.array([trip.handle]), BUSY)
        trip.sequence.move(Move.TURN)
        self._under_way[trip.handle] = trip
        self._window.after(trip.group, np.array([trip.handle]), partial(self._go, trip, go))

    def _go(self, trip: _Move, go: Callable[[], None]) -> None:
        if self._under_way.get(trip.handle) is trip:
            go()

    def _arrive(self, trip: _Move) -> bool:
        """The sequence takes steps again. False if it did before, or is gone."""
        if self._under_way.get(trip.handle) is not trip:
            return False
        del self._under_way[trip.handle]
        self._handles.unmark(trip.handle, trip.group)
        trip.sequence.move(Move.READY)
        return True

    def _fail(self, trip: _Move, step: int, error: TidegateError) -> None:
        request = "rewind" if trip.model is None else "move"
        self._window.emit(Failed(error, (trip.handle,), step, self._handles.expected((trip.handle,)), request))

    # Going back -------------------------------------------------------------------------------------------------------

    def _rewound(self, trip: _Move, sequence: ServedSequence, step: int, found: Checkpoint | TidegateError) -> None:
        if not self._arrive(trip):
            return
        if isinstance(found, TidegateError):
            self._fail(trip, step, found)
            return
        handle, model = trip.handle, trip.group.model
        row = model.graph.initial if found.state is None else found.state
        model.slots.restore(self._handles.slots[handle : handle + 1], row[np.newaxis], np.array([found.step]))
        self._keeper.commits.gone_back(sequence)
        self._handles.next[handle] = self._handles.told[handle] = found.step
        self._window.emit(Rewound(handle, found.step))

    # Going over -------------------------------------------------------------------------------------------------------

    def _move_reached(self, trip: _Move, model: ServedModel) -> None:
        row = trip.group.model.slots.row(self._handles.slots.item(trip.handle))[0].copy()
        step, done = int(self._handles.next[trip.handle]), partial(self._moved, trip, model)
        self._keeper.commits.go_over(trip.sequence, model, step, row, done)

    def _moved(self, trip: _Move, model: ServedModel, error: TidegateError | None) -> None:
        if not self._arrive(trip):
            return
        step = int(self._handles.next[trip.handle])
        if error is not None:
            trip.give_up()
            self._fail(trip, step, error)
            return
        columns = self._settle(trip, model, step)
        self._window.emit(Moved(trip.handle, model.version, step, columns))

    def _stayed(self, group: Group, handle: int) -> None:
        step = group.model.slots.done.item(self._handles.slots.item(handle))
        self._window.emit(Moved(handle, group.model.version, step, group.trace.columns))

    def _settle(self, trip: _Move, model: ServedModel, step: int) -> tuple[Columns, ...]:
        group, handle = trip.group, trip.handle
        slots = self._handles.slots[handle : handle + 1].copy()
        model.slots.restore(trip.room, group.model.slots.gather(slots), np.array([step]))
        self._keeper.commits.relocate(trip.sequence, model, trip.room.item())
        group.model.slots.give_back(slots.tolist())
        trace = plan(group.manner.selection, model.graph.trace, model.graph.layers)
        joined = self._handles.join(model, group.manner, trace)
        self._handles.settle(np.array([handle]), trip.room, step, joined)
        self._handles.leave(group, 1)
        return trace.columns
