"""An observer is called with the results of all steps, however they were computed. `--observer` names its class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """Steps that were answered: `steps` steps of each sequence in `sequences`; one of the two numbers is 1.

    Attributes:
        model: the name of their model.
        version: its version.
        sequences: their ids, N of them.
        first_steps: the number of the first step of each, [N].
        steps: T.
        outputs: by name, [N or T, ...row].
        trace: the part of the trace that the client selected, [traced, columns]; None if that is nothing.
    """

    model: str
    version: int
    sequences: tuple[str, ...]
    first_steps: np.ndarray
    steps: int
    outputs: Mapping[str, np.ndarray]
    trace: np.ndarray | None


class Observer(Protocol):
    """Called in the event loop's thread, so it has to be quick; it may not change the arrays."""

    def answered(self, results: Results) -> None:
        """These are about to be sent."""
