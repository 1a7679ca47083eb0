"""A model file for people who run it themselves: one step at a time, its state a value, its gates by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from stepgraph import loading
from stepgraph.errors import BadInput
from stepgraph.model import LoadedModel
from stepgraph.rewriting.ports import Port
from tidegate.answers import Answer, TraceLayout
from tidegate.columns import Limits


@dataclass(frozen=True, eq=False)
class State:
    """What a sequence carries after so many steps: a row [W] of all layers. Never changed: keep it, and go on twice."""

    steps: int
    row: np.ndarray


class Model:
    """One file, proved. Not for several threads at once. `loaded` tells its inputs, outputs, layers and proof."""

    def __init__(self, loaded: LoadedModel) -> None:
        columns: dict[int, dict[str, slice]] = {}
        for run in loaded.graph.trace:
            assert run.layer is not None
            columns.setdefault(run.layer, {})[run.name] = run.span
        self.loaded = loaded
        self._limits = {p.name: Limits(p.name, p.row, p.dtype, p.legend) for p in loaded.graph.inputs}
        self._layout = TraceLayout(columns)

    def begin(self, seed: int = 0) -> State:
        """The state of a new sequence; `seed` is what it draws random numbers from, if the file does that."""
        return State(0, self.loaded.graph.seeded(np.array([seed], np.uint64))[0])

    def step(self, x: ArrayLike | Mapping[str, ArrayLike], state: State | None = None) -> tuple[Answer, State]:
        """One step of one sequence: outputs [...row], each layer's states and gates [H], and the state to go on from.

        Args:
            x: a row of the model's one input, or a row for each of its inputs by name.
            state: what the step before returned; None begins anew.

        Raises:
            BadInput: a row has another shape than the model takes, holds no finite numbers, or outside of its
                column's range, or belongs to no input.
            StepFailed: the model could not compute it.
        """
        state = state or State(0, self.loaded.graph.initial)
        result = self.loaded.engine.run(self._rows(x), state.row[np.newaxis], trace=True)
        outputs = {name: y[0, 0] for name, y in result.outputs.items()}
        trace = None if result.trace is None else result.trace[0, 0]
        return Answer(outputs, trace, self._layout, state.steps), State(state.steps + 1, result.state[0].copy())

    def _rows(self, x: ArrayLike | Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
        ports = self.loaded.graph.inputs
        given = x if isinstance(x, Mapping) else {ports[0].name: x}
        if given.keys() != {port.name for port in ports}:
            raise BadInput(f"inputs are {', '.join(given)}; this model takes {', '.join(p.name for p in ports)}")
        return {port.name: _row(port, self._limits[port.name], given[port.name]) for port in ports}


def load(path: str | Path) -> Model:
    """Loads a model.onnx in this process, and proves that its single steps give what the file gives.

    Raises:
        ModelRefused: the file cannot be cut into steps; the sentence says why, and where in the graph.
        OSError: there is no such file.
    """
    return Model(loading.load(Path(path), max_batch=1, patience=0))


def _row(port: Port, limits: Limits, x: ArrayLike) -> np.ndarray:
    """A row as the engine takes it, [1, 1, ...row]."""
    try:
        row = np.asarray(x).astype(port.dtype, casting="same_kind", copy=False)
    except (TypeError, ValueError) as error:
        raise BadInput(f"input '{port.name}' takes {port.dtype}: {error}") from error
    if row.shape != port.row:
        raise BadInput(f"input '{port.name}' has shape {list(row.shape)}; expected {list(port.row)}")
    if not limits.hold(row):
        raise BadInput(limits.fault(row[np.newaxis]).sentence)
    return row[np.newaxis, np.newaxis]
