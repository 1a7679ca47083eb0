"""Collects the answers to one message, and makes the event for them. One object for each message.

These are the sinks of the batcher: it calls them in the event loop's thread, in the order of a sequence's steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Protocol

import numpy as np

from server.errors import TidegateError
from server.runtime.scheduler import Block, Part
from server.streams.events import Answered, FleetAnswered, Form
from server.streams.trace import Manner, TracePlan
from stepgraph.running.result import Result

if TYPE_CHECKING:
    from server.runtime.served_model import ServedModel

_FIRST = itemgetter((slice(None), 0))  # the only row of a batch
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
    """Collects the parts that were computed, until there are `rows` answers."""

    __slots__ = ("_group", "_left", "_owner", "_parts", "size")

    def __init__(self, owner: Owner, group: Group, rows: int) -> None:
        self._owner = owner
        self._group = group
        self._left = rows
        self._parts: list[Part] = []
        self.size = rows * group.row_bytes + MESSAGE_BYTES

    def _take_out(self) -> tuple[list[np.ndarray], np.ndarray | None]:
        """The collected outputs, and the whole trace if any of it is wanted: views where one batch computed them."""
        parts, self._parts = self._parts, []  # they refer to the block, which refers to this
        outputs = [_joined([part.output(name) for part in parts]) for name in self._group.form.names]
        return outputs, _joined([part.trace() for part in parts]) if self._group.trace.wanted else None


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
        self._left -= part.steps
        self._parts.append(part)
        if not self._left:
            self._owner.done(part.take.block)
            self._answer(part.take.block, self.size)

    def _fail(self, block: Block, error: TidegateError) -> None:
        """Steps before the one that failed are answered; the others are not."""
        done = sum(part.steps for part in self._parts)
        kept = done * self._group.row_bytes + MESSAGE_BYTES if done else 0
        if done:
            self._answer(block, kept)
        self._owner.failed(block, self._handle, self.first_step + done, error, self.size - kept)
        self._owner.done(block)

    def _answer(self, block: Block, size: int) -> None:
        outputs, trace = self._take_out()
        if trace is not None:
            trace = self._group.trace.cut(trace, np.arange(self.first_step, self.first_step + len(trace)))
        safe = self._group.model.watermarks.told.item(block.slots.item(0))
        event = Answered(self._handle, self.first_step, self._group.form, outputs, trace, size, safe)
        self._owner.answer(self._group, event)


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

    __slots__ = ("first_steps", "handles")

    def __init__(self, owner: Owner, group: Group, handles: np.ndarray, steps: np.ndarray) -> None:
        super().__init__(owner, group, len(handles))
        self.handles = handles
        self.first_steps = steps

    def answered(self, part: Part) -> None:
        self._left -= part.take.rows
        if part.error is not None:
            self._fail(part, part.error)
        else:
            self._parts.append(part)
        if not self._left:
            self._owner.done(part.take.block)
            if self._parts:
                self._answer(part.take.block)

    def _fail(self, part: Part, error: TidegateError) -> None:
        for row in range(part.take.first, part.take.first + part.take.rows):
            freed = self._group.row_bytes
            self.size -= freed
            if self.size == MESSAGE_BYTES:  # no row is answered, so there will be no message
                freed += MESSAGE_BYTES
            handle, step = self.handles.item(row), self.first_steps.item(row)
            self._owner.failed(part.take.block, handle, step, error, freed)

    def _answer(self, block: Block) -> None:
        self._parts.sort(key=lambda part: part.take.first)
        rows = np.concatenate([np.arange(p.take.first, p.take.first + p.take.rows) for p in self._parts])
        steps, safe = self.first_steps[rows], self._group.model.watermarks.told[block.slots[rows]]
        outputs, trace = self._take_out()
        if trace is not None:
            trace = self._group.trace.cut(trace, steps)
        event = FleetAnswered(self.handles[rows], steps, self._group.form, outputs, trace, self.size, safe)
        self._owner.answer(self._group, event)


@dataclass(slots=True, eq=False)
class Mark:
    """Calls `reached` once all steps that were sent before for some sequences are through."""

    owner: Owner
    reached: Callable[[], None]
    size: int = 0

    def answered(self, part: Part) -> None:
        self.owner.done(part.take.block)
        self.reached()


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
