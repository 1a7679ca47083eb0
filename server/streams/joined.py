"""Takes single steps that came at the same time, each on a stream of its own, as one block.

For each stream nothing is different from taking its step by itself. So whoever has something special about it is not
joined (see `member`), and if a step of those that are joined is to be refused, all are taken one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from server.errors import BadInput
from server.meter import SEVERAL, Meter
from server.runtime.scheduler import Block, Part
from server.streams.events import SeveralAnswered
from server.streams.replies import MESSAGE_BYTES, Group

if TYPE_CHECKING:
    from server.runtime.input_check import Named
    from server.streams.handles import Handles
    from server.streams.window import Window

MOST = 2**14  # bytes of the answer to each: all gates of two layers of 256 units take 12 KiB
# takes what makes the answers to some of them, and for how many bytes each counts
Write = Callable[[slice, Callable[[], SeveralAnswered], int], None]
Checked = tuple[np.ndarray, Mapping[str, np.ndarray]]  # the slots [N] of some sequences, and the inputs of their steps


class Member(NamedTuple):
    """One of the streams, and its sequence that takes a step."""

    handles: Handles
    window: Window
    account: Meter
    group: Group
    handle: int
    slot: int


def member(handles: Handles, window: Window, account: Meter, handle: int, step: int) -> Member | None:
    """The sequence that takes a step, if it is its next one, nothing is under way, and nothing is special about it."""
    if not window.idle or handles.branched or (group := handles.taking(handle)) is None:
        return None
    if group.trace.every > 1 or group.row_bytes > MOST or group.model.observer is not None:
        return None
    slot = handles.slots.item(handle)
    if slot < 0 or handles.next.item(handle) != step:
        return None
    return Member(handles, window, account, group, handle, slot)


def checked(members: Sequence[Member], given: Named) -> Checked | None:
    """The slots, and the inputs, [1, N, ...row] each, of a step of each member's sequence, all of one model and manner.

    `given` are [N, ...row] each, or [N, 1, ...row]. None: one is to be refused, or has to wait for others.
    """
    model = members[0].group.model
    try:
        inputs = model.check.singles(given, len(members))
    except BadInput:
        return None
    slots = np.array([member.slot for member in members])
    return (slots, inputs) if model.batcher.has_run(slots) else None


def join(members: Sequence[Member], steps: np.ndarray, found: Checked, answered: Sequence[int], write: Write) -> None:
    """Takes the step `steps` [N] of each member's sequence, which was `checked`.

    `answered` [N]: how many answers the client has. `write` is given the answers to some of them.
    """
    group, (slots, inputs) = members[0].group, found
    model = group.model
    model.watermarks.acknowledge(slots, answered, steps)
    accounts = {member.account for member in members}
    for member in members:
        member.account.charge(1)
    joined = Joined(members, steps, write)
    account = accounts.pop() if len(accounts) == 1 else SEVERAL
    block = Block(slots, 1, inputs, group.trace.wanted, joined, account, singles=True, apart=True)
    for member, step in zip(members, steps.tolist(), strict=True):
        member.handles.next[member.handle] = step + 1
        member.window.join(member.group, block, joined.each)
    model.batcher.submit(block)


class Joined:
    """Gives the streams their answers, those of each batch as they come. It is the block's sink."""

    __slots__ = ("_members", "_steps", "_write", "each", "size")

    def __init__(self, members: Sequence[Member], steps: np.ndarray, write: Write) -> None:
        self._members = members
        self._steps = steps
        self._write = write
        self.each = members[0].group.row_bytes + MESSAGE_BYTES
        self.size = self.each * len(members)

    def answered(self, part: Part) -> None:
        """See Sink."""
        take = part.take
        rows = slice(take.first, take.first + take.rows)
        members, steps = self._members[rows], self._steps[rows]
        if part.error is not None:
            for member, step in zip(members, steps.tolist(), strict=True):
                member.window.failed(take.block, member.handle, step, part.error, self.each)
                member.window.done(take.block)
            return
        for member in members:
            member.window.done(take.block)
        self._write(rows, partial(self._event, part, members, steps), self.each)

    def _event(self, part: Part, members: Sequence[Member], steps: np.ndarray) -> SeveralAnswered:
        group, take = members[0].group, part.take
        outputs, plan = part.outputs(group.form.names), group.trace
        trace = plan.cut(part.trace(), steps) if plan.wanted else None
        handles = np.array([member.handle for member in members])
        safe = group.model.watermarks.told[take.block.slots[take.first : take.first + take.rows]]
        return SeveralAnswered(handles, steps, group.form, outputs, trace, self.each * take.rows, safe)
