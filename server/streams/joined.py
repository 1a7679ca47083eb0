"""Takes single steps that came at the same time, each on a stream of its own, as one block.

For each stream nothing is different from taking its step by itself. So whoever has something special about it is not
joined (see `member`), and if a step of those that are joined is to be refused, all are taken one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
Write = Callable[[slice, SeveralAnswered], None]


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


def join(members: Sequence[Member], steps: Sequence[int], inputs: Named, answered: Sequence[int], write: Write) -> bool:
    """Takes the step `steps` [N] of each member's sequence, with `inputs` [N, ...row], or [N, 1, ...row], each.

    All are of one model and manner. `answered` [N]: how many answers the client has. `write` is given the answers to
    some of them. False, and nothing is taken: one is to be refused, or has to wait for what others have left.
    """
    group, slots = members[0].group, np.array([member.slot for member in members])
    model = group.model
    try:
        checked = model.check.singles(inputs, len(members))
    except BadInput:
        return False
    if not model.batcher.has_run(slots):
        return False
    expected = np.array(steps)
    model.watermarks.acknowledge(slots, answered, expected)
    accounts = {member.account for member in members}
    for member in members:
        member.account.charge(1)
    joined = Joined(members, expected, write)
    account = accounts.pop() if len(accounts) == 1 else SEVERAL
    block = Block(slots, 1, checked, group.trace.wanted, joined, account, singles=True, apart=True)
    for member, step in zip(members, steps, strict=True):
        member.handles.next[member.handle] = step + 1
        member.window.join(member.group, block, joined.each)
    model.batcher.submit(block)
    return True


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
        take, group = part.take, self._members[0].group
        rows = slice(take.first, take.first + take.rows)
        members, steps = self._members[rows], self._steps[rows]
        if part.error is not None:
            for member, step in zip(members, steps.tolist(), strict=True):
                member.window.failed(take.block, member.handle, step, part.error, self.each)
                member.window.done(take.block)
            return
        outputs, plan = part.outputs(group.form.names), group.trace
        trace = plan.cut(part.trace(), steps) if plan.wanted else None
        handles = np.array([member.handle for member in members])
        safe = group.model.watermarks.told[take.block.slots[rows]]
        for member in members:
            member.window.done(take.block)
        self._write(rows, SeveralAnswered(handles, steps, group.form, outputs, trace, self.each * take.rows, safe))
