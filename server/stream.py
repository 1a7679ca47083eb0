"""One client's sequences: opens them, takes their steps in order, hands them to the batchers, collects the answers.

Knows no gRPC and no asyncio: it is called with requests in our own words, raises Refusals, and emits events. Everything
happens in one thread. Its window bounds what may wait for a client that does not read.
"""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import count as counter
from secrets import token_hex
from typing import Protocol

import numpy as np

from server.errors import BadInput, OverLimit, TidegateError, UnknownHandle, WrongStep
from server.events import Closed, Event, Failed, Form, Opened
from server.inputs import Named
from server.model import ServedModel
from server.replies import Chunk, Ending, Fleet, Group, single
from server.scheduler import Block
from server.selection import Manner, TracePlan, plan
from tidegate.v1 import error_pb2

_FREE, _CLOSING = -1, -2  # what `_groups` says of a handle that belongs to no group
_PIECE_BYTES = 2**20  # answers of long chunks and large fleets go out in messages of about this size

_RUN, _SERIAL = token_hex(6), counter()  # sequence ids are unique across servers and restarts


class Catalogue(Protocol):
    """Where a stream finds its models."""

    def find(self, name: str, version: int) -> ServedModel:
        """The model to open sequences of; version 0 is the newest. Raises Refusal."""


