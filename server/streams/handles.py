"""The handles of one stream: which sequence each stands for, where its state is, and which step it takes next.

Arrays by handle, so that a fleet of thousands is looked up at once. Knows no messages and no store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from server.durability.sequence import Life, ServedSequence
from server.errors import BadInput, OverLimit, Reason, UnknownHandle
from server.streams.events import Form
from server.streams.replies import Group
from server.streams.trace import Manner, TracePlan, interned

if TYPE_CHECKING:
    from server.runtime.served_model import ServedModel

FREE, CLOSING, OPENING, BUSY = -1, -2, -3, -4  # in place of the group of a handle under which no steps are taken
PIECE = 64  # sequences that are opened or closed without a break: some tenths of a millisecond
_MOST_GROUPS = 1_024  # ways in which the sequences of one stream may be answered
_WHY = {
    FREE: "no sequence is open under handle {} on this stream",
    CLOSING: "the sequence under handle {} is being closed",
    OPENING: "the sequence under handle {} is still being resumed",
    BUSY: "the sequence under handle {} is being rewound or moved; wait for the answer",
}
_NO_SLOTS, _NO_STEPS, _NO_GROUPS = np.zeros(0, np.intp), np.zeros(0, np.int64), np.zeros(0, np.int32)
ASLEEP = -1  # the slot of a sequence that is parked


class Handles:
    """The handles of one stream, from 0 up to a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # by handle
        self.slots: np.ndarray = _NO_SLOTS
        self.next: np.ndarray = _NO_STEPS  # the step that is expected next
        self.told: np.ndarray = _NO_STEPS  # the newest checkpoint that the client was told of without an answer
        self._groups: np.ndarray = _NO_GROUPS  # an index into `_known`, or one of the above
        self.sequences: dict[int, ServedSequence] = {}
        self.branched: set[int] | tuple[()] = ()  # those whose sequences were branched when placed, or still are
        # groups
        self._known: dict[int, Group] = {}
        self._alike: dict[tuple[ServedModel, Manner], int] = {}
        self._indices = 0  # that were given

    def new(self, handle: int, count: int) -> np.ndarray:
        """The handles from `handle` on. Raises OverLimit, UnknownHandle: they are too high, or in use."""
        self.check(handle, count)
        self._grow(handle + count)
        handles = np.arange(handle, handle + count)
        if (self._groups[self._limit :] != FREE).any():
            self._check_open(handle, count)
        taken = handles[self._groups[handles] != FREE]
        if len(taken):
            raise UnknownHandle(f"handle {taken[0]} is in use on this stream", Reason.HANDLE_IN_USE)
        return handles

    def check(self, handle: int, count: int) -> None:
        """Whether there are so many handles from this one on. Raises OverLimit.

        There are twice as many as may be open: a client may use new ones before it knows that others are free.
        """
        if count <= 0 or handle + count > 2 * self._limit:
            raise self._too_many(handle, count)
        if handle + count > self._limit:
            self._check_open(handle, count)

    def _check_open(self, handle: int, count: int) -> None:
        """Whether so many more may be open. Raises OverLimit."""
        if len(self._groups) - np.isin(self._groups, (FREE, CLOSING)).sum() + count > self._limit:
            raise self._too_many(handle, count)

    def _too_many(self, handle: int, count: int) -> OverLimit:
        return OverLimit(
            f"{count} sequence{'s' * (count != 1)} under handle {handle} and above would go beyond what one client may "
            f"have open, {self._limit}, under the handles 0 to {self._limit - 1}",
            Reason.TOO_MANY_SEQUENCES,
        )

    def group(self, handle: int) -> Group:
        """The group of the sequence under a handle. Raises UnknownHandle: there is none that takes steps."""
        index = self._groups.item(handle) if handle < len(self._groups) else FREE
        if index < 0:
            raise UnknownHandle(_WHY[index].format(handle))
        return self._known[index]

    def taking(self, handle: int) -> Group | None:
        """The same; None: there is none."""
        index = self._groups.item(handle) if handle < len(self._groups) else FREE
        return self._known[index] if index >= 0 else None

    def is_opening(self, handle: int) -> bool:
        return bool(self._groups.item(handle) == OPENING)

    def is_open(self, handle: int) -> bool:
        return handle < len(self._groups) and self._groups.item(handle) >= 0

    @property
    def at_rest(self) -> bool:
        """Whether no sequence is being resumed, rewound, moved or closed."""
        return not (self._groups < FREE).any()

    def run(self, handle: int, count: int) -> np.ndarray:
        """The handles of `count` open sequences. Raises UnknownHandle: one of them is not."""
        last = handle + count - 1
        self.group(last)  # before an array is made of them
        handles = np.arange(handle, last + 1)
        closed = self._groups[handles] < 0
        if closed.any():
            self.group(handles.item(np.argmax(closed)))
        return handles

    def those_open(self, handle: int, count: int) -> np.ndarray:
        """Those of `count` handles under which a sequence takes steps."""
        handles = np.arange(handle, min(handle + count, len(self._groups)))
        here: np.ndarray = handles[self._groups[handles] >= 0]
        return here

    def fleet(self, handles: np.ndarray) -> Group:
        """The group of the sequences under these handles. Raises UnknownHandle, BadInput."""
        group = self.group(int(handles.max()))
        indices = self._groups[handles]
        if (indices < 0).any():
            self.group(int(handles[np.argmax(indices < 0)]))
        if (indices != indices[0]).any():
            raise BadInput("a fleet takes sequences that were opened together, in one Open", Reason.MALFORMED)
        rows = np.empty(len(self._groups), np.intp)
        rows[handles] = np.arange(len(handles))
        if (rows[handles] != np.arange(len(handles))).any():
            raise BadInput("a fleet names a handle twice", Reason.MALFORMED)
        return group

    def alike(self, handles: np.ndarray) -> Group | None:
        """The group of all sequences under these handles, each of which takes steps; None: they are not all of one."""
        if handles.max() >= len(self._groups) or len(set(handles.tolist())) < len(handles):
            return None
        indices = self._groups[handles]
        index = indices.item(0)
        return self._known[index] if index >= 0 and (indices == index).all() else None

    def place(self, handles: np.ndarray, sequences: Sequence[ServedSequence]) -> None:
        """Puts sequences under these handles. They take steps once they are settled."""
        for handle, sequence in zip(handles.tolist(), sequences, strict=True):
            sequence.handle = handle
            self.sequences[handle] = sequence
            if sequence.life is Life.BRANCHED:
                self.branched = self.branched or set()
                self.branched.add(handle)

    def settle(self, handles: np.ndarray, slots: np.ndarray, steps: np.ndarray | int, group: Group) -> None:
        """They take steps from now on, each from its step in `steps`."""
        self.slots[handles] = slots
        self.next[handles] = steps
        self.told[handles] = group.model.watermarks.told[slots]
        self._groups[handles] = self._index(group)
        group.members += len(handles)

    def mark(self, handles: np.ndarray, as_: int) -> None:
        """They take no steps: `as_` says why."""
        self._groups[handles] = as_
        if as_ == FREE and self.branched:
            self.branched.difference_update(handles.tolist())

    def unmark(self, handle: int, group: Group) -> None:
        self._groups[handle] = self._index(group)

    def split(self, handles: np.ndarray) -> list[tuple[Group, np.ndarray]]:
        """The handles of each group."""
        return [(self._known[index], part) for index, part in _apart(handles, self._groups[handles])]

    def announced(self) -> list[tuple[ServedModel, np.ndarray]]:
        """Of each model the open ones whose checkpoints are announced without an answer."""
        if not any(group.manner.announce for group in self._known.values()):
            return []
        handles = self.open()
        indices, places = np.unique(self._groups[handles], return_inverse=True)
        groups = [self._known[index] for index in indices.tolist()]
        known = list({group.model: None for group in groups if group.manner.announce})
        models = {model: number for number, model in enumerate(known)}
        numbers = np.array([models[g.model] if g.manner.announce else -1 for g in groups], np.intp)[places]
        wanted = numbers >= 0
        return [(known[number], part) for number, part in _apart(handles[wanted], numbers[wanted])]

    def unready(self, handles: np.ndarray) -> np.ndarray:
        """Those of these that have to wait for the store before they take a step: asleep, or branched."""
        unready = self.slots[handles] < 0
        if self.branched:
            branched, here = self.branched, self.sequences
            # one that is leaving has no sequence any more
            unready |= [h in branched and h in here and here[h].life is Life.BRANCHED for h in handles.tolist()]
            self.branched.difference_update(handles[~unready].tolist())
        those: np.ndarray = handles[unready]
        return those

    def open(self) -> np.ndarray:
        return np.flatnonzero(self._groups >= 0)

    def ids(self, handles: Iterable[int]) -> list[str]:
        """The ids of the sequences that are under these handles."""
        return [self.sequences[handle].id for handle in handles if handle in self.sequences]

    def expected(self, handles: np.ndarray) -> np.ndarray:
        """The step that each sequence expects next; empty if one of them is not open."""
        if not len(handles) or handles.max() >= len(self._groups) or (self._groups[handles] < 0).any():
            return _NO_STEPS
        steps: np.ndarray = self.next[handles]
        return steps

    def check_group(self, model: ServedModel, manner: Manner) -> None:
        """Whether there may be a group of this model and manner. Raises OverLimit."""
        if len(self._known) >= _MOST_GROUPS and (model, manner) not in self._alike:
            raise OverLimit(
                f"the sequences of this stream differ in {_MOST_GROUPS} ways in model, version or trace selection, "
                "which is the limit"
            )

    def join(self, model: ServedModel, manner: Manner, trace: TracePlan) -> Group:
        index = self._alike.get((model, manner))
        if index is not None:
            return self._known[index]
        index = self._alike[model, manner] = self._indices
        self._indices += 1
        manner = interned(manner)
        form = Form(tuple(port.name for port in model.graph.outputs), manner.values, manner.bundle)
        group = self._known[index] = Group(model, trace, form, manner, row_bytes(model, trace, manner.values))
        return group

    def regroup(self, handle: int, manner: Manner, trace: TracePlan) -> None:
        """From its next step on the sequence under a handle is answered in another manner."""
        before = self.group(handle)
        after = self.join(before.model, manner, trace)
        self._groups[handle] = self._index(after)
        after.members += 1
        self.leave(before, 1)

    def leave(self, group: Group, count: int) -> None:
        """So many members of a group have left; a group without members is removed."""
        group.members -= count
        if not group.members:
            del self._known[self._alike.pop((group.model, group.manner))]

    def _index(self, group: Group) -> int:
        return self._alike[group.model, group.manner]

    def _grow(self, size: int) -> None:
        if size > len(self._groups):
            more = max(size, 2 * len(self._groups)) - len(self._groups)
            self.slots, self.next, self.told, self._groups = (
                np.concatenate([x, np.full(more, fill, x.dtype)])
                for x, fill in ((self.slots, 0), (self.next, 0), (self.told, 0), (self._groups, FREE))
            )


def pieces(handles: np.ndarray) -> Iterator[np.ndarray]:
    """Runs of handles, each of which is worked off without a break."""
    return (handles[at : at + PIECE] for at in range(0, len(handles), PIECE))


def _apart(handles: np.ndarray, by: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """The handles of each of the numbers `by` [N]."""
    order = np.argsort(by, kind="stable")
    numbers, starts = np.unique(by[order], return_index=True)
    return list(zip(numbers.tolist(), np.split(handles[order], starts[1:]), strict=False))


def row_bytes(model: ServedModel, trace: TracePlan, values: bool = False) -> int:
    """About how many bytes the answer to one step takes. Numbers that are written as such are doubles."""
    outputs = sum(int(np.prod(port.row)) * (8 if values else port.dtype.itemsize) for port in model.graph.outputs)
    return outputs + trace.width * (8 if values else model.graph.dtype.itemsize) // trace.every + 8
