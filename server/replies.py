"""Collects the answers to one message and says what became of it. One object a message, made by its stream.

These are the sinks of the batcher: it calls them in the event loop's thread, in the order of a sequence's steps.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from server.errors import TidegateError
from server.events import Answered, Event, FleetAnswered
from server.model import ServedModel
from server.scheduler import Block, Part
from server.selection import TracePlan

MESSAGE_BYTES = 64  # what an answer costs besides its numbers


@dataclass(slots=True, eq=False)
class Group:
    """What sequences that were opened alike have in common, and how many of them are open."""

    model: ServedModel
    trace: TracePlan
    values: bool  # whether the client wants numbers instead of bytes
    row_bytes: int  # about what one step's answer takes
    members: int = 0


class Owner(Protocol):
    """The stream that a reply belongs to."""

    def emit(self, event: Event) -> None:
        """Tells the client, unless it is gone."""

    def done(self, block: Block) -> None:
        """A block is through."""

    def failed(self, block: Block, handle: int, step: int, error: TidegateError, freed: int) -> None:
        """A step could not be computed; `freed` bytes of answers will not come."""

    def free(self, block: Block) -> None:
        """The sequences of a mark take no more steps: their slots can go back."""

    def ended(self, handles: np.ndarray) -> None:
        """Sequences are over."""


class Chunk:
    """Collects the answers to steps of one sequence."""

    def __init__(self, stream: Owner, group: Group, handle: int, first_step: int, steps: int) -> None:
        self._stream = stream
        self._group = group
        self._handle = handle
        self._first = first_step
        self._left = steps
        self._parts: list[Part] = []
        self.size = steps * group.row_bytes + MESSAGE_BYTES

    @property
    def handle_list(self) -> list[int]:
        return [self._handle]

    @property
    def first_steps(self) -> np.ndarray:
        return np.array([self._first])

    def answered(self, part: Part) -> None:
        if part.error is not None:
            self._fail(part)
            return
        self._parts.append(part)
        self._left -= part.steps
        if not self._left:
            self._stream.done(part.take.block)
            self._stream.emit(self._event(self.size))

    def reached(self, block: Block) -> None:
        raise AssertionError("a chunk is no mark")

    def _fail(self, part: Part) -> None:
        block, done = part.take.block, sum(p.steps for p in self._parts)
        kept = done * self._group.row_bytes + MESSAGE_BYTES if done else 0
        if done:
            self._stream.emit(self._event(kept))
        assert part.error is not None
        self._stream.failed(block, self._handle, self._first + done, part.error, self.size - kept)
        self._stream.done(block)

    def _event(self, size: int) -> Answered:
        parts = self._parts
        outputs = {name: _flat([p.outputs[name] for p in parts]) for name in parts[0].outputs}
        return Answered(self._handle, self._first, outputs, self._trace(), self._group.values, size)

    def _trace(self) -> np.ndarray | None:
        traces = [p.trace for p in self._parts if p.trace is not None]
        if not traces:
            return None
        full = _flat(traces)
        return self._group.trace.cut(full, np.arange(self._first, self._first + len(full)))


class Fleet:
    """Collects the answers to one step of each of many sequences."""

    def __init__(self, stream: Owner, group: Group, handles: np.ndarray, steps: np.ndarray) -> None:
        self._stream = stream
        self._group = group
        self._handles = handles
        self.first_steps = steps
        self._left = len(handles)
        self._parts: list[Part] = []
        self.size = len(handles) * group.row_bytes + MESSAGE_BYTES

    @property
    def handle_list(self) -> list[int]:
        listed: list[int] = self._handles.tolist()
        return listed

    def answered(self, part: Part) -> None:
        row, rows = part.take.first, part.take.rows
        self._left -= rows
        if part.error is not None:
            for each in range(row, row + rows):
                handle, step = int(self._handles[each]), int(self.first_steps[each])
                self._stream.failed(part.take.block, handle, step, part.error, self._group.row_bytes)
                self.size -= self._group.row_bytes
        else:
            self._parts.append(part)
        if not self._left:
            self._stream.done(part.take.block)
            if self._parts:
                self._stream.emit(self._event())

    def reached(self, block: Block) -> None:
        raise AssertionError("a fleet is no mark")

    def _event(self) -> FleetAnswered:
        parts = sorted(self._parts, key=lambda part: part.take.first)
        rows = np.concatenate([np.arange(p.take.first, p.take.first + p.take.rows) for p in parts])
        outputs = {name: _flat([p.outputs[name] for p in parts], 1) for name in parts[0].outputs}
        steps = self.first_steps[rows]
        traces = [p.trace for p in parts if p.trace is not None]
        trace = self._group.trace.cut(_flat(traces, 1), steps) if traces else None
        return FleetAnswered(self._handles[rows], steps, outputs, trace, self._group.values, self.size)


class Ending:
    """Waits for the last step of sequences that are being closed, in as many groups as there are."""

    def __init__(self, stream: Owner, handles: np.ndarray, groups: int) -> None:
        self._stream = stream
        self._handles = handles
        self._left = groups

    def answered(self, part: Part) -> None:
        raise AssertionError("a mark has no steps")

    def reached(self, block: Block) -> None:
        self._stream.free(block)
        self._left -= 1
        if not self._left:
            self._stream.ended(self._handles)


def _flat(arrays: list[np.ndarray], axis: int = 0) -> np.ndarray:
    """Parts [K, R, ...], of which K or R is 1, joined along `axis` to [N, ...]."""
    joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis)
    return joined[:, 0] if axis == 0 else joined[0]
