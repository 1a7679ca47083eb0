"""Decides which waiting steps run together. Pure: no clock, no threads, no arrays but slot numbers.

Work comes as blocks: the steps of one message. A block of one sequence may hold many steps (a chunk), a block of many
sequences holds one step of each (a fleet). Blocks that share a sequence run one after the other, in the order in which
they came; all others are free to run at any time, and a batch takes at most one step of each sequence at a time.
Where more is ready than a batch takes, `shares` divides it between the accounts.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Protocol, Self

import numpy as np

from server.errors import TidegateError
from server.meter import EVERYBODY, Meter
from server.runtime.shares import Shares, Take
from stepgraph.running.result import Result

_FEW = 256  # slots: numpy takes longer to look through so many than Python
MANY = -1  # in place of the slot of a block that has several


class Sink(Protocol):
    """Where a block's answers go. Called in the order of its steps, in the event loop's thread."""

    size: int  # what its answer takes, in bytes

    def answered(self, part: "Part") -> None:
        """Some steps of a block have run, or could not; or everything before a mark has run."""


@dataclass(slots=True, eq=False)
class Block:
    """The steps of one message: `steps` steps of each of the sequences in `slots`; one of the two numbers is 1.

    A block of 0 steps is a mark: it is done as soon as all before it are. `inputs[name]` is [steps, sequences, ...row];
    the scheduler does not look at inputs, trace and sink.
    """

    slots: np.ndarray
    steps: int
    inputs: Mapping[str, np.ndarray]
    trace: bool  # whether any of its steps is to be traced
    sink: Sink
    account: Meter = EVERYBODY  # whose work it is
    stream: object = None  # which stream of that account it came on; None: on several
    singles: bool = False  # its steps came each by itself
    apart: bool = False  # its rows, which are several, are answered as they run, not once all have
    done: int = 0  # steps of a chunk, rows of a fleet
    came: float = 0.0  # when, in seconds of the batcher's clock
    number: int = -1
    running: bool = False  # in the batch that was handed out last
    dropped: bool = False  # what has not run will not run
    waits_for: int = 0
    followers: list["Block"] | None = None
    slot: int = field(init=False)  # if it has only one
    is_fleet: bool = field(init=False)

    def __post_init__(self) -> None:
        self.slot = self.slots.item(0) if len(self.slots) == 1 else MANY
        self.is_fleet = self.slot == MANY and not self.singles

    @property
    def left(self) -> int:
        """How many steps or rows have not run."""
        return self.steps * len(self.slots) - self.done

    @property
    def rows(self) -> int:
        """How many rows of a batch it has work for."""
        return self.left if self.slot == MANY else 1

    @property
    def first(self) -> int:
        """The first of them."""
        return self.done if self.slot == MANY else 0


@dataclass(slots=True, eq=False)  # not frozen, as Take
class Part:
    """The result of a take: `steps` steps from `step` on ran, or failed with `error`. Of a mark: no steps.

    Its answers are the rows of `result`, of everything that ran together, from `row` on.
    """

    take: Take
    step: int = 0
    steps: int = 0
    result: Result | None = None
    row: int = 0
    error: TidegateError | None = None

    def outputs(self, names: Iterable[str]) -> list[np.ndarray]:
        """Its rows of these outputs, [steps or rows, ...row] each. Only without an error."""
        assert self.result is not None
        outputs, row = self.result.outputs, self.row
        if self.take.block.slot != MANY:
            return [outputs[name][:, row] for name in names]
        return [outputs[name][0, row : row + self.take.rows] for name in names]

    def trace(self) -> np.ndarray:
        """Its rows of the trace, [steps or rows, V]. Only without an error, and where a trace was asked for."""
        assert self.result is not None
        assert self.result.trace is not None
        return self._rows_of(self.result.trace)

    def _rows_of(self, whole: np.ndarray) -> np.ndarray:
        """Of an array [steps, B, ...]."""
        if self.take.block.slot != MANY:
            return whole[:, self.row]
        return whole[0, self.row : self.row + self.take.rows]


def reached(mark: Block) -> Part:
    """Tells a mark that everything before it has run."""
    return Part(Take(mark, 0, 0))


@dataclass(frozen=True, slots=True)
class Batch:
    """What runs together: `steps` consecutive steps of all rows of all takes."""

    takes: tuple[Take, ...]
    steps: int
    rows: int
    whole: bool  # no block has steps or rows besides these
    beyond: int = 0  # steps of its chunks, or rows of its fleet, that would come next if nothing else does

    @property
    def length(self) -> float:
        """How many times as long as one step of its rows it takes, with what is beyond."""
        return self.steps + (self.beyond / self.rows if self.takes[0].block.slot == MANY else self.beyond)

    def further(self) -> Self | None:
        """The batch after this one, which has run, as `next` would give it while nothing else has come.

        None: the scheduler has to be asked. Only the last of such batches is handed to `finish`.
        """
        if not self.beyond or any(take.block.dropped for take in self.takes):
            return None
        block = self.takes[0].block
        steps = min(self.steps, self.beyond)
        for take in self.takes:
            take.block.done += take.rows * self.steps
        if block.slot != MANY:
            return replace(self, steps=steps, beyond=self.beyond - steps)
        rows = min(self.rows, self.beyond)
        return replace(self, takes=(Take(block, block.done, rows),), rows=rows, beyond=self.beyond - rows)


class Scheduler:
    """Holds the waiting blocks of one model.

    Args:
        capacity: how many slots there are.
        largest: the most rows of a batch.
        longest: how many consecutive steps a batch of so many rows may take, so that a newcomer is not kept waiting.
    """

    def __init__(self, capacity: int, largest: int, longest: Callable[[int], int]) -> None:
        self._largest = largest
        self._longest = longest
        self._numbers = count()
        self._last = np.full(capacity, -1, np.int64)  # the number of the newest block of each slot
        self._open: dict[int, Block] = {}  # blocks that have not finished, by number
        self._ready = Shares()

    def add(self, block: Block) -> bool:
        """Takes a block in. True: it is finished already, because it is a mark with nothing before it."""
        block.number = next(self._numbers)
        for earlier in self._earlier(block):
            earlier.followers = [*(earlier.followers or ()), block]
            block.waits_for += 1
        if not block.waits_for and not block.steps:
            return True
        self._last[block.slots if block.slot == MANY else block.slot] = block.number
        self._open[block.number] = block
        if not block.waits_for:
            self._ready.put(block)
        return False

    def is_free(self, slots: np.ndarray) -> bool:
        """Whether no block of these slots is unfinished."""
        return not self._open or self._open.keys().isdisjoint(self._last[slots].tolist())

    @property
    def has_more(self) -> bool:
        """Whether `next` has a batch."""
        return self._ready.some

    def next(self) -> Batch | None:
        """The next batch, or None if nothing is ready. Its blocks are not handed out again before `finish`."""
        takes = tuple(self._ready.take(self._largest))
        if not takes:
            return None
        rows, steps, whole = 0, sys.maxsize, True
        for take in takes:
            block = take.block
            block.running = True
            rows += take.rows
            if block.steps > 1:
                steps, whole = min(steps, block.left), False
            else:
                steps, whole = 1, whole and take.rows == len(block.slots)
        left, steps = steps, min(steps, self._longest(rows)) if steps > 1 else 1
        beyond = 0
        if not whole and self._ready.calm:
            if left > 1:
                beyond = left - steps
            elif len(takes) == 1 and takes[0].block.slot == MANY and not takes[0].block.apart:
                beyond = takes[0].block.left - rows
        return Batch(takes, steps, rows, whole, beyond)

    def finish(self, batch: Batch) -> list[Block]:
        """Notes that a batch has run. Returns the marks that are done thereby."""
        marks: list[Block] = []
        for take in batch.takes:
            block = take.block
            block.running = False
            block.done += take.rows * batch.steps
            if block.done < block.steps * len(block.slots) and not block.dropped:
                if block.apart:  # what comes for these rows need not wait for the others
                    done = block.slots[take.first : take.first + take.rows]
                    self._last[done[self._last[done] == block.number]] = -1
                self._ready.put(block)
            elif block.followers is None:
                del self._open[block.number]
            else:
                marks.extend(self._close(block))
        return marks

    def drop(self, blocks: Iterable[Block]) -> list[Block]:
        """Drops the steps of these blocks that have not run. Returns the marks that are done thereby.

        A block that waits, or runs now, keeps its place until all before it are done: what comes after it in the same
        sequences goes on waiting for those.
        """
        marks: list[Block] = []
        for block in blocks:
            block.dropped = True
            if block.number in self._open and not block.running and not block.waits_for:
                self._ready.remove(block)
                marks.extend(self._close(block))
        return marks

    def _earlier(self, new: Block) -> Sequence[Block]:
        """The unfinished blocks that a new one has to wait for."""
        if not self._open:
            return ()
        if new.slot != MANY:
            block = self._open.get(self._last.item(new.slot))
            return (block,) if block else ()
        last = self._last[new.slots]
        numbers = sorted(set(last.tolist())) if len(last) <= _FEW else np.unique(last).tolist()
        return [self._open[n] for n in numbers if n in self._open]

    def _close(self, block: Block) -> list[Block]:
        """Removes a block; blocks that waited for it alone are ready. Returns the marks that are done, in order."""
        marks: list[Block] = []
        closing = deque([block])  # many marks and dropped blocks may follow each other
        while closing:
            closed = closing.popleft()
            del self._open[closed.number]
            for follower in closed.followers or ():
                follower.waits_for -= 1
                if follower.waits_for:
                    continue
                if follower.steps and not follower.dropped:
                    self._ready.put(follower)
                    continue
                closing.append(follower)
                if not follower.dropped:
                    marks.append(follower)
            closed.followers = None
        return marks
