"""What is under way for one client, and the bound on it: steps that run or wait to, answers that are not yet written.

A client that does not read gets no more steps run than its window holds. Knows no messages and no keeper; the answers
themselves are collected by replies, which it hears from.
"""

from collections import deque
from collections.abc import Callable

import numpy as np

from server.errors import TidegateError, WrongStep
from server.runtime.scheduler import Block
from server.streams.events import Event, Failed
from server.streams.handles import Handles
from server.streams.replies import Chunk, Fleet, Group, Mark


class Window:
    """Hands the blocks of one stream to their batchers, in order. See also replies.Owner, which it is.

    Args:
        handles: what the client's numbers stand for.
        size: how many bytes of answers may be on their way before no more steps are run.
        emit: takes each event.
    """

    def __init__(self, handles: Handles, size: int, emit: Callable[[Event], None]) -> None:
        # fixed
        self._handles = handles
        self.size = size
        self._tell = emit
        # work
        self.outstanding = 0  # bytes of answers that are computed or to be computed, and not written
        self.waiting: deque[tuple[Group, Block, int]] = deque()  # not yet with a batcher, with the size of the answer
        self._blocks: dict[Block, Group] = {}  # with a batcher, oldest first
        self.gone = False  # the client is

    @property
    def idle(self) -> bool:
        """Whether nothing is being computed or waits to be written."""
        return not self.waiting and not self._blocks and not self.outstanding

    # Running ----------------------------------------------------------------------------------------------------------

    def enqueue(self, group: Group, block: Block, size: int) -> None:
        """Runs a block whose answer takes so many bytes, once there is room for it."""
        if not self.waiting and self._fits(size):
            self._submit(group, block, size)
        else:
            self.waiting.append((group, block, size))

    def after(self, group: Group, handles: np.ndarray, call: Callable[[], None]) -> None:
        """Calls once all steps of these sequences that were sent so far are through."""
        slots = self._handles.slots[handles]
        awake = slots[slots >= 0]
        if len(awake):
            self.enqueue(group, Block(awake, 0, {}, False, Mark(self, call)), 0)
        else:
            call()

    def go_on(self) -> None:
        """There may be room for more."""
        while self.waiting and self._fits(self.waiting[0][2]):
            self._submit(*self.waiting.popleft())

    def abandon(self) -> None:
        """The client is gone: forgets the steps that have not run, and waits for those that are running."""
        self.gone = True
        self.outstanding = 0
        marks = [(group, block, 0) for group, block, _ in self.waiting if not block.steps]
        self.waiting.clear()
        for block, group in list(self._blocks.items()):
            if block.steps:
                group.model.batcher.drop([block])
        for mark in marks:
            self._submit(*mark)

    def _fits(self, size: int) -> bool:
        return not self.outstanding or self.outstanding + size <= self.size

    def _submit(self, group: Group, block: Block, size: int) -> None:
        self.outstanding += size
        self._blocks[block] = group
        group.model.batcher.submit(block)

    # Called by replies ------------------------------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Tells the client, unless it is gone."""
        if not self.gone:
            self._tell(event)

    def done(self, block: Block) -> None:
        """A block is through."""
        self._blocks.pop(block, None)

    def freed(self, size: int) -> None:
        """So many bytes of answers will not come."""
        self.outstanding -= size

    def failed(self, block: Block, handle: int, step: int, error: TidegateError, freed: int) -> None:
        """A step could not be computed: the sequence stands before it, and the steps sent after it are refused."""
        self.outstanding -= freed
        self._handles.next[handle] = step
        self.emit(Failed(error, (handle,), step, (step,), _request(block.sink)))
        affected = {handle}
        for later, group in self._later(block):
            reply = later.sink
            if isinstance(reply, Chunk | Fleet) and affected.intersection(reply.handles.tolist()):
                affected.update(reply.handles.tolist())
                self._refuse(later, group, reply, f"step {step} of sequence {handle} failed")

    def _later(self, block: Block) -> list[tuple[Block, Group]]:
        blocks = list(self._blocks.items())
        place = next((i for i, (b, _) in enumerate(blocks) if b is block), len(blocks))
        return blocks[place + 1 :] + [(b, group) for group, b, _ in self.waiting]

    def _refuse(self, later: Block, group: Group, reply: Chunk | Fleet, why: str) -> None:
        if later in self._blocks:
            del self._blocks[later]
            self.outstanding -= reply.size
            group.model.batcher.drop([later])
        else:
            self.waiting = deque(entry for entry in self.waiting if entry[1] is not later)
        handles, first = reply.handles, reply.first_steps
        self._handles.next[handles] = np.minimum(self._handles.next[handles], first)
        error = WrongStep(f"{why}, so the steps sent after it were not taken")
        expected = tuple(self._handles.next[handles].tolist())
        self.emit(Failed(error, tuple(handles.tolist()), int(first[0]), expected, _request(reply)))


def _request(sink: object) -> str:
    """What the contract calls the request that a block is of."""
    return "fleet" if isinstance(sink, Fleet) else "steps"
