"""Collects the answers to one message and says what became of it. One object a message, made by its stream.

These are the sinks of the batcher: it calls them in the event loop's thread, in the order of a sequence's steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from server.errors import TidegateError
from server.runtime.scheduler import Block, Part
from server.streams.events import Answered, FleetAnswered, Form
from server.streams.trace import Manner, TracePlan
from stepgraph.running.result import Result

if TYPE_CHECKING:
    from server.runtime.served_model import ServedModel

MESSAGE_BYTES = 64  # what an answer costs besides its numbers


@dataclass(slots=True, eq=False)
class Group:
    """What sequences that were opened alike have in common, and how many of them are open."""

    model: ServedModel
    trace: TracePlan
    form: Form
    manner: Manner
    row_bytes: int  # about what one step's answer takes
    members: int = 0


class Owner(Protocol):
    """The stream that a reply belongs to."""

    def answer(self, group: Group, event: Answered | FleetAnswered) -> None:
        """Steps were answered."""

    def done(self, block: Block) -> None:
        """A block is through."""

    def failed(self, block: Block, handle: int, step: int, error: TidegateError, freed: int) -> None:
        """A step could not be computed; `freed` bytes of answers will not come."""

    def freed(self, size: int) -> None:
        """So many bytes of answers will not come."""


class Chunk:
    """Collects the answers to consecutive steps of one sequence."""

    __slots__ = ("_group", "_handle", "_left", "_parts", "_stream", "first_step", "size")

    def __init__(self, stream: Owner, group: Group, handle: int, first_step: int, steps: int) -> None:
        self._stream = stream
        self._group = group
        self._handle = handle
        self._left = steps
        self._parts: list[Part] = []
        self.first_step = first_step
        self.size = steps * group.row_bytes + MESSAGE_BYTES

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
            self._stream.done(part.take.block)
            self._stream.answer(self._group, self._event(self.size))
            self._parts = []  # they know the block, which knows us

    def reached(self, block: Block) -> None:
        raise NotImplementedError

    def _fail(self, block: Block, error: TidegateError) -> None:
        """Steps before the one that failed are answered; the rest is not."""
        done = sum(part.steps for part in self._parts)
        kept = done * self._group.row_bytes + MESSAGE_BYTES if done else 0
        if done:
            self._stream.answer(self._group, self._event(kept))
        self._parts = []
        self._stream.failed(block, self._handle, self.first_step + done, error, self.size - kept)
        self._stream.done(block)

    def _event(self, size: int) -> Answered:
        """Its arrays are views of the batch's where one batch answered everything."""
        outputs = [
            _joined([part.outputs(name)[:, part.row] for part in self._parts]) for name in self._group.form.names
        ]
        safe = self._group.model.watermarks.told.item(self._parts[0].take.block.slots.item(0))
        return Answered(self._handle, self.first_step, self._group.form, outputs, self._trace(), size, safe)

    def _trace(self) -> np.ndarray | None:
        plan = self._group.trace
        if not plan.wanted:
            return None
        full = _joined([part.traces()[:, part.row] for part in self._parts])
        return plan.cut(full, np.arange(self.first_step, self.first_step + len(full)))


def single(group: Group, handle: int, step: int, slot: int, result: Result) -> Answered:
    """The answer to a step that was computed by itself."""
    outputs = [result.outputs[name][:, 0] for name in group.form.names]
    trace = None
    if result.trace is not None:
        trace = group.trace.cut(result.trace[:, 0], np.array([step]))
    safe = group.model.watermarks.told.item(slot)
    return Answered(handle, step, group.form, outputs, trace, group.row_bytes + MESSAGE_BYTES, safe)


class Fleet:
    """Collects the answers to one step of each of many sequences."""

    __slots__ = ("_group", "_left", "_parts", "_stream", "first_steps", "handles", "size")

    def __init__(self, stream: Owner, group: Group, handles: np.ndarray, steps: np.ndarray) -> None:
        self._stream = stream
        self._group = group
        self._left = len(handles)
        self._parts: list[Part] = []
        self.handles = handles
        self.first_steps = steps
        self.size = len(handles) * group.row_bytes + MESSAGE_BYTES

    def answered(self, part: Part) -> None:
        self._left -= part.take.rows
        if part.error is not None:
            self._fail(part, part.error)
        else:
            self._parts.append(part)
        if not self._left:
            self._stream.done(part.take.block)
            if self._parts:
                self._stream.answer(self._group, self._event())
                self._parts = []  # they know the block, which knows us

    def reached(self, block: Block) -> None:
        raise NotImplementedError

    def _fail(self, part: Part, error: TidegateError) -> None:
        freed = self._group.row_bytes
        if not self._left and not self._parts:
            self._stream.freed(MESSAGE_BYTES)  # no row is answered, so there will be no message
        for row in range(part.take.first, part.take.first + part.take.rows):
            handle, step = self.handles.item(row), self.first_steps.item(row)
            self._stream.failed(part.take.block, handle, step, error, freed)
            self.size -= freed

    def _event(self) -> FleetAnswered:
        parts = sorted(self._parts, key=lambda part: part.take.first)
        rows = np.concatenate([np.arange(p.take.first, p.take.first + p.take.rows) for p in parts])
        steps, plan = self.first_steps[rows], self._group.trace
        outputs = [
            _joined([p.outputs(name)[0, p.row : p.row + p.take.rows] for p in parts]) for name in self._group.form.names
        ]
        trace = None
        if plan.wanted:
            trace = plan.cut(_joined([p.traces()[0, p.row : p.row + p.take.rows] for p in parts]), steps)
        safe = self._group.model.watermarks.told[parts[0].take.block.slots[rows]]
        return FleetAnswered(self.handles[rows], steps, self._group.form, outputs, trace, self.size, safe)


class Mark:
    """Waits for the last step of some sequences that was sent so far."""

    __slots__ = ("_reached", "_stream", "size")

    def __init__(self, stream: Owner, reached: Callable[[], None]) -> None:
        self.size = 0
        self._stream = stream
        self._reached = reached

    def answered(self, part: Part) -> None:
        raise NotImplementedError

    def reached(self, block: Block) -> None:
        self._stream.done(block)
        self._reached()


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
