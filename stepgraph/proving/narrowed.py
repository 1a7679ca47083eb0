"""How far a step graph with narrower weights is from the file, where its owner asked for them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from stepgraph.errors import ModelRefused
from stepgraph.file.precision import Precision
from stepgraph.file.sidecar import FILE
from stepgraph.proving import hints, long_run
from stepgraph.proving.long_run import Asked
from stepgraph.proving.reference import Original, Reference, begin, size
from stepgraph.rewriting.ports import Facts
from stepgraph.running.engine import Engine


@dataclass(frozen=True)
class Narrowed:
    """How far the answers of so many steps were from those that onnxruntime gives with the file as it is.

    `error` is the largest difference of a number from the file's, of any output; `share` the largest in parts of the
    range of its output: from the smallest to the largest number that the file answers there to the same sequence.
    """

    weights: str
    error: float
    share: float
    steps: int

    @property
    def said(self) -> str:
        return (
            f"weights in {self.weights}, as {FILE} says: answers differ from the file's by at most {self.error:.2g} "
            f"({100 * self.share:.2g} % of their range) over {self.steps} steps"
        )


def measured(original: Original, facts: Facts, engine: Engine, asked: Precision) -> Narrowed:
    """Compares the engine, whose weights are narrow, with the file over one long run. Raises ModelRefused: too far."""
    reference = Reference(original, facts, engine.graph)
    found = replace(hints.hints(original.graph), rings=sum(ring.steps for ring in facts.rings))
    data = long_run.rows(reference, facts, engine, found)
    answers = engine.run(data, begin(engine.graph, size(data)[1], {}), trace=False).outputs
    wanted = long_run.wanted(reference, facts, data, Asked())
    apart = [pair for port, steps, values in wanted for pair in _apart(answers[port.name][steps], values)]
    error, share = (max(each) for each in zip(*apart, strict=True))
    narrowed = Narrowed(asked.name, error, share, size(data)[0])
    if not share <= asked.within:
        raise ModelRefused(
            f"{narrowed.said}, and at most {100 * asked.within:.2g} % are accepted. Keep the weights in a wider type, "
            f"or say in {FILE} what may be accepted: within, under [weights]"
        )
    return narrowed


def _apart(got_TB: np.ndarray, wanted_TB: np.ndarray) -> Iterator[tuple[float, float]]:
    """Of each sequence the largest difference, and that in parts of the range. NaN and Inf of the file are left out."""
    for got, wanted in zip(np.moveaxis(got_TB, 1, 0), np.moveaxis(wanted_TB, 1, 0), strict=True):
        known = wanted[np.isfinite(wanted)].astype(np.float64)
        error = float(np.abs(got[np.isfinite(wanted)] - known).max(initial=0))
        width = float(np.ptp(known)) if known.size else 0.0
        yield error, error / width if width else float(error > 0)
