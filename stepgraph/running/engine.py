"""Computes steps of many sequences at once with onnxruntime. Knows arrays and the step graph, no sequences."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stepgraph.errors import StepFailed
from stepgraph.rewriting.ports import Port
from stepgraph.rewriting.stepgraph import NEXT_STATE, STATE, TRACE, StepGraph
from stepgraph.running import session
from stepgraph.running.result import Result

_BATCHES, _DRAWS = (2, 3, 5, 8, 17, 33, 64), 50  # sizes and rows that `keep_bits` tries
_WIDE = 64  # past this many rows a batch gains next to nothing (two layers of 128: 5.5 us a row at 64, 5.4 at 256)


@dataclass(frozen=True, slots=True, eq=False)
class _Lane:
    """The arrays that steps of a sequence alone go through, by the graph's names."""

    feeds: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]
    bound: session.Bound


class Engine:
    """Runs one step graph. Not for several threads at once.

    Args:
        graph: what to run.
        alone: why it can take one row at a time only, or None if rows may share a batch.
    """

    def __init__(self, graph: StepGraph, alone: str | None = None) -> None:
        self.graph = graph
        self.alone = alone
        self._session = session.create(graph.model)
        self._inputs = [_Shaper(port) for port in graph.inputs]
        self._outputs = [_Shaper(port) for port in graph.outputs]
        self._carries = bool(graph.state)  # a model may have cells and yet carry nothing from step to step
        self._names = [*(port.name for port in graph.outputs), *([NEXT_STATE] if self._carries else [])]
        self._shows = bool(graph.trace)  # a model whose state is declared may have no cells to look into
        self._traced_names = [*self._names, *([TRACE] if self._shows else [])]
        self._seconds: dict[int, float] = {}
        self._lanes: dict[bool, _Lane | None] = {}  # without and with a trace

    def run(self, inputs: Mapping[str, np.ndarray], state: np.ndarray, trace: bool) -> Result:
        """Takes K consecutive steps: `inputs[name]` is [K, B, ...row], `state` [B, W] before them.

        Raises:
            StepFailed: onnxruntime could not compute one of them. Nothing is kept of the others either.
        """
        steps = len(next(iter(inputs.values())))
        names = self._traced_names if trace else self._names
        if steps == 1:
            values = self._step(names, inputs, state)
            outputs = {shaper.name: shaper.from_graph(values[i]) for i, shaper in enumerate(self._outputs)}
            return Result(
                outputs, values[-1][np.newaxis] if trace and self._shows else None, self._next_state(values, state)
            )
        taken = []
        for k in range(steps):
            taken.append(self._step(names, {name: x[k : k + 1] for name, x in inputs.items()}, state))
            state = self._next_state(taken[-1], state)
        outputs = {
            shaper.name: np.concatenate([shaper.from_graph(values[i]) for values in taken])
            for i, shaper in enumerate(self._outputs)
        }
        return Result(outputs, np.stack([values[-1] for values in taken]) if trace and self._shows else None, state)

    def run_alone(self, inputs: Mapping[str, np.ndarray], state: np.ndarray, trace: bool) -> Result:
        """One step of one sequence, as `run` takes it with K = B = 1; its state is good until the next one.

        Raises:
            StepFailed: onnxruntime could not compute it.
        """
        lane = self._lanes.get(trace)
        if lane is None:
            return self.run(inputs, state, trace)
        for shaper in self._inputs:
            lane.feeds[shaper.name][...] = shaper.to_graph(inputs[shaper.name])
        if self._carries:
            lane.feeds[STATE][...] = state
        try:
            lane.bound.run()
        except MemoryError as error:
            raise StepFailed(f"there is too little memory to compute this: {error}") from error
        outputs = {shaper.name: shaper.from_graph(lane.values[shaper.name].copy()) for shaper in self._outputs}
        shown = lane.values[TRACE].copy()[np.newaxis] if trace and self._shows else None
        return Result(outputs, shown, lane.values[NEXT_STATE] if self._carries else state)

    def _lane(self, feeds: Mapping[str, np.ndarray], state: np.ndarray, trace: bool) -> "_Lane | None":
        """Where steps of one sequence run, unless there is an array without elements or numbers."""
        names = self._traced_names if trace else self._names
        values = dict(zip(names, self._step(names, feeds, state), strict=True))
        given = {shaper.name: shaper.to_graph(feeds[shaper.name]).copy() for shaper in self._inputs}
        given |= {STATE: state.copy()} if self._carries else {}
        arrays = [*values.values(), *given.values()]
        if not all(array.size and array.dtype.kind in "fiub" and array.flags.c_contiguous for array in arrays):
            return None
        return _Lane(given, values, session.Bound(self._session, given, values))

    def _next_state(self, values: list[np.ndarray], state: np.ndarray) -> np.ndarray:
        return values[len(self._outputs)] if self._carries else state

    def _step(self, names: list[str], inputs: Mapping[str, np.ndarray], state: np.ndarray) -> list[np.ndarray]:
        feeds = {STATE: state} if self._carries else {}
        for shaper in self._inputs:
            feeds[shaper.name] = shaper.to_graph(inputs[shaper.name])
        try:
            return session.run(self._session, names, feeds)
        except MemoryError as error:
            raise StepFailed(f"there is too little memory to compute this: {error}") from error

    def warm_up(self, largest: int, patience: float, seconds: Sequence[float] = ()) -> None:
        """Runs every batch size once, because onnxruntime plans its memory when it first sees a shape.

        Goes up to `largest`, or past a batch of 64 until a step takes longer than `patience`, in seconds. Learns what a
        step costs at each size, for `seconds`, and `largest`; from `seconds` for 1, 2 and so on, if they are given.
        """
        random = np.random.default_rng(0)
        for batch in range(1, 1 + (1 if self.alone else largest)):
            feeds = {p.name: p.sample(1, batch, random) for p in self.graph.inputs}
            state = self.graph.start(batch)
            self.run(feeds, state, trace=True)
            known = seconds[batch - 1] if seconds else min(self._timed(feeds, state) for _ in range(3))
            self._seconds[batch] = known
            if batch == 1:
                self._lanes = {shown: self._lane(feeds, state, shown) for shown in (False, True)}
            if batch >= _WIDE and self._seconds[batch] > patience:
                break

    @property
    def largest(self) -> int:
        """The largest batch to run: of those that are warmed up, unless rows have to run alone."""
        return 1 if self.alone else max(self._seconds, default=1)

    def keep_bits(self) -> None:
        """Has rows run alone from now on if a batch would change their bits.

        Gemm and the cells' activations are not to blame: some other operators of onnxruntime round the last elements of
        a tensor unlike the others.
        """
        if not self.alone and not self._keeps_bits():
            self.alone = "an operator of onnxruntime rounds some rows of a batch unlike the others"

    def _keeps_bits(self) -> bool:
        random = np.random.default_rng(0)
        sizes = sorted({size for size in _BATCHES if size < self.largest} | {self.largest})
        drawn = self._draw(self.largest, random)
        rows = [self._bits(*drawn, np.array([i])) for i in range(self.largest)]
        if any(
            self._bits(*drawn, np.arange(size)) != list(map(b"".join, zip(*rows[:size], strict=True))) for size in sizes
        ):
            return False
        for _ in range(_DRAWS):  # one row in every place of a batch
            drawn = self._draw(1, random)
            alone = self._bits(*drawn, np.zeros(1, int))
            if any(self._bits(*drawn, np.zeros(size, int)) != [each * size for each in alone] for size in sizes):
                return False
        return True

    def _draw(self, batch: int, random: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
        inputs = {p.name: p.sample(1, batch, random) for p in self.graph.inputs}
        state = random.standard_normal((batch, len(self.graph.initial)))
        state = np.where(self.graph.whole, state > 0, state)  # a whole number may be a place in a table
        return inputs, state.astype(self.graph.dtype)

    def _bits(self, inputs: Mapping[str, np.ndarray], state: np.ndarray, rows: np.ndarray) -> list[bytes]:
        result = self.run({name: x[:, rows] for name, x in inputs.items()}, state[rows], trace=True)
        arrays = [*result.outputs.values(), result.state, *([] if result.trace is None else [result.trace])]
        return [array.tobytes() for array in arrays]

    def _timed(self, feeds: Mapping[str, np.ndarray], state: np.ndarray) -> float:
        started = time.perf_counter()
        self.run(feeds, state, trace=False)
        return time.perf_counter() - started

    def seconds(self, batch: int) -> float:
        """About how long one step of `batch` sequences takes, measured by `warm_up`; 0 before it."""
        return self._seconds.get(batch, 0.0)


def shaped_feeds(graph: StepGraph, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One step's inputs, [1, B, ...row] each, in the axes of the step graph; without the state."""
    return {port.name: _Shaper(port).to_graph(inputs[port.name]) for port in graph.inputs}


class _Shaper:
    """Puts [1, B, ...row] into the axes that the graph has for one step, and back."""

    def __init__(self, port: Port) -> None:
        self.name = port.name
        # where the batch comes first but for axes of length 1, or there is one row, a reshape will do
        self._batch = 0 if port.batch is None else port.step_batch
        self._time = None if port.block else port.time
        self._graph_shape = list(port.shape(1, 1))
        if port.batch is not None:
            self._graph_shape[port.batch] = -1
        self._row_shape = (1, -1, *port.row)

    def to_graph(self, x: np.ndarray) -> np.ndarray:
        if not self._batch:
            return x.reshape(self._graph_shape)
        moved = np.moveaxis(x[0], 0, self._batch)
        return moved if self._time is None else np.expand_dims(moved, self._time)

    def from_graph(self, y: np.ndarray) -> np.ndarray:
        if not self._batch:
            return y.reshape(self._row_shape)
        row = y if self._time is None else np.squeeze(y, self._time)  # `_batch` is counted without it
        return np.moveaxis(row, self._batch, 0)[np.newaxis]