class Stream:
    """The sequences of one client.

    Args:
        catalogue: where the models are.
        max_sequences: the most sequences that this stream may have open, and the limit of its handles.
        window: how many bytes of answers may be on their way before no more steps are run.
        emit: takes each event. The caller says `written` when an answer has left.
    """

    def __init__(self, catalogue: Catalogue, max_sequences: int, window: int, emit: Callable[[Event], None]) -> None:
        # fixed
        self._catalogue = catalogue
        self._limit = max_sequences
        self._window = window
        self._tell = emit
        # by handle
        self._slots = np.zeros(0, np.intp)
        self._next = np.zeros(0, np.int64)  # the step that is expected next
        self._groups = np.zeros(0, np.int32)  # an index into `_known`, or _FREE or _CLOSING
        self._known: dict[int, Group] = {}
        self._alike: dict[tuple[ServedModel, Manner], int] = {}
        self._indices = counter()
        # work
        self._outstanding = 0  # bytes of answers that are computed or to be computed, and not written
        self._waiting: deque[tuple[Group, Block, int]] = deque()  # not yet with a batcher, with the size of the answer
        self._blocks: dict[Block, Group] = {}  # with a batcher, oldest first
        self._gone = False

    @property
    def full(self) -> bool:
        """Whether the client should be read no further for now."""
        return bool(self._waiting) or self._outstanding >= self._window

    @property
    def idle(self) -> bool:
        """Whether nothing is being computed or waits to be written."""
        return not self._waiting and not self._blocks and not self._outstanding

    # Requests ---------------------------------------------------------------------------------------------------------

    def open(self, handle: int, count: int, name: str, version: int, manner: Manner) -> None:
        """Opens `count` sequences of a model under the handles from `handle` on."""
        handles = self._new_handles(handle, count)
        model = self._catalogue.find(name, version)
        trace = plan(manner.selection, model.graph.trace, model.graph.layers)
        self._slots[handles] = model.slots.take(count)
        self._next[handles] = 0
        self._groups[handles] = self._join(model, manner, trace, count)
        ids = tuple(f"{_RUN}-{next(_SERIAL)}" for _ in range(count))
        self.emit(Opened(handle, ids, model.name, model.version, trace.columns))

    def steps(self, handle: int, first_step: int, inputs: Named, company: bool = False) -> None:
        """Takes consecutive steps of one sequence: `inputs` are [N, ...row] each, or one row.

        With `company` others came together with them, so they had better wait for a batch.
        """
        group = self._group(handle)
        expected = self._next.item(handle)
        if first_step != expected:
            raise WrongStep(f"steps begin at {first_step}; sequence {handle} expects step {expected} next")
        checked = group.model.check.steps(inputs)
        total = len(next(iter(checked.values())))
        slot = self._slots[handle : handle + 1]
        if total == 1 and not company and not self._waiting:
            result = group.model.batcher.at_once(slot, checked, group.trace.wanted)
            if result is not None:
                self._next[handle] = expected + 1
                answer = single(group, handle, expected, result)
                self._outstanding += answer.size
                self._tell(answer)
                return
        self._next[handle] = expected + total
        for start, stop in _pieces(total, group.row_bytes):
            part = checked if total == stop - start else {name: x[start:stop] for name, x in checked.items()}
            reply = Chunk(self, group, handle, expected + start, stop - start)
            self._enqueue(group, Block(slot, stop - start, part, group.trace.wanted, reply), reply.size)

    def fleet(self, handles: np.ndarray, steps: np.ndarray, inputs: Named) -> None:
        """Takes one step of each of many sequences: `handles` and `steps` [N], `inputs` [N, ...row] each."""
        group = self._fleet_group(handles, steps)
        expected = self._next[handles]
        if not np.array_equal(steps, expected):
            i = int(np.argmax(steps != expected))
            raise WrongStep(f"step {steps[i]} of sequence {handles[i]} came; it expects step {expected[i]} next")
        checked = group.model.check.fleet(inputs, len(handles))
        self._next[handles] += 1
        slots = self._slots[handles]
        for start, stop in _pieces(len(handles), group.row_bytes):
            part = {name: x[:, start:stop] for name, x in checked.items()}
            reply = Fleet(self, group, handles[start:stop], expected[start:stop])
            self._enqueue(group, Block(slots[start:stop], 1, part, group.trace.wanted, reply), reply.size)

    def close(self, handle: int, count: int) -> None:
        """Ends sequences once their last step is answered."""
        last = handle + max(count, 1) - 1
        self._group(last)  # before an array is made of them
        handles = np.arange(handle, last + 1)
        closed = self._groups[handles] < 0
        if closed.any():
            self._group(handles.item(np.argmax(closed)))
        self._end(handles)

    def expected(self, handles: Sequence[int]) -> tuple[int, ...]:
        """The step that each sequence expects next; empty if one of them is not open."""
        known = [h for h in handles if 0 <= h < len(self._groups) and self._groups[h] >= 0]
        return tuple(self._next[known].tolist()) if len(known) == len(handles) else ()

    def abandon(self) -> None:
        """The client is gone: forgets the steps that wait and ends every sequence."""
        self._gone = True
        self._outstanding = 0
        marks = [(group, block, 0) for group, block, _ in self._waiting if not block.steps]
        self._waiting.clear()
        for block, group in list(self._blocks.items()):
            if block.steps:
                group.model.batcher.drop([block])
        for mark in marks:
            self._submit(*mark)
        still_open = np.flatnonzero(self._groups >= 0)
        if len(still_open):
            self._end(still_open)

    def written(self, size: int) -> None:
        """An answer of this size has left: there is room for more steps."""
        self._outstanding -= size
        while self._waiting and self._fits(self._waiting[0][2]):
            self._submit(*self._waiting.popleft())

    # Inside -----------------------------------------------------------------------------------------------------------

    def _group(self, handle: int) -> Group:
        index = self._groups.item(handle) if handle < len(self._groups) else _FREE
        if index < 0:
            raise UnknownHandle(f"no sequence is open under handle {handle} on this stream")
        return self._known[index]

    def _new_handles(self, handle: int, count: int) -> np.ndarray:
        if not 0 < count <= self._limit - handle:
            raise OverLimit(
                f"handles {handle} to {handle + count - 1} go beyond {self._limit - 1}, the highest that is allowed",
                error_pb2.REASON_TOO_MANY_SEQUENCES,
            )
        self._grow(handle + count)
        handles = np.arange(handle, handle + count)
        taken = handles[self._groups[handles] != _FREE]
        if len(taken):
            raise UnknownHandle(
                f"handle {taken[0]} is open already; close it first or use another", error_pb2.REASON_HANDLE_IN_USE
            )
        return handles

    def _grow(self, size: int) -> None:
        more = max(size, 2 * len(self._groups)) - len(self._groups) if size > len(self._groups) else 0
        if more:
            self._slots = np.concatenate([self._slots, np.zeros(more, np.intp)])
            self._next = np.concatenate([self._next, np.zeros(more, np.int64)])
            self._groups = np.concatenate([self._groups, np.full(more, _FREE, np.int32)])

    def _join(self, model: ServedModel, manner: Manner, trace: TracePlan, count: int) -> int:
        """The index of the group of sequences opened like these, which become members of it."""
        key = (model, manner)
        if key not in self._alike:
            self._alike[key] = next(self._indices)
            form = Form(tuple(port.name for port in model.graph.outputs), manner.values, manner.bundle)
            self._known[self._alike[key]] = Group(model, trace, form, _row_bytes(model, trace))
        self._known[self._alike[key]].members += count
        return self._alike[key]

    def _leave(self, group: Group, count: int) -> None:
        """Members of a group have ended; a group without members is forgotten, and its model with it."""
        group.members -= count
        if not group.members:
            index = next(i for i, known in self._known.items() if known is group)
            del self._known[index]
            self._alike = {key: i for key, i in self._alike.items() if i != index}

    def _end(self, handles: np.ndarray) -> None:
        groups = self._groups[handles]
        ending = Ending(self, handles, len(np.unique(groups)))
        self._groups[handles] = _CLOSING
        for index in np.unique(groups).tolist():
            slots = self._slots[handles[groups == index]]
            self._enqueue(self._known[index], Block(slots, 0, {}, False, ending), 0)

    def _fleet_group(self, handles: np.ndarray, steps: np.ndarray) -> Group:
        if not len(handles) or len(handles) != len(steps):
            raise BadInput(
                f"a fleet came with {len(handles)} handles and {len(steps)} steps; expected as many of both",
                error_pb2.REASON_MALFORMED,
            )
        group = self._group(int(handles.max()))
        indices = self._groups[handles]
        if (indices < 0).any():
            self._group(int(handles[np.argmax(indices < 0)]))
        if (indices != indices[0]).any():
            raise BadInput("a fleet takes sequences that were opened together, in one Open", error_pb2.REASON_MALFORMED)
        rows = np.empty(len(self._groups), np.intp)
        rows[handles] = np.arange(len(handles))
        if (rows[handles] != np.arange(len(handles))).any():
            raise BadInput("a fleet names a handle twice", error_pb2.REASON_MALFORMED)
        return group

    def _fits(self, size: int) -> bool:
        return not self._outstanding or self._outstanding + size <= self._window

    def _enqueue(self, group: Group, block: Block, size: int) -> None:
        if not self._waiting and self._fits(size):
            self._submit(group, block, size)
        else:
            self._waiting.append((group, block, size))

    def _submit(self, group: Group, block: Block, size: int) -> None:
        self._outstanding += size
        self._blocks[block] = group
        group.model.batcher.submit(block)

    # Called by replies ------------------------------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Tells the client, unless it is gone."""
        if not self._gone:
            self._tell(event)

    def done(self, block: Block) -> None:
        """A block is through."""
        self._blocks.pop(block, None)

    def failed(self, block: Block, handle: int, step: int, error: TidegateError, freed: int) -> None:
        """A step could not be computed: the sequence stands before it, and the steps sent after it are refused."""
        self._outstanding -= freed
        self._next[handle] = step
        self.emit(Failed(error, (handle,), step, (step,)))
        affected = {handle}
        for later, group in self._later(block):
            reply = later.sink
            if isinstance(reply, Chunk | Fleet) and affected.intersection(reply.handles.tolist()):
                affected.update(reply.handles.tolist())
                self._refuse(later, group, reply, f"step {step} of sequence {handle} failed")

    def freed(self, size: int) -> None:
        """So many bytes of answers will not come."""
        self._outstanding -= size

    def free(self, block: Block) -> None:
        """The sequences of a mark take no more steps: their slots go back."""
        group = self._blocks.pop(block)
        group.model.slots.give_back(block.slots.tolist())
        self._leave(group, len(block.slots))

    def ended(self, handles: np.ndarray) -> None:
        """Sequences are over."""
        self._groups[handles] = _FREE
        self.emit(Closed(int(handles[0]), tuple(self._next[handles].tolist())))

    def _later(self, block: Block) -> list[tuple[Block, Group]]:
        blocks = list(self._blocks.items())
        place = next((i for i, (b, _) in enumerate(blocks) if b is block), len(blocks))
        return blocks[place + 1 :] + [(b, group) for group, b, _ in self._waiting]

    def _refuse(self, later: Block, group: Group, reply: Chunk | Fleet, why: str) -> None:
        if later in self._blocks:
            del self._blocks[later]
            self._outstanding -= reply.size
            group.model.batcher.drop([later])
        else:
            self._waiting = deque(entry for entry in self._waiting if entry[1] is not later)
        handles, first = reply.handles, reply.first_steps
        self._next[handles] = np.minimum(self._next[handles], first)
        error = WrongStep(f"{why}, so the steps sent after it were not taken")
        self.emit(Failed(error, tuple(handles.tolist()), int(first[0]), tuple(self._next[handles].tolist())))


def _row_bytes(model: ServedModel, trace: TracePlan) -> int:
    outputs = sum(int(np.prod(port.row)) * port.dtype.itemsize for port in model.graph.outputs)
    return outputs + trace.width * model.graph.dtype.itemsize // trace.every + 8


def _pieces(rows: int, row_bytes: int) -> Sequence[tuple[int, int]]:
    """Cuts rows into runs whose answers are of a handy size."""
    size = max(1, _PIECE_BYTES // row_bytes)
    if rows <= size:
        return ((0, rows),)
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]
