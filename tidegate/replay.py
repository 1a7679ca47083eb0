"""The inputs of one sequence that a server may want again: those since its last checkpoint but one. Pure.

They are kept as the messages that carried them, which nobody changes: a caller may write into an array of its own as
soon as it is sent.
"""

from collections import deque
from collections.abc import Iterator
from itertools import pairwise

from tidegate import wire
from tidegate.budget import Budget
from tidegate.v1 import sequence_pb2 as pb

MESSAGE_BYTES = 1792  # what Python and protobuf take for a message besides its numbers, about

_Kept = tuple[int, int, pb.StreamRequest, int]  # first step, one past the last, the message, its bytes


class Replay:
    """The kept inputs of one sequence, counted in a budget that it shares with others.

    `first` is the step at which the sequence began; `claimed` that it was taken up there from a checkpoint, so that
    earlier inputs are unknown here.
    """

    def __init__(self, first: int, budget: Budget, *, claimed: bool = False) -> None:
        self.told = claimed  # whether any checkpoint is known
        self._budget = budget
        self._last = self._before = first  # the last checkpoint that was told, and the one before
        self._end = first
        self._kept: deque[_Kept] = deque()
        self._over = False

    def room(self) -> bool:
        """Whether more can be kept. A sequence whose every step is in a checkpoint always has room for more.

        Otherwise sequences that rest could fill the budget for ever: the inputs since their last checkpoint but one
        stay until they go on.
        """
        return not self._budget.full or self._end <= self._last

    def add(self, first: int, end: int, request: pb.StreamRequest, size: int) -> None:
        """Keeps a message with the steps from `first` to before `end`, whose inputs take `size` bytes."""
        size += MESSAGE_BYTES
        self._kept.append((first, end, request, size))
        self._end = end
        self._budget.bytes += size
        self._budget.steps += end - first

    def checkpointed(self, step: int) -> None:
        """The server told that the first `step` steps are safe."""
        if step <= self._last:
            return
        self.told = True
        self._before, self._last = self._last, step
        kept = self._kept
        while kept and kept[0][1] <= self._before:
            self._free(kept.popleft())
        if self._end <= step:
            self._budget.stir()

    def cut(self, step: int) -> None:
        """Steps from `step` on were not taken."""
        while self._kept and self._kept[-1][1] > step:
            kept = self._kept.pop()
            self._free(kept)
            if kept[0] < step:
                self.add(kept[0], step, rows(kept[2], 0, step - kept[0]), kept[3] - MESSAGE_BYTES)
        self._end = min(self._end, step)

    def rewound(self, step: int) -> None:
        """The sequence went back to a checkpoint at `step`."""
        self.cut(step)
        self.told = True
        self._last = self._end = step
        self._before = min(self._before, step)

    def clear(self, *, forget: bool) -> None:
        """Nothing will be sent again from here. Unless it is to `forget` them, the inputs can still be looked at."""
        for kept in self._kept:
            self._free(kept)
        self._over = True
        if forget:
            self._kept.clear()
        self._budget.stir()

    def reaches(self, step: int) -> bool:
        """Whether every input from `step` on is here."""
        return step >= (self._kept[0][0] if self._kept else self._end)

    def since(self, step: int, parted: int, most: int) -> Iterator[tuple[int, int, pb.StreamRequest]]:
        """The messages with the inputs from `step` on, each with its first step and one past its last.

        No message holds steps on both sides of `parted`, nor more than `most` rows: where it did it comes in pieces.
        """
        for first, end, request, _ in self._kept:
            if end <= step:
                continue
            begin = max(first, step)
            edges = [begin, *range(begin + most, end, most), end]
            if begin < parted < end:
                edges = sorted({*edges, parted})
            for start, stop in pairwise(edges):
                whole = stop - start == end - first
                yield start, stop, request if whole else rows(request, start - first, stop - first)

    def _free(self, kept: _Kept) -> None:
        if not self._over:
            self._budget.free(kept[3], kept[1] - kept[0])


def rows(request: pb.StreamRequest, start: int, stop: int) -> pb.StreamRequest:
    """A part of a message of many steps: its rows from `start` to before `stop`."""
    part = pb.StreamRequest()
    steps = part.steps
    steps.handle = request.steps.handle
    steps.first_step = request.steps.first_step + start
    for tensor in request.steps.inputs:
        wire.encode_to(steps.inputs.add(), tensor.name, wire.decode(tensor)[start:stop])
    return part
