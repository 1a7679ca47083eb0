"""An observer of results: it is called for all steps that are answered, however they were computed."""

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
        trace: the part of the trace that the client selected, [traced, columns]; None if that is nothing.
    """

    sequences: tuple[str, ...]
    first_steps: np.ndarray
    steps: int
    outputs: Mapping[str, np.ndarray]
    trace: np.ndarray | None


class Observer(Protocol):
    """Called with the results of one model, in the event loop's thread: it has to be quick, and changes nothing."""

    def answered(self, results: Results) -> None:
        """These are about to be sent."""
