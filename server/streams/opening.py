"""How sequences come to be open on a stream: new ones, and those that go on from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from server.caller import Caller
from server.durability.sequence import Holder, ServedSequence, check_name
from server.errors import BadInput, Draining, Reason, TidegateError
from server.runtime import state_value
from server.runtime.state_value import Part
from server.streams.events import Failed, Opened
from server.streams.handles import FREE, OPENING, Handles
from server.streams.replies import Group
from server.streams.trace import Manner, TracePlan, plan
from server.streams.window import Window

if TYPE_CHECKING:
    from server.durability.keeper import AnyKeeper
    from server.durability.takeover import Restored
    from server.runtime.served_model import ServedModel


class Beginning(Protocol):
    """What a new sequence may begin from instead of the model's initial state."""

    @property
    def step(self) -> int:
        """How many steps led to it."""

    @property
    def parts(self) -> Sequence[Part]:
        """The state."""


class Opening:
    """Opens sequences on one stream.

    Args:
        handles: where they are put.
        keeper: keeps them beyond this stream.
        window: tells the client.
        holder: hears from the keeper of those that are kept.
        caller: resumes them.
        route: begins the ids of new ones.
    """

    def __init__(
        self, handles: Handles, keeper: AnyKeeper, window: Window, holder: Holder, caller: Caller, route: str
    ) -> None:
        self._handles = handles
        self._keeper = keeper
        self._window = window
        self._holder = holder
        self._caller = caller
        self._route = route
        self._shut = False

    def shut(self) -> None:
        """The server is stopping: what is being resumed is not."""
        self._shut = True

    def room(self, model: ServedModel, count: int) -> np.ndarray:
        """Slots for so many sequences. Raises OverLimit."""
        self._keeper.parking.make_room(model, count)
        return model.slots.take(count)

    @contextmanager
    def _housed(self, model: ServedModel, handles: np.ndarray) -> Iterator[np.ndarray]:
        """Slots for what is being opened. Whatever goes wrong meanwhile, nothing of it stays behind."""
        slots = self.room(model, len(handles))
        try:
            yield slots
        except BaseException:
            self._keeper.turn_away(model, slots)
            self._handles.mark(handles, FREE)
            model.slots.give_back(slots.tolist())
            raise

    # New ones ---------------------------------------------------------------------------------------------------------

    def open(
        self, handles: np.ndarray, model: ServedModel, manner: Manner, beginning: Beginning | None, caller: Caller
    ) -> None:
        """Opens new sequences under free handles, all from the same state. Raises Refusal."""
        check_name("the owner", caller.who)
        self._handles.check_group(model, manner)
        count = len(handles)
        trace = plan(manner.selection, model.graph.trace, model.graph.layers)
        row = None if beginning is None else state_value.together(model.graph, beginning.parts)
        step = 0 if beginning is None else beginning.step
        with self._housed(model, handles) as slots:
            if row is not None:
                model.slots.restore(slots, np.tile(row, (count, 1)), np.full(count, step))
            enrolled = self._keeper.enrol(model, slots, caller, self._route, step, row)
            self._place(handles, slots, step, self._handles.join(model, manner, trace), enrolled.sequences)
        model.counters.opened += count
        ids = tuple(sequence.id for sequence in enrolled.sequences)
        steps = (step,) * count if step else ()
        first = int(handles[0])
        self._window.emit(Opened(first, ids, model.name, model.version, trace.columns, enrolled.token, steps))

    # Those that go on -------------------------------------------------------------------------------------------------

    def resume(self, handle: int, ids: Sequence[str], token: str, answered: Sequence[int], manner: Manner) -> None:
        """Claims sequences, and opens them under the handles from `handle` on or tells the client why not.

        Raises:
            Refusal: it is clear at once that it cannot be done.
        """
        if not ids or len(ids) != len(answered) or len(set(ids)) != len(ids):
            raise BadInput(
                f"a resume came with {len(ids)} ids and {len(answered)} numbers of answers; expected as many of both, "
                "at least one, and each id once",
                Reason.MALFORMED,
            )
        for id_ in ids:
            check_name("the sequence id", id_)
        handles = self._handles.new(handle, len(ids))
        self._handles.mark(handles, OPENING)
        coming = _Opening(handles, manner, token)
        admit, then = partial(self._admit, coming), partial(self._resumed, coming)
        self._keeper.takeovers.claim(self._caller, ids, token, answered, admit, then, lambda: not self._window.gone)

    def _admit(self, coming: _Opening, restored: Sequence[Restored]) -> None:
        """Keeps slots for them, but for those that they have here themselves. Raises Refusal."""
        if self._shut:
            raise _stopping()
        model = restored[0].sequence.model
        if any(r.sequence.model is not model for r in restored):
            raise BadInput("sequences of different models cannot be resumed together", Reason.MALFORMED)
        self._handles.check_group(model, coming.manner)
        coming.trace = plan(coming.manner.selection, model.graph.trace, model.graph.layers)
        theirs = self._keeper.takeovers.giving_way(model, [r.sequence.id for r in restored])
        coming.slots = self.room(model, len(restored) - theirs)
        coming.model = model

    def _resumed(self, coming: _Opening, result: list[Restored] | TidegateError) -> None:
        if self._shut:
            result = _stopping()
        if not isinstance(result, TidegateError) and not self._window.gone:
            try:
                self._take_in(coming, result)
            except TidegateError as error:
                result = error
            else:
                return
        if coming.model is not None:
            self._keeper.turn_away(coming.model, coming.slots)
        coming.give_up()
        if isinstance(result, TidegateError) and not self._window.gone:
            self._handles.mark(coming.handles, FREE)
            self._window.emit(Failed(result, tuple(coming.handles.tolist()), request="resume"))

    def _take_in(self, coming: _Opening, restored: list[Restored]) -> None:
        model, manner, handles = restored[0].sequence.model, coming.manner, coming.handles
        slots = np.concatenate([coming.slots, self.room(model, len(handles) - len(coming.slots))])
        coming.slots = slots
        self._keeper.takeovers.settle(restored, slots)
        trace, sequences = coming.trace, [r.sequence for r in restored]
        assert trace is not None, "it was admitted"
        steps = np.array([sequence.steps for sequence in sequences])
        self._place(handles, slots, steps, self._handles.join(model, manner, trace), sequences)
        ids, next_steps = tuple(sequence.id for sequence in sequences), tuple(steps.tolist())
        first = int(handles[0])
        opened = Opened(first, ids, model.name, model.version, trace.columns, coming.token, next_steps)
        self._window.emit(opened)

    def _place(
        self,
        handles: np.ndarray,
        slots: np.ndarray,
        steps: np.ndarray | int,
        group: Group,
        sequences: Sequence[ServedSequence],
    ) -> None:
        self._handles.settle(handles, slots, steps, group, sequences)
        for sequence in sequences:
            sequence.holder = self._holder


def _stopping() -> Draining:
    return Draining("this server is stopping; resume at another, or here in a while")


@dataclass(slots=True, eq=False)
class _Opening:
    """Sequences that are being resumed, and the slots that are kept for them."""

    handles: np.ndarray
    manner: Manner
    token: str
    model: ServedModel | None = None  # from here on once they are admitted
    trace: TracePlan | None = None
    slots: np.ndarray = field(default_factory=lambda: np.zeros(0, np.intp))

    def give_up(self) -> None:
        """They do not come."""
        if self.model is not None:
            self.model.slots.give_back(self.slots.tolist())
        self.model, self.slots = None, np.zeros(0, np.intp)
