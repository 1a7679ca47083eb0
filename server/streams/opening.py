"""Opens sequences on a stream: new ones, and those that are resumed from a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from secrets import randbits
from typing import TYPE_CHECKING, Protocol

import numpy as np

from server.caller import Caller, Right, account_of
from server.durability.restored import ResumeRequest
from server.durability.sequence import Cohort, Holder, Identity, ServedSequence, check_name
from server.errors import BadInput, Draining, Reason, SequenceGone, TidegateError
from server.runtime import state_value
from server.runtime.state_value import Part
from server.runtime.turns import Line, Work
from server.streams.events import Failed, Opened
from server.streams.handles import FREE, OPENING, Handles, pieces
from server.streams.trace import Manner, TracePlan, plan
from server.streams.window import Window

if TYPE_CHECKING:
    from server.durability.keeper import AnyKeeper
    from server.durability.restored import Restored
    from server.runtime.served_model import ServedModel

log = logging.getLogger(__name__)

_NAMED = 1_024  # ids that are read from a message without a break
MOST_RESUMING = 256  # resumes of one stream that wait for the store, or for having guessed tokens


class Catalogue(Protocol):
    """Where a stream finds its models."""

    def find(self, name: str, version: int, new: int = 0) -> ServedModel:
        """The model to open so many sequences of; version 0 is that of new ones. Raises Refusal."""


@dataclass(frozen=True, eq=False)
class Beginning:
    """The state that a new sequence begins from, the model's initial one if `parts` is None, and after how many steps.

    `seed` is what a model that draws random numbers draws them from; None: a random one.
    """

    step: int = 0
    parts: Sequence[Part] | None = None
    seed: int | None = None


@dataclass(slots=True, eq=False)
class _Opening:
    """Sequences that are being opened or resumed, and the slots that are kept for them."""

    handles: np.ndarray
    manner: Manner
    token: str = ""
    model: ServedModel | None = None  # from here on once they are admitted
    account: str = ""  # that has them, if they are resumed
    trace: TracePlan | None = None
    slots: np.ndarray = field(default_factory=lambda: np.zeros(0, np.intp))


@dataclass(slots=True, eq=False)
class Opening:
    """Opens sequences on one stream."""

    handles: Handles
    keeper: AnyKeeper
    window: Window  # tells the client
    holder: Holder  # what the keeper calls of this stream
    caller: Caller  # resumes them
    route: str  # begins the ids of new ones
    line: Line  # does it in turns with the work of other clients
    aside: Line  # likewise what no further request of this client waits for
    resuming: int = field(default=0, init=False)  # resumes that are under way
    stopping: bool = field(default=False, init=False)  # the server is: resumes that are under way are refused

    def room(self, model: ServedModel, handle: int) -> np.ndarray:
        """A slot [1] for an open sequence, whose state has still to be put in. Raises OverLimit."""
        account = account_of(self.handles.sequences[handle].owner)
        for _ in self.keeper.parking.make_room(model, 1, account):
            pass
        return model.slots.reserve(1, account)

    # New ones ---------------------------------------------------------------------------------------------------------

    def open(
        self,
        handles: np.ndarray,
        model: ServedModel,
        manner: Manner,
        beginning: Beginning | None,
        caller: Caller,
        identity: Identity | None = None,
    ) -> None:
        """Opens new sequences under free handles, all from the same state. Raises Refusal."""
        check_name("the owner", caller.who)
        self.handles.check_group(model, manner)
        coming = _Opening(handles, manner, trace=plan(manner.selection, model.graph))
        cohort = Cohort(model, caller, self.route, token=identity.token if identity else "", identity=identity)
        if beginning is not None and beginning.parts is not None:
            cohort.step, cohort.origin = beginning.step, state_value.together(model.graph, beginning.parts)
        elif model.graph.draws:
            given = None if beginning is None else beginning.seed
            cohort.seed = randbits(64) if given is None else given
        self.keeper.check(caller, len(handles))
        self.handles.mark(handles, OPENING)
        self.line.run(self._fill(coming, cohort), partial(self._failed, coming, "open"))

    def _fill(self, coming: _Opening, cohort: Cohort) -> Work:
        model, step, count = cohort.model, cohort.step, len(coming.handles)
        yield from self.keeper.parking.make_room(model, count, cohort.caller.account)
        coming.slots, coming.model = model.slots.reserve(count, cohort.caller.account), model
        ids = list[str]()
        for handles in pieces(coming.handles):
            slots = coming.slots[len(ids) : len(ids) + len(handles)]
            if cohort.seed is not None:
                seeds = np.arange(len(ids), len(ids) + len(handles), dtype=np.uint64) + np.uint64(cohort.seed)
                cohort.origin = model.graph.seeded(seeds)
            model.slots.restore(slots, model.graph.initial if cohort.origin is None else cohort.origin, step)
            sequences = self.keeper.enrol(cohort, slots)
            self._place(handles, sequences)
            ids += [sequence.id for sequence in sequences]
            yield
        model.counters.opened += len(ids)
        coming.token = cohort.token
        self._settle(coming, model, np.full(len(ids) if step else 0, step), ids)

    # Those that go on -------------------------------------------------------------------------------------------------

    def resume(
        self,
        handle: int,
        ids: Sequence[str],
        token: str,
        answered: Sequence[int],
        manner: Manner,
        exact: bool = False,
    ) -> None:
        """Claims sequences, and opens them under the handles from `handle` on, or tells the client why not.

        `exact`: see ResumeRequest. Raises Refusal: the request contradicts itself, or the handles cannot be used.
        """
        if not ids or len(ids) != len(answered):
            raise BadInput(
                f"a resume came with {len(ids)} ids and {len(answered)} numbers of answers; expected as many of both, "
                "and at least one",
                Reason.MALFORMED,
            )
        handles = self.handles.new(handle, len(ids))
        self.handles.mark(handles, OPENING)
        coming = _Opening(handles, manner, token)
        self.resuming += 1
        self.aside.run(self._claim(coming, ids, answered, exact))

    def _claim(self, coming: _Opening, ids: Sequence[str], answered: Sequence[int], exact: bool) -> Work:
        admit, then = partial(self._admit, coming), partial(self._resumed, coming)
        wanted = lambda: not self.window.gone  # noqa: E731
        request = ResumeRequest(self.caller, [], coming.token, [], admit, then, wanted, exact)
        for at in range(0, len(ids), _NAMED):
            if at:
                yield
            request.add(ids[at : at + _NAMED], answered[at : at + _NAMED])
        self.keeper.takeovers.claim(request)

    def _admit(self, coming: _Opening, model: ServedModel, count: int, account: str) -> None:
        """Keeps so many slots for them. Raises Refusal."""
        if self.stopping:
            raise stopping()
        self.caller.require(Right.PREDICT, model.name)
        self.handles.check_group(model, coming.manner)
        coming.trace = plan(coming.manner.selection, model.graph)
        coming.slots, coming.model, coming.account = model.slots.reserve(count, account), model, account

    def _resumed(self, coming: _Opening, result: list[Restored] | TidegateError) -> None:
        self.resuming -= 1
        if self.stopping:
            result = stopping()
        if isinstance(result, TidegateError) or self.window.gone:
            self._failed(coming, "resume", result)
        else:
            self.line.run(self._take_in(coming, result), partial(self._failed, coming, "resume"))

    def _take_in(self, coming: _Opening, restored: list[Restored]) -> Work:
        model, steps, lost = restored[0].sequence.model, np.zeros(len(restored), np.int64), list[ServedSequence]()
        ids, missing = list[str](), len(restored) - len(coming.slots)
        for _ in range(4 * len(restored)):  # sequences that give way free their slots in turns
            if model.slots.room(coming.account) >= missing:
                break
            yield
        yield from self.keeper.parking.make_room(model, missing, coming.account)
        coming.slots = np.concatenate([coming.slots, model.slots.reserve(missing, coming.account)])
        for handles in pieces(coming.handles):
            those, part = slice(len(ids), len(ids) + len(handles)), restored[: len(handles)]
            del restored[: len(handles)]  # to free all of them at once takes some milliseconds
            sequences = [r.sequence for r in part]
            for sequence in sequences:
                sequence.trace = self.caller.trace
            lost += self.keeper.takeovers.settle(part, coming.slots[those])
            self._place(handles, sequences)
            ids += [sequence.id for sequence in sequences]
            steps[those] = [sequence.steps for sequence in sequences]
            yield
        self._settle(coming, model, steps, ids)
        if lost:
            self.holder.take_away(lost, SequenceGone("they go on on another stream", Reason.TAKEN_OVER))

    # Both -------------------------------------------------------------------------------------------------------------

    def _place(self, handles: np.ndarray, sequences: Sequence[ServedSequence]) -> None:
        self.handles.place(handles, sequences)
        for sequence in sequences:
            sequence.holder = self.holder

    def _settle(self, coming: _Opening, model: ServedModel, steps: np.ndarray, ids: Sequence[str]) -> None:
        """They take steps from now on, each from its step in `steps` [N]; all from 0 if that is empty."""
        assert coming.trace is not None, "it was planned before"
        group = self.handles.join(model, coming.manner, coming.trace)
        self.handles.settle(coming.handles, coming.slots, steps if len(steps) else 0, group)
        first, columns = int(coming.handles[0]), coming.trace.columns
        self.window.emit(Opened(first, ids, model.name, model.version, columns, coming.token, steps.tolist()))

    def _failed(self, coming: _Opening, request: str, error: object) -> None:
        self.line.run(self._undo(coming, request, error))

    def _undo(self, coming: _Opening, request: str, error: object) -> Work:
        """Frees all that was taken for them, and tells the client why."""
        if coming.model is not None:
            for slots in pieces(coming.slots):
                self.keeper.turn_away(coming.model, slots)
                coming.model.slots.give_back(slots.tolist())
                yield
        for handles in pieces(coming.handles):
            for handle in handles.tolist():
                self.handles.sequences.pop(handle, None)
            yield
        self.handles.mark(coming.handles, FREE)
        if not isinstance(error, Exception):
            return  # the client is gone
        if not isinstance(error, TidegateError):
            log.error("sequences could not be opened", exc_info=error)
            error = TidegateError("the server failed; its log has the details")
        handles = coming.handles if request == "resume" else coming.handles[:1]
        self.window.emit(Failed(error, handles, request=request))


def stopping() -> Draining:
    """Why a sequence is released, or cannot be resumed, while the server stops."""
    return Draining("this server is stopping; resume at another, or here in a while")
