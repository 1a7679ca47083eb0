"""Computes steps of many sequences at once with onnxruntime. Knows arrays and the step graph, no sequences."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from stepgraph.errors import StepFailed
from stepgraph.rewriting.ports import Port, moved
from stepgraph.rewriting.stepgraph import NEXT_STATE, STATE, TRACE, StepGraph
from stepgraph.running import session
from stepgraph.running.result import Result

T = TypeVar("T")

_BATCHES, _DRAWS = (2, 3, 5, 8, 17, 33, 64), 50  # sizes, and rows in each place, that `keep_bits` tries
_FEWEST, _NUMBERS = 4, 2**18  # so many rows where they are wide, and numbers of a row in all places together
_SLOW = 5e-3  # seconds of a step beside which planning its memory, and what a clock is off by, is little
_WIDE = 64  # past this many rows a batch gains next to nothing (two layers of 128: 5.5 us a row at 64, 5.4 at 256)


@dataclass(frozen=True, slots=True, eq=False)
class _Lane:
    """The arrays that a step of one sequence is read from and written to."""

    inputs: Mapping[str, np.ndarray]  # [1, 1, ...row]; so are the outputs
    state: np.ndarray | None  # [1, W]
    outputs: Mapping[str, np.ndarray]
    trace: np.ndarray | None
    next_state: np.ndarray | None
    bound: session.Bound

    def run(self, inputs: Mapping[str, np.ndarray], state: np.ndarray) -> Result:
        for name, place in self.inputs.items():
            place[...] = inputs[name]
        if self.state is not None:
            self.state[...] = state
        self.bound.run()
        outputs = {name: place.copy() for name, place in self.outputs.items()}
        shown = None if self.trace is None else self.trace.copy()
        return Result(outputs, shown, state if self.next_state is None else self.next_state)

    def run_all(self, inputs: Mapping[str, np.ndarray], state: np.ndarray) -> Result:
        """As many steps as the inputs [K, 1, ...row] have, one after the other."""
        steps = len(next(iter(inputs.values())))
        fed = [(place[0], inputs[name]) for name, place in self.inputs.items()]
        made = {name: np.empty((steps, *place.shape[1:]), place.dtype) for name, place in self.outputs.items()}
        shown = None if self.trace is None else np.empty((steps, *self.trace.shape[1:]), self.trace.dtype)
        kept = [(whole, self.outputs[name][0]) for name, whole in made.items()]
        if shown is not None and self.trace is not None:
            kept.append((shown, self.trace[0]))
        for k in range(steps):
            for place, x in fed:
                place[...] = x[k]
            if self.state is not None:
                self.state[...] = state
            self.bound.run()
            for whole, place in kept:
                whole[k] = place
            state = state if self.next_state is None else self.next_state
        return Result(made, shown, state.copy())


class Engine:
    """Runs one step graph. Not for several threads at once.

    Args:
        graph: what to run.
        alone: why it can take one row at a time only, or None if rows may share a batch.
    """

    def __init__(self, graph: StepGraph, alone: str | None = None) -> None:
        self.graph = graph
        self.alone = alone
        self._inputs = [_Shaper(port) for port in graph.inputs]
        self._outputs = [_Shaper(port) for port in graph.outputs]
        self._carries = bool(graph.state)  # a model may have cells and yet carry nothing from step to step
        self._shows = bool(graph.trace)  # a model whose state is declared may have no cells to look into
        names = [*(port.name for port in graph.outputs), *([NEXT_STATE] if self._carries else [])]
        self._names = {False: names, True: [*names, *([TRACE] if self._shows else [])]}  # without and with a trace
        self._lanes: dict[bool, _Lane | None] = {}  # likewise; None: it cannot have one
        self._seconds: dict[int, float] = {}

    @cached_property
    def _session(self) -> session.Session:
        """Made for the first step: with large weights it needs as much memory as these once more."""
        return session.create(self.graph.model, self.graph.weights)

    def run(self, inputs: Mapping[str, np.ndarray], state: np.ndarray, trace: bool) -> Result:
        """Takes K consecutive steps: `inputs[name]` is [K, B, ...row], `state` [B, W] before them.

        Raises:
            StepFailed: onnxruntime could not compute one of them. Nothing is kept of the others either.
        """
        steps = len(next(iter(inputs.values())))
        if steps > 1 and len(state) == 1 and (lane := self._lane_for(inputs, state, trace)) is not None:
            return _computed(lane.run_all, inputs, state)
        taken: list[list[np.ndarray]] = []
        for k in range(steps):
            values = self._step({name: x[k : k + 1] for name, x in inputs.items()}, state, trace)
            state = values.pop(len(self._outputs)) if self._carries else state
            taken.append(values)
        outputs = {
            shaper.name: _alike(shaper.from_graph(values[i]) for values in taken)
            for i, shaper in enumerate(self._outputs)
        }
        shown = _joined([values[-1][np.newaxis] for values in taken]) if trace and self._shows else None
        return Result(outputs, shown, state)

    def run_once(self, inputs: Mapping[str, np.ndarray], state: np.ndarray, trace: bool) -> Result:
        """One step of B sequences, as `run` takes it with K = 1; its state is good until the next one.

        Raises:
            StepFailed: onnxruntime could not compute it.
        """
        if len(state) > 1:  # lanes for each number of rows take onnxruntime tens of MiB
            return self.run(inputs, state, trace)
        lane = self._lane_for(inputs, state, trace)
        return self.run(inputs, state, trace) if lane is None else _computed(lane.run, inputs, state)

    def _lane_for(self, inputs: Mapping[str, np.ndarray], state: np.ndarray, trace: bool) -> _Lane | None:
        """That of one sequence; made for the first step of these inputs."""
        if trace not in self._lanes:
            self._lanes[trace] = self._lane({name: x[:1] for name, x in inputs.items()}, state, trace)
        return self._lanes[trace]

    def _lane(self, inputs: Mapping[str, np.ndarray], state: np.ndarray, trace: bool) -> _Lane | None:
        """For one sequence, unless there is an array without elements or numbers."""
        values = dict(zip(self._names[trace], self._step(inputs, state, trace), strict=True))
        feeds = {name: x.copy() for name, x in self._feeds(inputs, state).items()}
        arrays = (*values.values(), *feeds.values())
        if not all(x.size and x.dtype.kind in "fiub" and x.flags.c_contiguous for x in arrays):
            return None
        taken = {shaper.name: shaper.from_graph(feeds[shaper.name]) for shaper in self._inputs}
        given = {shaper.name: shaper.from_graph(values[shaper.name]) for shaper in self._outputs}
        shown = values[TRACE][np.newaxis] if trace and self._shows else None
        bound = session.Bound(self._session, feeds, values)
        return _Lane(taken, feeds.get(STATE), given, shown, values.get(NEXT_STATE), bound)

    def _step(self, inputs: Mapping[str, np.ndarray], state: np.ndarray, trace: bool) -> list[np.ndarray]:
        return _computed(session.run, self._session, self._names[trace], self._feeds(inputs, state))

    def _feeds(self, inputs: Mapping[str, np.ndarray], state: np.ndarray) -> dict[str, np.ndarray]:
        feeds = {shaper.name: shaper.to_graph(inputs[shaper.name]) for shaper in self._inputs}
        return feeds | {STATE: state} if self._carries else feeds

    def warm_up(self, largest: int, patience: float, seconds: Sequence[float] = ()) -> None:
        """Runs every batch size once, because onnxruntime plans its memory when it first sees a shape.

        Goes up to `largest`, or past a batch of 64 until a step takes longer than `patience`, in seconds. Learns what a
        step costs at each size, for `seconds`, and `largest`; from `seconds` for 1, 2 and so on, if they are given.
        Where a step is slow, powers of two are run, and what lies between is taken to cost as much as the one below.
        """
        random, rows, drawn = np.random.default_rng(0), dict[str, np.ndarray](), 0
        for batch in range(1, 1 + (1 if self.alone else largest)):
            if batch & (batch - 1) and self._seconds[batch - 1] > _SLOW:
                self._seconds[batch] = self._seconds[batch - 1]
                continue
            if batch > drawn:  # so many more: random numbers of wide rows take longer than a step
                drawn = -(-batch // _WIDE) * _WIDE
                rows = {p.name: p.sample(1, drawn, random) for p in self.graph.inputs}
            feeds = {name: x[:, :batch] for name, x in rows.items()}
            state = self.graph.settled(batch)
            self.run(feeds, state, trace=True)
            self._seconds[batch] = seconds[batch - 1] if seconds else self._timed(feeds, state)
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
        if self.largest > 1 and not self._keeps_bits():
            self.alone = "an operator of onnxruntime rounds some rows of a batch unlike the others"

    def _keeps_bits(self) -> bool:
        """Whether random rows have the same bits in every place of a batch, beside others, as alone."""
        random = np.random.default_rng(0)
        sizes = sorted({size for size in _BATCHES if size < self.largest} | {self.largest})
        draws = min(_DRAWS, max(_FEWEST, _NUMBERS // self._width()))
        count = max(draws, min(_DRAWS, self.largest))
        inputs = {p.name: p.sample(1, count, random) for p in self.graph.inputs}
        drawn = random.standard_normal((count, len(self.graph.initial)))
        state = np.where(self.graph.whole, drawn > 0, drawn).astype(self.graph.dtype)  # it may be a place in a table

        def bits(rows: Sequence[int]) -> list[np.ndarray]:
            result = self.run({name: x.take(rows, 1) for name, x in inputs.items()}, state.take(rows, 0), trace=True)
            arrays = [*result.outputs.values(), result.state, *([] if result.trace is None else [result.trace])]
            flat = (array.reshape(len(rows), array.size // len(rows)) for array in arrays)
            return [np.ascontiguousarray(each).view(np.uint8) for each in flat]

        alone = [np.concatenate(each) for each in zip(*(bits([row]) for row in range(count)), strict=True)]
        together = ([(first + i) % count for i in range(size)] for first in range(draws) for size in sizes)
        return all(
            np.array_equal(got, each[rows]) for rows in together for got, each in zip(bits(rows), alone, strict=True)
        )

    def _width(self) -> int:
        """How many numbers a row has in inputs, outputs, states and what nodes make, at one for each, together."""
        ports = (*self.graph.inputs, *self.graph.outputs)
        nodes = len(self.graph.model.graph.node)
        return nodes + len(self.graph.initial) + sum(math.prod(port.row) for port in ports)

    def _timed(self, feeds: Mapping[str, np.ndarray], state: np.ndarray) -> float:
        """The least of three times, or the first if it is long."""
        times = [math.inf]
        while len(times) <= 3 and not _SLOW < times[-1] < math.inf:
            started = time.perf_counter()
            self.run(feeds, state, trace=False)
            times.append(time.perf_counter() - started)
        return min(times)

    def seconds(self, batch: int) -> float:
        """About how long one step of `batch` sequences takes, measured by `warm_up`; 0 before it."""
        return self._seconds.get(batch, 0.0)


def _computed(run: Callable[..., T], *given: object) -> T:
    try:
        return run(*given)
    except MemoryError as error:
        raise StepFailed(f"there is too little memory to compute this: {error}") from error


def _joined(steps: Sequence[np.ndarray]) -> np.ndarray:
    return steps[0] if len(steps) == 1 else np.concatenate(steps)


def _alike(steps: Iterable[np.ndarray]) -> np.ndarray:
    """An output of all steps. Raises StepFailed: one has another shape."""
    try:
        return _joined(list(steps))
    except ValueError as error:
        raise StepFailed(f"an output of one step has not the shape that it has in a sequence: {error}") from error


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
        step = moved(x[0], 0, self._batch)
        return step if self._time is None else np.expand_dims(step, self._time)

    def from_graph(self, y: np.ndarray) -> np.ndarray:
        if not self._batch:
            return y.reshape(self._row_shape)
        row = y if self._time is None else np.squeeze(y, self._time)  # `_batch` is counted without it
        return moved(row, self._batch, 0)[np.newaxis]
