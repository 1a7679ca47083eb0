"""What a client wants to see of the inside of a step. A value; it does not know which model it is meant for."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from tidegate.v1.sequence_pb2 import TraceSelection

_PARTS = {"hidden": TraceSelection.PART_HIDDEN, "cell": TraceSelection.PART_CELL, "gates": TraceSelection.PART_GATES}


@dataclass(frozen=True, slots=True)
class Trace:
    """A selection: everything, unless some of it is left out.

    `hidden`, `cell` and `gates` say which parts, `layers` which layers by index (None: all), and `every` that only
    steps whose number is a multiple of it show a trace.
    """

    hidden: bool = True
    cell: bool = True
    gates: bool = True
    layers: Collection[int] | None = None
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every={self.every}: a trace of every n-th step needs n of at least 1")
        if self.layers is not None and any(layer < 0 for layer in self.layers):
            raise ValueError(f"layers={self.layers}: layers are numbered from 0")

    @property
    def nothing(self) -> bool:
        """Whether this selection shows nothing at all."""
        return not (self.hidden or self.cell or self.gates) or (self.layers is not None and not self.layers)

    def message(self) -> TraceSelection:
        """The selection as the contract writes it, where an empty list means all."""
        if self.nothing:
            return TraceSelection(none=True)
        wanted = [part for name, part in _PARTS.items() if getattr(self, name)]
        parts = wanted if len(wanted) < len(_PARTS) else []
        return TraceSelection(parts=parts, layers=sorted(self.layers or ()), every=self.every)


NOTHING = Trace(hidden=False, cell=False, gates=False)

# What a caller may give for `trace=`: a selection, True for everything, False or None for nothing.
TraceChoice = Trace | Literal[True, False] | None


def choose(trace: TraceChoice) -> Trace:
    """The selection that a caller's `trace=` means. Raises TypeError: it is of another kind."""
    if isinstance(trace, Trace):
        return trace
    if not isinstance(trace, bool | None):
        raise TypeError(f"trace={trace!r}: a tidegate.Trace, True, False or None is wanted")
    return Trace() if trace else NOTHING
