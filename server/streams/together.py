"""Takes single steps of several sequences that came at the same time as one block: what each needs is looked up once.

Nothing else is different from taking one after the other. So where something is special about one of them, they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from server.errors import BadInput
from server.runtime.scheduler import Block
from server.streams.replies import Together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.meter import Meter
    from server.runtime.input_check import Named
    from server.streams.handles import Handles
    from server.streams.window import Window

_MOST = 2**20  # bytes of their answers


def together(
    open_: Handles,
    window: Window,
    meter: Meter,
    handles: Sequence[int],
    steps: Sequence[int],
    inputs: Named,
    answered: Sequence[int],
) -> bool:
    """Takes the step `steps` [N] of each of these sequences, with `inputs` [N, ...row], or [N, 1, ...row], each.

    `answered` [N]: how many answers the client has. False, and nothing is taken: they are not open in the same manner,
    one of them is to be refused, or has to wait for something, or there is no room for all answers.
    """
    rows = np.array(handles)
    group = open_.alike(rows)
    if group is None or group.trace.every > 1:
        return False
    slots, expected, model = open_.slots[rows], open_.next[rows], group.model
    reply = Together(window, group, rows, expected)
    if reply.size > _MOST or not window.has_room(reply.size) or expected.tolist() != steps or slots.min() < 0:
        return False
    try:
        checked = model.check.singles(inputs, len(rows))
    except BadInput:
        return False
    if not model.batcher.is_free(slots):
        return False
    model.watermarks.acknowledge(slots, answered, expected)
    meter.charge(len(rows))
    open_.next[rows] += 1
    window.enqueue(group, (), Block(slots, 1, checked, group.trace.wanted, reply, singles=True))
    return True
