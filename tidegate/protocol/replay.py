"""The inputs of one sequence that a server may want again: those since its last checkpoint but one. Pure.

They are kept as the messages that carried them, which nothing changes: a caller may write into an array of its own as
soon as it is sent. Steps that went one by one are put together once they are answered: a message takes fifty times as
much as the numbers of a step, and while a store is dead a client keeps hundreds of thousands.
"""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

from tidegate import wire
from tidegate.plain.steps import PlainStep
from tidegate.protocol.budget import Budget
from tidegate.protocol.promise import Promise
from tidegate.v1 import sequence_pb2 as pb

MESSAGE_BYTES = 1792  # what Python and protobuf take for a message besides its numbers, about
TOGETHER = 32  # steps that are put into one message


@dataclass(slots=True, eq=False)  # not frozen, as Block
class _Kept:
    """A message with the steps from `first` to before `end`; `size` is what it counts in bytes.

    `alone`: it carries one step, whose inputs have no axis for steps.
    """

    first: int
    end: int
    request: pb.StreamRequest
    size: int
    alone: bool = False

    @property
    def message(self) -> pb.StreamRequest:
        return self.request

    def numbers(self, at: int) -> bytes:
        return self.request.steps.inputs[at].data

    def arrays(self) -> dict[str, wire.Array]:
        arrays = {tensor.name: wire.decode(tensor) for tensor in self.request.steps.inputs}
        return {name: array[np.newaxis] for name, array in arrays.items()} if self.alone else arrays


