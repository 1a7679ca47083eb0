"""Differences between expected and computed numbers. Pure numpy; knows no tolerance."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stepgraph.errors import ModelRefused


@dataclass(frozen=True)
class Difference:
    """The difference of an output or a state from the original's at a step."""

    what: str
    step: int
    error: float


@dataclass(frozen=True, eq=False)
class Compared:
    """An output or a state at some steps as the original has it and as the step graph has it, [T, B, ...row] each."""

    what: str
    steps: Sequence[int]
    wanted: np.ndarray
    got: np.ndarray
    unit: float = 0.0
    is_state: bool = False  # then infinity is refused even if both have it

    @cached_property
    def errors(self) -> np.ndarray:
        """The largest difference at each step, [T], counted as `Proof` says."""
        strange = ~np.isfinite(self.wanted).reshape(len(self.wanted), -1).all(1) if self.is_state else False
        return np.where(strange, np.inf, errors(self.wanted, self.got, self.unit))

    def at(self, i: int) -> Difference:
        """The difference at a step."""
        wanted, step = self.wanted[i], self.steps[i]
        if not np.isfinite(wanted).all() and (self.is_state or np.isnan(wanted).any()):
            raise ModelRefused(
                f"the original file itself answers {'NaN' if np.isnan(wanted).any() else 'Inf'} in {self.what} at step "
                f"{step} of a random sequence (normal numbers, positive ones where those did not do, tokens within "
                "their tables): it overflows, or takes numbers of another kind only. Nothing can be proved of it; "
                "scale its inputs within the graph, so that ordinary numbers can go in"
            )
        if np.isnan(self.got[i]).any() and not np.isnan(wanted).any():
            raise ModelRefused(
                f"{self.what} is NaN at step {step} of a random sequence, where the original file's operator makes a "
                "number of a NaN that it is given: the file divides by its input, or takes its root or logarithm, "
                "where that is not defined. Let it bound its input first"
            )
        return Difference(self.what, step, float(self.errors[i]))


def first_beyond(compared: Iterable[Compared], bound: float | Sequence[np.ndarray]) -> Difference | None:
    """The first difference that is larger than `bound`, one for all or one for each step of each. Raises as `at`."""
    compared = list(compared)
    bounds = [bound] * len(compared) if isinstance(bound, float) else bound
    beyond = [
        (each.steps[i], k, i)
        for k, (each, most) in enumerate(zip(compared, bounds, strict=True))
        for i in np.flatnonzero(~(each.errors <= most))[:1]
    ]
    if not beyond:
        return None
    _, k, i = min(beyond)
    return compared[k].at(i)


def errors(wanted: np.ndarray, got: np.ndarray, unit: float = 0.0, *, since_start: bool = True) -> np.ndarray:
    """The largest difference at each step, [T], of numbers [T, B, ...row].

    They count in units of the largest value that an element has had `since_start` in any row, or at that step, at
    least 1. Numbers that are whole multiples of `unit` are the same if they are neighbours: what was rounded may lie
    on the edge between them.
    """
    if wanted.size == 0:
        return np.zeros(len(wanted))
    finite = np.isfinite(wanted)
    values = np.where(finite, wanted, 0).astype(np.float64)
    scales = np.maximum(np.abs(values).max(1), 1)
    scales = np.maximum.accumulate(scales) if since_start else scales
    apart = np.abs(values - np.where(finite, got, 0))
    apart = np.where(apart <= 1.001 * unit, 0, apart) / scales[:, np.newaxis]
    apart[~finite & (wanted != got)] = np.inf
    largest: np.ndarray = apart.reshape(len(apart), -1).max(1)
    return largest
