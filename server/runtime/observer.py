"""Where an observer of results can be hung in: whatever leaves for a client passes it, however it was computed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """Steps that were answered: `steps` steps of each sequence in `sequences`; one of the two numbers is 1.

    Attributes:
        sequences: their ids, N of them.
        first_steps: the number of the first step of each, [N].
        steps: T.
        outputs: by name, [N or T, ...row].
        trace: what the client selected of the inside, [traced, columns]; None if that is nothing.
    """

    sequences: tuple[str, ...]
    first_steps: np.ndarray
    steps: int
    outputs: Mapping[str, np.ndarray]
    trace: np.ndarray | None


class Observer(Protocol):
    """Sees the results of one model. Called in the event loop's thread: it is quick, and changes nothing."""

    def answered(self, results: Results) -> None:
        """These are about to leave."""
