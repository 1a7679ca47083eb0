"""Bounds the bytes that are under way for one client: of steps that run or wait, and of answers that are not written.

For a client that does not read, no more steps run than its window holds. A chunk of a million steps takes turns with
the steps of other sequences. Knows no messages and no keeper; `replies` collect the answers, and call the window.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from server.errors import TidegateError, WrongStep
from server.meter import EVERYBODY, Meter
from server.runtime.observer import Results
from server.runtime.scheduler import Block
from server.streams.allowance import Allowance
from server.streams.events import Answered, Event, Failed, FleetAnswered
from server.streams.handles import Handles
from server.streams.joined import Joined
from server.streams.lines import Lines
from server.streams.replies import Chunk, Fleet, Group, Mark

log = logging.getLogger(__name__)

_PIECE_BYTES = 2**20  # answers of long chunks and large fleets go out in messages of about this size
_NO_MORE: Iterator[Block] = iter(())
_ENTRY_BYTES = 1_024  # what a request that waits takes besides its inputs


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request of which blocks have still to be submitted: the next one, and those after it."""

    group: Group
    head: Block
    rest: Iterator[Block]
    size: int  # bytes that wait with it

    def take(self) -> tuple[Block, bool]:
        """The next block, and whether there are more."""
        block, following = self.head, next(self.rest, None)
        if following is not None:
            self.head = following
        return block, following is not None


