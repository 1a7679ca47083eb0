"""Collects the answers to one message, and makes the event for them. One object for each message.

These are the sinks of the batcher: it calls them in the event loop's thread, in the order of a sequence's steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from operator import itemgetter
from typing import TYPE_CHECKING, Protocol

import numpy as np

from server.errors import TidegateError
from server.runtime.scheduler import Block, Part
from server.streams.events import Answered, FleetAnswered, Form, SeveralAnswered
from server.streams.trace import Manner, TracePlan
from stepgraph.running.result import Result

if TYPE_CHECKING:
    from server.runtime.served_model import ServedModel

_FIRST = itemgetter((slice(None), 0))  # the only row of a batch
SHARED = 2**16  # bytes of answers that share a message: past these it gains nothing
MESSAGE_BYTES = 64  # what an answer costs besides its numbers


@dataclass(slots=True, eq=False)
class Group:
    """Sequences of one stream that were opened with the same model and manner, and how many of them are open."""

    model: ServedModel
    trace: TracePlan
    form: Form
    manner: Manner
    row_bytes: int  # about what one step's answer takes
    members: int = 0


class Owner(Protocol):
    """The window that a reply belongs to."""

    def answer(self, group: Group, event: Answered | FleetAnswered) -> None: ...
    def done(self, block: Block) -> None: ...
    def failed(self, block: Block, handle: int, step: int, error: TidegateError, freed: int) -> None: ...


class _Reply:
    """Collects the answers to the `rows` steps of one message.

    What several batches computed is copied as it comes: a batch is not kept for the sake of a few of its rows.
    """

    __slots__ = ("_group", "_made", "_outputs", "_owner", "_rows", "_trace", "_traced", "size")

    def __init__(self, owner: Owner, group: Group, rows: int) -> None:
        self._owner = owner
        self._group = group
        self._rows = rows
        self._made = 0  # rows of these that are answered
        self._outputs: list[np.ndarray] = []
        self._trace: np.ndarray | None = None
        self._traced = 0  # rows of the trace, where it is a copy
        self.size = rows * group.row_bytes + MESSAGE_BYTES

    def _add(self, part: Part, rows: int, steps: np.ndarray | range) -> None:
        """Takes in the next rows, which are the steps `steps` [rows] of their sequences."""
        outputs, plan = part.outputs(self._group.form.names), self._group.trace
        trace = plan.cut(part.trace(), np.asarray(steps)) if plan.wanted else None
        if rows == self._rows:
            self._outputs, self._trace = outputs, trace
        else:
            places = zip_longest(self._outputs, outputs)  # none is made yet for the first
            self._outputs = [_copied(whole, self._made, x, self._rows) for whole, x in places]
            if trace is not None:
                self._trace = _copied(self._trace, self._traced, trace, self._rows)
                self._traced += len(trace)
        self._made += rows

    def _collected(self) -> tuple[list[np.ndarray], np.ndarray | None]:
        """The outputs and the trace of all rows that are answered."""
        if self._made == self._rows and not self._traced:
            return self._outputs, self._trace
        trace = None if self._trace is None else self._trace[: self._traced]
        return [x[: self._made] for x in self._outputs], trace


class Chunk(_Reply):
    """Collects the answers to consecutive steps of one sequence."""

    __slots__ = ("_handle", "first_step")

    def __init__(self, owner: Owner, group: Group, handle: int, first_step: int, steps: int) -> None:
        super().__init__(owner, group, steps)
        self._handle = handle
        self.first_step = first_step

    @property
    def handles(self) -> np.ndarray:
        return np.array([self._handle])

    @property
    def first_steps(self) -> np.ndarray:
        return np.array([self.first_step])

    def answered(self, part: Part) -> None:
        if part.error is not None:
            self._fail(part.take.block, part.error)
            return
        first = self.first_step + part.step
        self._add(part, part.steps, range(first, first + part.steps))
        if self._made == self._rows:
            self._owner.done(part.take.block)
            self._answer(part.take.block, self.size)

    def _fail(self, block: Block, error: TidegateError) -> None:
        """Steps before the one that failed are answered; the others are not."""
        done = self._made
        kept = done * self._group.row_bytes + MESSAGE_BYTES if done else 0
        if done:
            self._answer(block, kept)
        self._owner.failed(block, self._handle, self.first_step + done, error, self.size - kept)
        self._owner.done(block)

    def _answer(self, block: Block, size: int) -> None:
        outputs, trace = self._collected()
        safe = self._group.model.watermarks.told.item(block.slot)
        event = Answered(self._handle, self.first_step, self._group.form, outputs, trace, size, safe)
        self._owner.answer(self._group, event)


def chunks(
    owner: Owner,
    group: Group,
    handle: int,
    first_step: int,
    slot: np.ndarray,
    inputs: Mapping[str, np.ndarray],
    pieces: Iterable[tuple[int, int]],
) -> Iterator[Block]:
    """Consecutive steps of one sequence in blocks, each of which has an answer."""
    for start, stop in pieces:
        part = {name: x[start:stop] for name, x in inputs.items()}
        reply = Chunk(owner, group, handle, first_step + start, stop - start)
        yield Block(slot, stop - start, part, group.trace.wanted, reply)


def single(group: Group, handle: int, step: int, slot: int, result: Result) -> Answered:
    """The answer to a step that was computed by itself."""
    outputs = list(map(_FIRST, map(result.outputs.__getitem__, group.form.names)))
    trace = None
    if result.trace is not None:
        trace = group.trace.cut(result.trace[:, 0], np.array([step]))
    safe = group.model.watermarks.told.item(slot)
    return Answered(handle, step, group.form, outputs, trace, group.row_bytes + MESSAGE_BYTES, safe)


class Fleet(_Reply):
    """Collects the answers to one step of each of many sequences."""

    _kind: type[FleetAnswered] = FleetAnswered
    __slots__ = ("_each", "_failed", "first_steps", "handles")

    def __init__(self, owner: Owner, group: Group, handles: np.ndarray, steps: np.ndarray) -> None:
        super().__init__(owner, group, len(handles))
        self.handles = handles
        self.first_steps = steps
        self._each = group.row_bytes  # what an answer that there will not be gives back
        self._failed: list[int] = []  # rows that are not answered

    def answered(self, part: Part) -> None:
        take = part.take
        if part.error is not None:
            self._fail(part, part.error)
        else:
            self._add(part, take.rows, self.first_steps[take.first : take.first + take.rows])
        if self._made + len(self._failed) == self._rows:
            self._owner.done(take.block)
            if self._made:
                self._answer(self._event(take.block))

    def _fail(self, part: Part, error: TidegateError) -> None:
        for row in range(part.take.first, part.take.first + part.take.rows):
            self._failed.append(row)
            freed = self._each
            self.size -= freed
            if self.size == MESSAGE_BYTES:  # no row is answered, so there will be no message
                freed += MESSAGE_BYTES
            handle, step = self.handles.item(row), self.first_steps.item(row)
            self._owner.failed(part.take.block, handle, step, error, freed)

    def _answer(self, event: FleetAnswered) -> None:
        self._owner.answer(self._group, event)

    def _event(self, block: Block) -> FleetAnswered:
        handles, steps, slots = self.handles, self.first_steps, block.slots
        if self._failed:
            handles, steps, slots = (np.delete(x, self._failed) for x in (handles, steps, slots))
        outputs, trace = self._collected()
        safe = self._group.model.watermarks.told[slots]
        return self._kind(handles, steps, self._group.form, outputs, trace, self.size, safe)


class Together(Fleet):
    """Collects the answers to single steps of several sequences that came at the same time, as requests of their own.

    It has what each of them would have as a Chunk: a size, and an answer.
    """

    __slots__ = ()
    _kind = SeveralAnswered

    def __init__(self, owner: Owner, group: Group, handles: np.ndarray, steps: np.ndarray) -> None:
        super().__init__(owner, group, handles, steps)
        self._each = group.row_bytes + MESSAGE_BYTES
        self.size = len(handles) * self._each

    def _answer(self, event: FleetAnswered) -> None:
        assert isinstance(event, SeveralAnswered)
        for part in event.parts(max(1, SHARED // self._each)):
            self._owner.answer(self._group, part)


@dataclass(slots=True, eq=False)
class Mark:
    """Calls `reached` once all steps that were sent before for some sequences are through."""

    owner: Owner
    reached: Callable[[], None]
    size: int = 0

    def answered(self, part: Part) -> None:
        self.owner.done(part.take.block)
        self.reached()


def _copied(whole: np.ndarray | None, at: int, rows: np.ndarray, most: int) -> np.ndarray:
    """Puts some rows into an array of `most` rows, which is made for the first of them."""
    if whole is None:
        whole = np.empty((most, *rows.shape[1:]), rows.dtype)
    whole[at : at + len(rows)] = rows
    return whole
