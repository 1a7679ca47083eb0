"""Computes steps of many sequences at once with onnxruntime. Knows arrays and the step graph, no sequences, no asyncio."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from server import session
from server.errors import StepFailed
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
        self._ports = graph.outputs
        self._names = [*(port.name for port in graph.outputs), NEXT_STATE]
        self._seconds: dict[int, float] = {}

    def run(self, inputs: Mapping[str, np.ndarray], state: np.ndarray, trace: bool) -> Result:
        """Takes K consecutive steps: `inputs[name]` is [K, B, ...row], `state` [B, W] before them.

        Raises:
            StepFailed: onnxruntime could not compute one of them. Nothing is kept of the others either.
        """
        steps = len(next(iter(inputs.values())))
        names = [*self._names, TRACE] if trace else self._names
        taken = []
        for k in range(steps):
            feeds = {port.name: _to_graph(port, inputs[port.name][k]) for port in self.graph.inputs}
            feeds[STATE] = state
            values = session.run(self._session, names, feeds)
            state = values[len(self._ports)]
            taken.append(values)
        outputs = {port.name: self._gather(port, taken, i) for i, port in enumerate(self._ports)}
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

    def _gather(self, port: Port, taken: Sequence[Sequence[np.ndarray]], index: int) -> np.ndarray:
        """[K, B, ...row] from the K values that the graph gave for an output."""
        return _stack([_from_graph(port, values[index]) for values in taken])


def _to_graph(port: Port, x: np.ndarray) -> np.ndarray:
    """[B, ...row] to the axes of the graph's input with one step."""
    axis = port.time or 0
    if port.batch == 0:
        return np.expand_dims(x, axis)
    moved = np.moveaxis(x, 0, port.batch - (axis < port.batch))
    return np.expand_dims(moved, axis)


def _from_graph(port: Port, y: np.ndarray) -> np.ndarray:
    """The graph's output for one step to [B, ...row]."""
    if port.time is not None:
        if y.shape[port.time] != 1:
            raise StepFailed(f"output '{port.name}' has {y.shape[port.time]} rows for one step")
        y = np.squeeze(y, port.time)
    axis = port.batch - (port.time is not None and port.time < port.batch)
    return np.moveaxis(y, axis, 0) if axis else y


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Adds the axis K in front; without a copy for one step."""
    return arrays[0][np.newaxis] if len(arrays) == 1 else np.stack(arrays)