class Window:
    """Hands the blocks of one stream to their batchers, those of a sequence in order. It is a replies.Owner.

    Args:
        handles: the sequences of the stream.
        allowed: how many bytes of answers may be on their way before no more steps are run, and how many bytes of
            requests may wait before no more are read.
        emit: takes each event.
        account: whose work it is.
    """

    def __init__(
        self, handles: Handles, allowed: Allowance, emit: Callable[[Event], None], account: Meter = EVERYBODY
    ) -> None:
        # fixed
        self._account = account
        self._handles = handles
        self._allowed = allowed
        self._tell = emit
        # work
        self.outstanding = 0  # bytes of answers that are computed or to be computed, and not written
        self._lines: Lines[_Waiting] = Lines()
        self.waiting = self._lines.entries  # requests that wait
        self._ready: deque[_Waiting] | tuple[()] = ()  # first in all of their lines: they take turns
        self._held = 0  # bytes that wait
        self._blocks: dict[Block, Group] = {}  # with a batcher, oldest first
        self.gone = False  # the client is

    @property
    def idle(self) -> bool:
        """Whether nothing is being computed or waits to be written."""
        return not self._lines.entries and not self._blocks and not self.outstanding

    def join(self, group: Group, block: Block, size: int) -> None:
        """A block runs, of which a step is this stream's, whose answer takes so many bytes."""
        self.outstanding += size
        self._blocks[block] = group

    def computing(self) -> bool:
        """Whether steps run, or wait to."""
        return bool(self._blocks or self.waiting)

    @property
    def full(self) -> bool:
        """Whether nothing more should be read from the client."""
        return self.outstanding >= self._allowed.size or self._held >= self._allowed.size

    def piece(self, group: Group) -> int:
        """The number of rows of one answer to a long chunk or a large fleet."""
        return max(1, min(_PIECE_BYTES, self._allowed.size) // group.row_bytes)

    def pieces(self, group: Group, rows: int) -> Iterator[tuple[int, int]]:
        size = self.piece(group)
        return ((start, min(start + size, rows)) for start in range(0, rows, size))

    def holds(self, handle: int) -> bool:
        return self._lines.concern((handle,))

    # Running ----------------------------------------------------------------------------------------------------------

    def enqueue(
        self,
        group: Group,
        handles: Sequence[int],
        block: Block,
        rest: Iterator[Block] = _NO_MORE,
        inputs: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Runs the blocks of a request, each once there is room for its answer, after what waits for these handles.

        `inputs` are those of all blocks together, where there is a `rest`.
        """
        if rest is _NO_MORE and not self.waiting and self._fits(block.sink.size):  # nearly every step
            self._submit(group, block)
            return
        following: Block | None = block
        if not self._ready and not self._lines.concern(handles):
            while following is not None and self._fits(following.sink.size):
                self._submit(group, following)
                following = next(rest, None)
        if following is not None:
            size = _ENTRY_BYTES + sum(x.nbytes for x in (inputs or block.inputs).values())
            self._held += size
            self._put(_Waiting(group, following, rest, size), handles)

    def after(self, group: Group, handles: np.ndarray, call: Callable[[], None]) -> None:
        """Calls once all steps that were sent before for these sequences are through."""
        slots = self._handles.slots[handles]
        awake = slots >= 0
        if not awake.any():
            call()
            return
        mark = Block(slots[awake], 0, {}, False, Mark(self, call))
        waiting = handles[awake].tolist() if self._lines.entries else []
        if self._lines.concern(waiting):
            self._put(_Waiting(group, mark, _NO_MORE, 0), waiting)
        else:
            self._submit(group, mark)

    def written(self, size: int) -> None:
        """An answer of this size was written: there is room for more steps."""
        self.outstanding -= size
        if self._ready:
            self.go_on()

    def go_on(self) -> None:
        """Submits blocks while there is room, one of each request in turn."""
        while self._ready and self._fits(self._ready[0].head.sink.size):
            entry = self._ready.popleft()
            block, more = entry.take()
            if more:
                self._ready.append(entry)
            else:
                self._forget(entry)
            self._submit(entry.group, block)

    def abandon(self) -> None:
        """The client is gone: drops the steps that have not run. Marks are reached once the others are through."""
        self.gone = True
        self._tell = _nobody  # `emit` refers to this stream
        self.outstanding = self._held = 0
        marks = [entry for entry in self._lines.entries if not entry.head.steps]
        self._lines.clear()
        self._ready = ()
        for block, group in list(self._blocks.items()):
            if block.steps and not isinstance(block.sink, Joined):  # of other streams too
                group.model.batcher.drop([block])
        for mark in marks:
            self._submit(mark.group, mark.head)

    def has_room(self, size: int) -> bool:
        """Whether an answer of so many bytes could be computed now, and nothing waits for that."""
        return not self.waiting and self._fits(size)

    def _fits(self, size: int) -> bool:
        return not size or not self.outstanding or self.outstanding + size <= self._allowed.size

    def _put(self, entry: _Waiting, handles: Sequence[int]) -> None:
        if self._lines.put(entry, handles):
            self._are_ready([entry])

    def _forget(self, entry: _Waiting) -> None:
        """Removes a request that waits no more; requests behind it may be ready."""
        self._held -= entry.size
        self._are_ready(self._lines.first(self._lines.remove(entry)))

    def _are_ready(self, entries: Sequence[_Waiting]) -> None:
        if entries:
            self._ready = self._ready or deque()
            self._ready.extend(entries)

    def _submit(self, group: Group, block: Block) -> None:
        block.account, block.stream = self._account, self
        self.outstanding += block.sink.size
        self._blocks[block] = group
        group.model.batcher.submit(block)

    # Called by replies ------------------------------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        self._tell(event)

    def answer(self, group: Group, event: Answered | FleetAnswered) -> None:
        """Emits results, whether their steps ran alone or in a batch, and shows them to the observer."""
        observer = group.model.observer
        if observer is not None:
            try:
                observer.answered(self._results(group, event))
            except Exception:
                log.exception("an observer failed")
        self._tell(event)

    def _results(self, group: Group, event: Answered | FleetAnswered) -> Results:
        steps = 1
        if isinstance(event, FleetAnswered):
            handles, first = event.handles.tolist(), event.steps
        else:
            handles, first, steps = [event.handle], np.array([event.first_step]), len(event.outputs[0])
        ids = tuple(self._handles.sequences[handle].id for handle in handles)
        outputs = dict(zip(event.form.names, event.outputs, strict=True))
        return Results(group.model.name, group.model.version, ids, first, steps, outputs, event.trace)

    def done(self, block: Block) -> None:
        self._blocks.pop(block, None)
        if not self._blocks:
            self._blocks = {}  # one that was emptied keeps its memory

    def failed(self, block: Block, handle: int, step: int, error: TidegateError, freed: int) -> None:
        """A step could not be computed: the sequence stays before it, and the steps sent after it are refused."""
        self.outstanding -= freed
        self._handles.next[handle] = step
        self.emit(Failed(error, (handle,), step, (step,), _request(block.sink)))
        self._refuse_later(block, handle, f"step {step} of sequence {handle} failed")

    def _refuse_later(self, block: Block, handle: int, why: str) -> None:
        """Refuses the later blocks of a sequence, and the blocks after those of all sequences that they hold."""
        affected = {handle}
        blocks = list(self._blocks)
        place = blocks.index(block) if block in self._blocks else len(blocks)
        for later in blocks[place + 1 :]:
            if _concerns(later, affected):
                group = self._blocks.pop(later)
                self.outstanding -= later.sink.size
                group.model.batcher.drop([later])
                self._refuse(later, why)
        for entry in list(self._lines.entries):
            if _concerns(entry.head, affected):
                if self._ready and entry in self._ready:
                    self._ready.remove(entry)
                self._forget(entry)
                self._refuse(entry.head, why)
        self.go_on()

    def _refuse(self, block: Block, why: str) -> None:
        reply = block.sink
        assert isinstance(reply, Chunk | Fleet)
        handles, first = reply.handles, reply.first_steps
        self._handles.next[handles] = np.minimum(self._handles.next[handles], first)
        error = WrongStep(f"{why}, so the steps sent after it were not taken")
        expected = tuple(self._handles.next[handles].tolist())
        self.emit(Failed(error, tuple(handles.tolist()), int(first[0]), expected, _request(reply)))


def _nobody(_: Event) -> None:
    """In place of `emit` once the client is gone."""


def _concerns(block: Block, affected: set[int]) -> bool:
    """Whether a block has steps of these; if so, adds all of its handles to them."""
    reply = block.sink
    if not isinstance(reply, Chunk | Fleet) or affected.isdisjoint(handles := reply.handles.tolist()):
        return False
    affected.update(handles)
    return True


def _request(sink: object) -> str:
    """The kind of the request that a block is of, as the contract names it."""
    return "fleet" if type(sink) is Fleet else "steps"
