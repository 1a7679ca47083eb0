"""How sequences come to be open on a stream: new ones, and those that go on from a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from server.caller import Caller
from server.durability.sequence import Holder, ServedSequence, check_name
from server.errors import BadInput, Draining, Reason, TidegateError
from server.runtime import state_value
from server.runtime.state_value import Part
from server.runtime.turns import Line, Work
from server.streams.events import Failed, Opened
from server.streams.handles import FREE, OPENING, Handles, pieces
from server.streams.trace import Manner, TracePlan, plan
from server.streams.window import Window

if TYPE_CHECKING:
    from server.durability.keeper import AnyKeeper
    from server.durability.takeover import Restored
    from server.runtime.served_model import ServedModel

log = logging.getLogger(__name__)


MOST_RESUMING = 256  # resumes of one stream that wait for the store, or for having guessed tokens


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
        holder: what the keeper calls of this stream.
        caller: resumes them.
        route: begins the ids of new ones.
        line: does it in turns with what other clients want.
    """

    def __init__(
        self,
        handles: Handles,
        keeper: AnyKeeper,
        window: Window,
        holder: Holder,
        caller: Caller,
        route: str,
        line: Line,
    ) -> None:
        self._handles = handles
        self._keeper = keeper
        self._window = window
        self._holder = holder
        self._caller = caller
        self._route = route
        self._line = line
        self.resuming = 0
        self._shut = False

    def shut(self) -> None:
        """The server is stopping: what is being resumed is not."""
        self._shut = True

    def room(self, model: ServedModel, count: int) -> np.ndarray:
        """Slots for so many sequences, whose states have still to be put in. Raises OverLimit."""
        self._keeper.parking.make_room(model, count)
        return model.slots.reserve(count)

    # New ones ---------------------------------------------------------------------------------------------------------

    def open(
        self, handles: np.ndarray, model: ServedModel, manner: Manner, beginning: Beginning | None, caller: Caller
    ) -> None:
        """Opens new sequences under free handles, all from the same state. Raises Refusal."""
        check_name("the owner", caller.who)
        self._handles.check_group(model, manner)
        coming = _Opening(handles, manner, trace=plan(manner.selection, model.graph.trace, model.graph.layers))
        row = None if beginning is None else state_value.together(model.graph, beginning.parts)
        step = 0 if beginning is None else beginning.step
        self._keeper.check(caller, len(handles))
        coming.slots, coming.model = self.room(model, len(handles)), model
        self._handles.mark(handles, OPENING)
        self._line.run(self._fill(coming, caller, step, row), partial(self._failed, coming, "open"))

    def _fill(self, coming: _Opening, caller: Caller, step: int, row: np.ndarray | None) -> Work:
        assert coming.model is not None
        model, sequences = coming.model, list[ServedSequence]()
        for handles in pieces(coming.handles):
            slots = coming.slots[len(sequences) : len(sequences) + len(handles)]
            model.slots.restore(slots, model.graph.initial if row is None else row, step)
            enrolled = self._keeper.enrol(model, slots, caller, self._route, step, row, coming.token)
            coming.token = enrolled.token
            self._place(handles, enrolled.sequences)
            sequences += enrolled.sequences
            yield
        model.counters.opened += len(sequences)
        self._settle(coming, model, sequences, (step,) * len(sequences) if step else ())

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
        self.resuming += 1
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
        self.resuming -= 1
        if self._shut:
            result = _stopping()
        if isinstance(result, TidegateError) or self._window.gone:
            self._failed(coming, "resume", result)
        else:
            self._line.run(self._take_in(coming, result), partial(self._failed, coming, "resume"))

    def _take_in(self, coming: _Opening, restored: list[Restored]) -> Work:
        model, sequences = restored[0].sequence.model, [r.sequence for r in restored]
        missing = len(restored) - len(coming.slots)
        for _ in range(4 * len(restored)):  # those that give way free their slots in turns
            if model.slots.free >= missing:
                break
            yield
        coming.slots = np.concatenate([coming.slots, self.room(model, missing)])
        for part in pieces(np.arange(len(restored))):
            first, after = part.item(0), part.item(-1) + 1
            self._keeper.takeovers.settle(restored[first:after], coming.slots[first:after])
            self._place(coming.handles[first:after], sequences[first:after])
            yield
        self._settle(coming, model, sequences, tuple(sequence.steps for sequence in sequences))

    # Both -------------------------------------------------------------------------------------------------------------

    def _place(self, handles: np.ndarray, sequences: Sequence[ServedSequence]) -> None:
        self._handles.place(handles, sequences)
        for sequence in sequences:
            sequence.holder = self._holder

    def _settle(
        self, coming: _Opening, model: ServedModel, sequences: Sequence[ServedSequence], steps: tuple[int, ...]
    ) -> None:
        """They take steps from now on, each from its step in `steps` or all from 0."""
        assert coming.trace is not None, "it was planned before"
        group = self._handles.join(model, coming.manner, coming.trace)
        self._handles.settle(coming.handles, coming.slots, np.array(steps) if steps else 0, group)
        ids, columns = tuple(sequence.id for sequence in sequences), coming.trace.columns
        first = int(coming.handles[0])
        self._window.emit(Opened(first, ids, model.name, model.version, columns, coming.token, steps))

    def _failed(self, coming: _Opening, request: str, error: object) -> None:
        """Nothing of it stays behind; the client is told why."""
        if coming.model is not None:
            self._keeper.turn_away(coming.model, coming.slots)
        coming.give_up()
        for handle in coming.handles.tolist():
            self._handles.sequences.pop(handle, None)
        self._handles.mark(coming.handles, FREE)
        if not isinstance(error, Exception):
            return  # the client is gone
        if not isinstance(error, TidegateError):
            log.error("sequences could not be opened", exc_info=error)
            error = TidegateError("the server failed; its log has the details")
        handles = coming.handles if request == "resume" else coming.handles[:1]
        self._window.emit(Failed(error, tuple(handles.tolist()), request=request))


def _stopping() -> Draining:
    return Draining("this server is stopping; resume at another, or here in a while")


@dataclass(slots=True, eq=False)
class _Opening:
    """Sequences that are being opened or resumed, and the slots that are kept for them."""

    handles: np.ndarray
    manner: Manner
    token: str = ""
    model: ServedModel | None = None  # from here on once they are admitted
    trace: TracePlan | None = None
    slots: np.ndarray = field(default_factory=lambda: np.zeros(0, np.intp))

    def give_up(self) -> None:
        if self.model is not None:
            self.model.slots.give_back(self.slots.tolist())
        self.model, self.slots = None, np.zeros(0, np.intp)
