"""What gates say about a memory: how long it lasts, how sharply gates decide, what is kept and what is written.

Legend: T time, H units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.memory.equations import Layer, Passage

# Karpathy, Johnson & Fei-Fei (2015): a gate is right-saturated above 0.9 and left-saturated below 0.1.
OPEN, CLOSED = 0.9, 0.1
KEEPING = {"lstm": "forget", "gru": "update"}
# Half-lives above this many steps are drawn as this: the gate is open to the last digit.
LONGEST = 1e6


def half_lives(kept_TH: NDArray[np.float64]) -> NDArray[np.float64]:
    """Steps until half of a unit's memory is left, ln 2 / -mean(ln f), [H].

    It reads the forget gate (GRU: the update gate) as if nothing were written in between. -1 / ln f, which is often
    given, is the time to 1/e.
    """
    mean_H = np.log(np.maximum(kept_TH, 1e-300)).mean(axis=0)
    found_H: NDArray[np.float64] = np.minimum(np.log(2) / np.maximum(-mean_H, 1e-300), LONGEST)
    return found_H


@dataclass(frozen=True)
class Saturation:
    """For each unit the share of the steps at which its gate was open (right) and was closed (left), [H]."""

    right: NDArray[np.float64]
    left: NDArray[np.float64]


def saturation(gate_TH: NDArray[np.float64]) -> Saturation:
    """A dot of Karpathy's triangle for each unit."""
    return Saturation((gate_TH > OPEN).mean(axis=0), (gate_TH < CLOSED).mean(axis=0))


@dataclass(frozen=True)
class Flow:
    """The two addends of a state, [T, H] each: what was kept of the one before, and what was written."""

    kept: NDArray[np.float64]
    written: NDArray[np.float64]


def flow(layer: Layer, passage: Passage) -> Flow | None:
    """LSTM: f c' and i g. GRU: z h' and (1 - z) n. An RNN has no such sum."""
    gates = passage.gates
    if layer.kind == "lstm":
        return Flow(gates["forget"] * passage.c[:-1], gates["input"] * gates["candidate"])
    if layer.kind == "gru":
        return Flow(gates["update"] * passage.h[:-1], (1 - gates["update"]) * gates["candidate"])
    return None
