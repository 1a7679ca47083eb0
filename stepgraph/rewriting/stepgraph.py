"""A model rewritten to take one step of B sequences, (x, state) to (y, new state, trace), as a value. Pure onnx.

The states of all layers travel as one matrix [B, W], so do the traces [B, V]: one gather, one scatter and one copy for
a batch, however many layers there are. Does not know how a model is rewritten.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx

from stepgraph.cells.cell import Cell
from stepgraph.rewriting.columns import Columns
from stepgraph.rewriting.ports import Port

PREFIX = "tidegate/"
BEGUN = f"{PREFIX}begun"  # a column of the state: 1 from the second step on, where the first computes a state
AGE = "tidegate.rings/age"  # a column of the state: how many steps a sequence has taken, up to the last that matters
STEP = "tidegate.rings/step"  # columns of the state: the number of the step, as two numbers
COUNT = f"{PREFIX}window"  # a column of the state: how many steps of its window a sequence has taken
ANSWERED = f"{PREFIX}answered"  # an output: whether this step is answered, where not all are
SEED, DRAWS = f"{PREFIX}seed", f"{PREFIX}draws"  # columns of the state: what random numbers are drawn from
_MANY = 2**20  # steps
STATE, NEXT_STATE, TRACE = f"{PREFIX}state", f"{PREFIX}next_state", f"{PREFIX}trace"


@dataclass(frozen=True, eq=False)
class StepGraph:
    """The rewritten model. Its inputs are the original's and STATE; its outputs the original's, NEXT_STATE and TRACE.

    `initial` is the state row [W] that a new sequence starts from.
    """

    model: onnx.ModelProto
    layers: tuple[Cell, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    state: tuple[Columns, ...]
    trace: tuple[Columns, ...]
    initial: np.ndarray
    whole: np.ndarray  # [W]: which columns of the state hold whole numbers or truths
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)  # large initialisers, which lie beside the model

    @property
    def dtype(self) -> np.dtype:
        return self.initial.dtype

    def start(self, batch: int) -> np.ndarray:
        """The states [B, W] of so many new sequences."""
        return np.tile(self.initial, (batch, 1))

    def settled(self, batch: int) -> np.ndarray:
        """The states of so many sequences that have taken many steps: at first, windows of the last steps are short."""
        rows = self.start(batch)
        for columns in (each for each in self.state if each.name == AGE):
            rows[:, columns.span] = _MANY
        return rows

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers from its state."""
        return any(columns.name == SEED for columns in self.state)

    def seeded(self, seeds: np.ndarray) -> np.ndarray:
        """The states [B, W] of new sequences that draw from these seeds [B], uint64."""
        rows = self.start(len(seeds))
        for columns in (each for each in self.state if each.name == SEED):
            parts = seeds[:, np.newaxis] >> np.arange(0, 64, 64 // columns.size, dtype=np.uint64)
            rows[:, columns.span] = parts % 2 ** (64 // columns.size)
        return rows

    def gates_of(self, layer: int) -> tuple[str, ...]:
        """The gates of a layer that a trace shows."""
        shown = {columns.name for columns in self.trace if columns.layer == layer}
        return tuple(gate for gate in self.layers[layer].gates if gate in shown)
