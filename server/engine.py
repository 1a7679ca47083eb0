"""Computes steps of many sequences at once with onnxruntime. Knows arrays and the step graph, no sequences, no asyncio."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from server import session
from server.probe import Port
from server.stepgraph import NEXT_STATE, STATE, TRACE, StepGraph


@dataclass(frozen=True, eq=False)
class Result:
    """K steps of B sequences. `outputs[name]` is [K, B, ...row], `trace` [K, B, V] or None, `state` [B, W] after them."""

    outputs: Mapping[str, np.ndarray]
    trace: np.ndarray | None
    state: np.ndarray


class Engine:
    """Runs one step graph. Not for several threads at once."""

    def __init__(self, graph: StepGraph) -> None:
        self.graph = graph
        self._session = session.create(graph.model)
        self._inputs = [_Shaper(port) for port in graph.inputs]
        self._outputs = [_Shaper(port) for port in graph.outputs]
        self._names = [*(port.name for port in graph.outputs), NEXT_STATE]
        self._seconds: dict[int, float] = {}

    def run(self, inputs: Mapping[str, np.ndarray], state: np.ndarray, trace: bool) -> Result:
        """Takes K consecutive steps: `inputs[name]` is [K, B, ...row], `state` [B, W] before them.

        Raises:
            StepFailed: onnxruntime could not compute one of them. Nothing is kept of the others either.
        """
        names = [*self._names, TRACE] if trace else self._names
        taken = []
        for k in range(len(next(iter(inputs.values())))):
            feeds = {shaper.name: shaper.to_graph(inputs[shaper.name][k]) for shaper in self._inputs}
            feeds[STATE] = state
            values = session.run(self._session, names, feeds)
            state = values[len(self._outputs)]
            taken.append(values)
        outputs = {shaper.name: shaper.from_graph([v[i] for v in taken]) for i, shaper in enumerate(self._outputs)}
        return Result(outputs, _stack([values[-1] for values in taken]) if trace else None, state)

    def warm_up(self, largest: int) -> None:
        """Runs every batch size up to `largest` once: onnxruntime plans its memory when it first sees a shape.

        Also learns what a step costs at each size, for `seconds`.
        """
        for batch in range(1, largest + 1):
            feeds = {p.name: np.zeros((1, batch, *p.row), p.dtype) for p in self.graph.inputs}
            state = np.tile(self.graph.initial, (batch, 1))
            self.run(feeds, state, trace=True)
            started = time.perf_counter()
            self.run(feeds, state, trace=False)
            self._seconds[batch] = time.perf_counter() - started

    def seconds(self, batch: int) -> float:
        """About how long one step of `batch` sequences takes, measured by `warm_up`; 0 before it."""
        return self._seconds.get(batch, 0.0)


class _Shaper:
    """Puts [B, ...row] into the axes that the graph has for one step, and back."""

    def __init__(self, port: Port) -> None:
        self.name = port.name
        # where the batch comes first but for an axis of length 1, a reshape will do
        self._batch = port.batch - (port.time is not None and port.time < port.batch)
        self._time = port.time
        self._graph_shape = list(port.shape(0, 1))
        self._graph_shape[port.batch] = -1
        self._row_shape = (1, -1, *port.row)

    def to_graph(self, x: np.ndarray) -> np.ndarray:
        """[B, ...row] to the graph's axes."""
        if not self._batch:
            return x.reshape(self._graph_shape)
        moved = np.moveaxis(x, 0, self._batch)
        return moved if self._time is None else np.expand_dims(moved, self._time)

    def from_graph(self, steps: Sequence[np.ndarray]) -> np.ndarray:
        """K values of the graph to [K, B, ...row]."""
        if not self._batch:
            return _stack_rows([y.reshape(self._row_shape) for y in steps])
        rows = [y if self._time is None else np.squeeze(y, self._time) for y in steps]
        return _stack([np.moveaxis(y, self._batch, 0) for y in rows])


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Adds the axis K in front; without a copy for one step."""
    return arrays[0][np.newaxis] if len(arrays) == 1 else np.stack(arrays)


def _stack_rows(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Joins [1, B, ...row] to [K, B, ...row]; without a copy for one step."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
