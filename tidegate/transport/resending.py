"""Resuming a sequence that was opened before: what it has to be sent once more. Sends nothing."""

import logging
from collections.abc import Callable, Mapping

from tidegate.errors import refused
from tidegate.facts import SequenceFacts
from tidegate.inputs import Inputs

log = logging.getLogger("tidegate")


def again(sequence: SequenceFacts, answered: int, inputs: Callable[[int], Inputs] | None) -> Inputs | None:
    """What a sequence that was resumed has to be sent once more before it stands at `answered`; None: nothing.

    `inputs` gives the rows [T, ...row] from a step to `answered`. Without it, the log says what is left to the caller.
    Raises BadInput if it gives another number of them.
    """
    first = sequence.next_step
    if first >= answered:
        return None
    if inputs is None:
        log.warning("sequence %s goes on at step %d: send its inputs from there on again", sequence.id, first)
        return None
    rows = inputs(first)
    counts = [len(array) for array in (rows.values() if isinstance(rows, Mapping) else [rows])]
    if any(count != answered - first for count in counts):
        wanted = f"the inputs of steps {first} to {answered - 1} are wanted again"
        raise refused("WRONG_SHAPE", f"{wanted}: {answered - first} rows, and {counts[0]} were given")
    return rows