class Replay:
    """The kept inputs of one sequence, counted in a budget that it shares with others.

    `first` is the step at which the sequence began; `claimed` that it was resumed there from a checkpoint, so that
    earlier inputs are unknown here.
    """

    def __init__(self, first: int, budget: Budget, *, claimed: bool = False) -> None:
        self.whole = not claimed  # whether it can be opened anew: no checkpoint is known
        self._budget = budget
        self.last = self._before = first  # the last checkpoint that is known, and the one before
        self._end = first
        self._folded: deque[_Kept | PlainStep] = deque()  # the earlier ones, as few messages as may be
        self._loose: deque[_Kept | PlainStep] = deque()  # the later ones, as they were sent
        self._over = False

    def room(self) -> Promise[None] | None:
        """Whether more can be kept: None, or the promise to wait for.

        A sequence whose every step is in a checkpoint always has room for more. Otherwise sequences that rest could
        fill the budget for ever: the inputs since their last checkpoint but one stay until they go on.
        """
        budget = self._budget
        if budget.bytes < budget.most_bytes and budget.steps < budget.most_steps:  # nearly always
            return None
        return budget.room() if self._end > self.last else None

    def add(self, first: int, end: int, request: pb.StreamRequest, size: int, *, alone: bool = False) -> None:
        """Keeps a message with the steps from `first` to before `end`, whose inputs take `size` bytes.

        `alone`: it is one step, whose inputs have no axis for steps.
        """
        self._append(self._loose, _Kept(first, end, request, size + MESSAGE_BYTES, alone))

    def keep(self, step: PlainStep) -> None:
        """The same for a step that is no message."""
        budget, step.size = self._budget, len(step.data) + MESSAGE_BYTES
        self._loose.append(step)
        self._end = step.end
        budget.bytes += step.size
        budget.steps += 1

    def fold(self, answered: int) -> None:
        """Puts the oldest steps together that came one by one, if they are among the first `answered` ones.

        Those that are not answered stay as they were sent: sent again, each is answered by itself.
        """
        loose = self._loose
        if len(loose) < TOGETHER or loose[TOGETHER - 1].end > answered:
            return
        oldest = [loose.popleft() for _ in range(TOGETHER)]
        if not all(kept.alone for kept in oldest):
            self._folded.extend(oldest)
            return
        spared = (TOGETHER - 1) * MESSAGE_BYTES
        size = sum([kept.size for kept in oldest]) - spared
        self._folded.append(_Kept(oldest[0].first, oldest[-1].end, _joined(oldest), size))
        self._budget.free(spared, 0)

    def part(self) -> None:
        """Messages from here on are not joined with earlier ones: their inputs may differ."""
        self._folded.extend(self._loose)
        self._loose.clear()

    def checkpointed(self, step: int) -> None:
        if step <= self.last:
            return
        self.whole = False
        self._before, self.last = self.last, step
        size = steps = 0
        for block in (self._folded, self._loose):
            while block and block[0].end <= self._before:
                kept = block.popleft()
                size += kept.size
                steps += kept.end - kept.first
        if steps and not self._over:
            self._budget.free(size, steps)
        if self._end <= step:
            self._budget.stir()

    def cut(self, step: int) -> None:
        for block in (self._loose, self._folded):
            while block and block[-1].end > step:
                kept = block.pop()
                self._free(kept)
                if kept.first < step:
                    part = rows(kept.message, 0, step - kept.first)
                    self._append(block, _Kept(kept.first, step, part, kept.size))
        self._end = min(self._end, step)

    def rewound(self, step: int) -> None:
        self.cut(step)
        self.whole = False
        self.last = self._end = step
        self._before = min(self._before, step)

    def clear(self, *, forget: bool) -> None:
        """Frees the budget: nothing will be sent again. The inputs can still be read, unless `forget`."""
        for kept in chain(self._folded, self._loose):
            self._free(kept)
        self._over = True
        if forget:
            self._folded.clear()
            self._loose.clear()
        self._budget.stir()

    def reaches(self, step: int) -> bool:
        oldest = next(chain(self._folded, self._loose), None)
        return step >= (self._end if oldest is None else oldest.first)

    def since(self, step: int, parted: Collection[int], most: int) -> Iterator[tuple[int, int, pb.StreamRequest]]:
        """The messages with the inputs from `step` on, each with its first step and one past its last.

        No message holds steps on both sides of one of `parted`, nor more than `most` rows: where it did it comes in
        pieces.
        """
        for kept in chain(self._folded, self._loose):
            first, end = kept.first, kept.end
            if end <= step:
                continue
            request = kept.message
            begin = max(first, step)
            edges = {begin, *range(begin + most, end, most), *(at for at in parted if begin < at < end), end}
            for start, stop in pairwise(sorted(edges)):
                whole = stop - start == end - first
                yield start, stop, request if whole else rows(request, start - first, stop - first)

    def arrays(self) -> tuple[int, dict[str, wire.Array]]:
        run: list[dict[str, wire.Array]] = []
        first = self._end
        for kept in chain(reversed(self._loose), reversed(self._folded)):
            arrays = kept.arrays()
            if run and not _alike(run[-1], arrays):
                break
            run.append(arrays)
            first = kept.first
        names = run[0] if run else ()
        return first, {name: np.concatenate([arrays[name] for arrays in reversed(run)]) for name in names}

    def _append(self, block: deque[_Kept | PlainStep], kept: _Kept | PlainStep) -> None:
        block.append(kept)
        self._end = kept.end
        self._budget.bytes += kept.size
        self._budget.steps += kept.end - kept.first

    def _free(self, kept: _Kept | PlainStep) -> None:
        if not self._over:
            self._budget.free(kept.size, kept.end - kept.first)


def _alike(some: dict[str, wire.Array], others: dict[str, wire.Array]) -> bool:
    def rows_of(arrays: dict[str, wire.Array]) -> dict[str, tuple[object, ...]]:
        return {name: (array.dtype, array.shape[1:]) for name, array in arrays.items()}

    return rows_of(some) == rows_of(others)


def _joined(alone: Sequence[_Kept | PlainStep]) -> pb.StreamRequest:
    """Single steps with the same inputs as one message."""
    whole = pb.StreamRequest()
    steps, first = whole.steps, alone[0].message.steps
    steps.handle = first.handle
    steps.first_step = first.first_step
    for at, tensor in enumerate(first.inputs):
        data = b"".join([step.numbers(at) for step in alone])
        steps.inputs.add(name=tensor.name, type=tensor.type, shape=(len(alone), *tensor.shape), data=data)
    return whole


def rows(request: pb.StreamRequest, start: int, stop: int) -> pb.StreamRequest:
    part = pb.StreamRequest()
    steps = part.steps
    steps.handle = request.steps.handle
    steps.first_step = request.steps.first_step + start
    for tensor in request.steps.inputs:
        wire.encode_to(steps.inputs.add(), tensor.name, wire.decode(tensor)[start:stop])
    return part
