"""How far numbers are from those that they should be. Pure numpy; does not know how far they may be."""

from dataclasses import dataclass

import numpy as np

from stepgraph.errors import ModelRefused

Scales = dict[str, np.ndarray]  # the largest values so far, [...row], of each output and state


@dataclass(frozen=True)
class Difference:
    """How far an output or a state is from the original's at a step."""

    what: str
    step: int
    error: float


def difference(
    what: str, step: int, wanted: np.ndarray, got: np.ndarray, scales: Scales, unit: float = 0.0
) -> Difference:
    """Between an output or a state as the original has it and as it was got, [B, ...row] each.

    Raises:
        ModelRefused: they are no numbers, so that nothing can be said of how far they are apart.
    """
    wanted = wanted.astype(np.float64)
    if not np.isfinite(wanted).all() and (what.startswith("state") or np.isnan(wanted).any()):
        raise ModelRefused(
            f"the original file itself answers {_first_strange(wanted)} in {what} at step {step} of a random "
            "sequence (normal numbers, positive ones where those did not do, tokens within their tables): it "
            "overflows, or takes numbers of another kind only. Nothing can be proved of it; scale its inputs "
            "within the graph, so that ordinary numbers can go in"
        )
    if np.isnan(got).any() and not np.isnan(wanted).any():
        raise ModelRefused(
            f"{what} is NaN at step {step} of a random sequence, where the original file's operator makes a number "
            "of a NaN that it is given: the file divides by its input, or takes its root or logarithm, where that "
            "is not defined. Let it bound its input first"
        )
    return Difference(what, step, distance(what, wanted, got, scales, unit))


def distance(what: str, wanted: np.ndarray, got: np.ndarray, scales: Scales, unit: float = 0.0) -> float:
    """The largest difference, counted as `Proof` says. `scales[what]` is updated.

    Rounded numbers, which are whole multiples of `unit`, are the same if they are neighbours: what was rounded may lie
    on the edge between them.
    """
    if wanted.size == 0:
        return 0.0
    finite = np.isfinite(wanted)
    if not np.array_equal(wanted[~finite], got[~finite]):
        return float("inf")
    values = np.where(finite, wanted, 0)
    scales[what] = np.maximum(scales.get(what, np.ones(1)), np.abs(values).max(0))
    apart = np.abs(values - np.where(finite, got, 0))
    return float((np.where(apart <= 1.001 * unit, 0, apart) / scales[what]).max())


def _first_strange(array: np.ndarray) -> str:
    return "NaN" if np.isnan(array).any() else "Inf"
