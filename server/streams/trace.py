"""Which columns of a trace a client sees, and at which steps. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from server.errors import BadInput, Reason
from stepgraph.rewriting.columns import Columns

if TYPE_CHECKING:
    from stepgraph.rewriting.stepgraph import StepGraph

HIDDEN, CELL, GATES = "hidden", "cell", "gates"
EVERY: frozenset[Any] = frozenset()  # parts or layers


@dataclass(frozen=True, slots=True)
class Selection:
    """The trace that a client asked for. Empty `parts` or `layers` mean all of them; `every` is at least 1."""

    none: bool = False
    parts: frozenset[str] = EVERY
    layers: frozenset[int] = EVERY
    every: int = 1


@dataclass(frozen=True, slots=True)
class Manner:
    """How a client wants to be answered."""

    selection: Selection = Selection()
    values: bool = False  # numbers as such instead of bytes
    bundle: bool = False  # several answers may share a message
    announce: bool = False  # of checkpoints also while no answer is under way


@lru_cache(256)
def interned(manner: Manner) -> Manner:
    """The same object for equal manners, nearly always."""
    return manner


@dataclass(frozen=True, eq=False)
class TracePlan:
    """How to cut a selection out of the whole trace. `columns` are laid out as the client gets them."""

    columns: tuple[Columns, ...]
    every: int
    _indices: np.ndarray | slice
    wanted: bool  # whether the client gets any

    @property
    def width(self) -> int:
        return sum(columns.size for columns in self.columns)

    def cut(self, trace: np.ndarray, steps: np.ndarray) -> np.ndarray | None:
        """The selected part of `trace` [N, V], whose rows are the steps `steps` [N]; None if no step is selected."""
        if self.every > 1:
            trace = trace[steps % self.every == 0]
            if not len(trace):
                return None
        return trace[:, self._indices]


_NO_TRACE = TracePlan((), 1, slice(0, 0), wanted=False)


def plan(selection: Selection, graph: StepGraph) -> TracePlan:
    """The plan for a selection of the columns that a model has.

    Raises:
        BadInput: the model has no such layer or part, or the selection says none and selects something.
    """
    if not graph.trace and selection == Selection():
        selection = Selection(none=True)  # everything of nothing
    if selection.none:
        if selection.parts or selection.layers or selection.every > 1:
            raise BadInput("the trace selection says none and selects something", Reason.BAD_TRACE)
        return _NO_TRACE
    for layer in sorted(selection.layers):
        if layer >= len(graph.layers):
            raise BadInput(
                f"the trace selection names layer {layer}; this model has layers 0 to {len(graph.layers) - 1}",
                Reason.BAD_TRACE,
            )
    wanted = [columns for columns in graph.trace if _wants(selection, columns)]
    if not wanted:
        raise BadInput(
            f"the trace selection asks for {', '.join(sorted(selection.parts))}, which the selected layers do not have",
            Reason.BAD_TRACE,
        )
    everything = len(wanted) == len(graph.trace)
    indices = slice(None) if everything else np.concatenate([np.arange(c.offset, c.offset + c.size) for c in wanted])
    return TracePlan(_laid_out(wanted), selection.every, indices, wanted=True)


def _wants(selection: Selection, columns: Columns) -> bool:
    part = columns.name if columns.name in (HIDDEN, CELL) else GATES
    return (not selection.parts or part in selection.parts) and (
        not selection.layers or columns.layer in selection.layers
    )


def _laid_out(wanted: Sequence[Columns]) -> tuple[Columns, ...]:
    offsets = np.cumsum([0, *(columns.size for columns in wanted)]).tolist()
    return tuple(Columns(c.layer, c.name, offset, c.size) for c, offset in zip(wanted, offsets, strict=False))
