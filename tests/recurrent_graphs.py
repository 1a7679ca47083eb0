"""Recurrent graphs as people's files have them: what lies around the cells, and where their state lives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tests.onnx_writer import Layer, Tensors, Writer

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

INPUTS, OUTPUTS, TOKENS = 3, 2, 8
PIECES = 3  # time steps of the cells within a frame
NOWHERE = ("absent", "constant", "computed")
INTERFACE = ("layers", "kinds", "one", "batch-first", "flat")


@dataclass(frozen=True)
class Graph:
    """What a file is made of.

    `state`, where it lives: "absent" (zeros), "constant" or "computed" start rows; in the interface one tensor for each
    "layers"' state, one for each of the "kinds" h and c [L, B, H], all in "one" [n, B, H], "batch-first" [B, n, H], or
    "flat" [B, n]. `cut` is how a packed state is taken apart. `head`: "none", over "every" step, over the "last" step
    (perhaps with another operator than Relu at its end, "last Tanh"), or over the last "state". `before` the cells:
    nothing, a "dense" layer, or an embedding of "tokens". `steps`: "many" with a time axis, "one" with that axis fixed
    to 1, "none" without, as "frames" over whose pieces the cells run, or with "blocks" of numbers along the time axis,
    each of which is a step. `end`: the hidden state is returned as the end of Y instead of Y_h.
    """

    layers: tuple[Layer, ...]
    state: str = "absent"
    cut: str = "slice"
    head: str = "every"
    before: str = ""
    batch_first: bool = False
    steps: str = "many"
    end: bool = False
    lengths: bool = False
    opset: int = 17
    dtype: str = "float32"
    seed: int = 0


@dataclass(frozen=True)
class Axes:
    """A tensor of the interface: where its batch and its time are."""

    name: str
    batch: int
    time: int | None = None

    def of_step(self, value: NDArray[np.generic], step: int) -> NDArray[np.generic]:
        """One step of all sequences, [B, ...]."""
        if self.time is None:
            return np.moveaxis(value, self.batch, 0)
        return np.moveaxis(value, (self.batch, self.time), (0, 1))[:, step]


@dataclass(frozen=True, eq=False)
class File:
    """A graph that was written: the model, and what its inputs and outputs are.

    `states` are pairs of an input and the output that it becomes, with the input's shape for `batch` sequences.
    """

    graph: Graph
    model: onnx.ModelProto
    x: Axes
    answer: Axes
    states: tuple[tuple[Axes, Axes, tuple[int | str, ...]], ...]
    lengths: str

    @property
    def one_step(self) -> bool:
        return self.graph.steps not in ("many", "blocks")

    def fresh(self, batch: int, random: np.random.Generator) -> dict[str, NDArray[np.generic]]:
        """Random states for the interface."""
        return {
            given.name: random.normal(0, 0.5, [batch if d == "batch" else int(d) for d in shape]).astype(
                self.graph.dtype
            )
            for given, _, shape in self.states
        }

    def rows(self, steps: int, batch: int, random: np.random.Generator) -> NDArray[np.generic]:
        """Random steps, [T, B, ...row]."""
        pieces = [PIECES] if self.graph.steps == "frames" else []
        if self.graph.before == "tokens":
            return random.integers(0, TOKENS, (steps, batch, *pieces))
        return random.normal(size=(steps, batch, INPUTS * (PIECES if pieces else 1))).astype(self.graph.dtype)

    def as_x(self, rows: NDArray[np.generic]) -> NDArray[np.generic]:
        """[T, B, ...row] in the axes of the file's input."""
        if self.x.time is None:
            return rows[0]
        if self.graph.steps == "blocks":
            return rows.swapaxes(0, 1).reshape(rows.shape[1], -1)
        return np.moveaxis(rows, (0, 1), (self.x.time, self.x.batch))


def write(graph: Graph) -> File:
    return _Writing(graph).file()


class _Writing:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.g = Writer(graph.opset, graph.dtype, graph.seed)

    def file(self) -> File:
        g, graph = self.g, self.graph
        free = self.g.name(), self.g.name()
        batch, time = (1, 0) if not graph.batch_first else (0, 1)
        shape: list[int | str] = [free[0], free[1]] if graph.batch_first else [free[1], free[0]]
        if graph.steps == "one":
            shape[time] = 1
        if graph.steps in ("none", "frames"):
            shape, batch = [free[0]], 0
        tokens = graph.before == "tokens"
        row = [] if tokens else [INPUTS]
        if graph.steps == "frames":
            row = [PIECES] if tokens else [PIECES * INPUTS]
        if graph.steps == "blocks":
            shape, row, (batch, time) = [free[0], free[1]], [], (0, 1)
        x = g.input([*shape, *row], np.int64 if tokens else None)
        x_axes = Axes(x, batch, None if graph.steps in ("none", "frames") else time)
        lengths = g.input([free[0]], np.int32) if graph.lengths else ""
        tensor, width = self._before(self._pieces(x))
        given, starts = self._given(free[0])
        tensor = tensor if graph.steps != "none" else g.unsqueeze(tensor, 1 if graph.batch_first else 0)
        batch_first, ends = graph.batch_first, list[Tensors]()
        for i, layer in enumerate(graph.layers):
            if batch_first != bool(layer.layout):
                tensor, batch_first = g.transpose(tensor, 1, 0, 2), not batch_first
            states = starts[i] if starts else self._constant(layer, tensor)
            outputs, _ = g.cell(layer, tensor, width, states, lengths)
            tensor, width = g.squeeze(outputs["Y"], 2 if batch_first else 1), layer.hidden
            ends.append(outputs)
        returned = self._returned(ends, free[0])
        answer = self._answer(tensor, batch_first, width, ends[-1], free)
        states = tuple((a, b, shape) for (a, shape), b in zip(given, returned, strict=True))
        return File(graph, g.model(), x_axes, answer, states, lengths)

    def _pieces(self, x: str) -> str:
        """Takes frames and blocks apart: [B, T, ...row], or time first."""
        g, graph = self.g, self.graph
        if graph.steps not in ("frames", "blocks"):
            return x
        tokens = graph.before == "tokens"
        pieces = x if tokens else g.reshape(x, 0, PIECES if graph.steps == "frames" else -1, INPUTS)
        return pieces if graph.batch_first else g.transpose(pieces, *((1, 0) if tokens else (1, 0, 2)))

    def _before(self, x: str) -> tuple[str, int]:
        g = self.g
        if self.graph.before == "tokens":
            return g.op("Gather", g.constant(g.numbers(TOKENS, 5)), x), 5
        if self.graph.before == "dense":
            return g.op("Relu", g.dense(x, INPUTS, 4)), 4
        return x, INPUTS

    def _constant(self, layer: Layer, x: str) -> list[str]:
        """States that start from a row in the file; none where they start from zeros."""
        g = self.g
        if self.graph.state == "absent":
            return []
        axis, states = (0 if layer.layout else 1), []
        for _ in layer.states:
            row = g.constant(g.numbers(1, 1, layer.hidden))
            row = g.op("Tanh", row) if self.graph.state == "computed" else row
            states.append(g.repeated(row, axis, x, axis))
        return states

    # where the state is in the interface

    def _groups(self) -> list[list[tuple[int, int]]]:
        """Which states, (layer, number of state), share one tensor."""
        layers = self.graph.layers
        of_h = [(i, 0) for i in range(len(layers))]
        of_c = [(i, 1) for i, layer in enumerate(layers) if len(layer.states) == 2]
        match self.graph.state:
            case "layers":
                return [[state] for i in range(len(layers)) for state in (*of_h, *of_c) if state[0] == i]
            case "kinds":
                return [group for group in (of_h, of_c) if group]
            case "one" | "batch-first" | "flat":
                return [[*of_h, *of_c]]
        return []

    def _given(self, batch: str) -> tuple[list[tuple[Axes, tuple[int | str, ...]]], list[list[str]]]:
        """Adds the inputs that are state: each with its shape, and each layer's states as its operator takes them."""
        g, layers, style = self.g, self.graph.layers, self.graph.state
        given: list[tuple[Axes, tuple[int | str, ...]]] = []
        starts: dict[tuple[int, int], str] = {}
        for group in self._groups():
            sizes = [layers[i].hidden for i, _ in group]
            if style == "flat":
                shape: tuple[int | str, ...] = (batch, sum(sizes))
                name = g.input(shape)
                parts = self._cut(name, 1, sizes)
                starts |= {s: g.unsqueeze(part, layers[s[0]].layout) for s, part in zip(group, parts, strict=True)}
            else:
                native = style == "layers" and layers[group[0][0]].layout
                first = style == "batch-first" or native
                shape = (batch, len(group), sizes[0]) if first else (len(group), batch, sizes[0])
                name = g.input(shape)
                parts = self._cut(name, 1 if first else 0, [1] * len(group))
                starts |= {
                    s: part if bool(first) == bool(layers[s[0]].layout) else g.transpose(part, 1, 0, 2)
                    for s, part in zip(group, parts, strict=True)
                }
            given.append((Axes(name, shape.index(batch)), tuple("batch" if d == batch else d for d in shape)))
        return given, [
            [starts[i, k] for k in range(len(layer.states))] for i, layer in enumerate(layers)
        ] if starts else []

    def _cut(self, tensor: str, axis: int, sizes: list[int]) -> list[str]:
        g = self.g
        if len(sizes) == 1:
            return [tensor]
        if self.graph.cut == "split":
            return g.split(tensor, axis, sizes)
        if self.graph.cut == "gather" and set(sizes) == {1}:
            return [g.unsqueeze(g.gather(tensor, axis, i), axis) for i in range(len(sizes))]
        ends = np.cumsum(sizes).tolist()
        return [g.slice(tensor, axis, end - size, end) for end, size in zip(ends, sizes, strict=True)]

    def _returned(self, ends: list[Tensors], batch: str) -> list[Axes]:
        """Adds the outputs that hold the states, packed like the inputs."""
        g, layers, style = self.g, self.graph.layers, self.graph.state
        returned = []
        for group in self._groups():
            tensors = [(self._end(ends[i], layers[i], k), bool(layers[i].layout)) for i, k in group]
            sizes = [layers[i].hidden for i, _ in group]
            if style == "flat":
                packed = g.concat(1, *(g.squeeze(tensor, int(first)) for tensor, first in tensors))
                g.output(packed, [batch, sum(sizes)])
                returned.append(Axes(packed, 0))
                continue
            wanted = style == "batch-first" or (style == "layers" and tensors[0][1])
            moved = [tensor if first == wanted else g.transpose(tensor, 1, 0, 2) for tensor, first in tensors]
            if self.graph.cut == "gather" and len(moved) > 1:
                axis = 1 if wanted else 0
                moved = [g.unsqueeze(g.squeeze(tensor, axis), axis) for tensor in moved]
            packed = g.concat(1 if wanted else 0, *moved)
            g.output(packed, [batch, len(group), sizes[0]] if wanted else [len(group), batch, sizes[0]])
            returned.append(Axes(packed, 0 if wanted else 1))
        return returned

    def _end(self, outputs: Tensors, layer: Layer, state: int) -> str:
        """The last state of a layer, in the operator's own axes."""
        if state or not self.graph.end:
            return outputs[("Y_h", "Y_c")[state]]
        return self.g.gather(outputs["Y"], 1 if layer.layout else 0, -1)

    def _answer(self, tensor: str, batch_first: bool, width: int, last: Tensors, free: tuple[str, str]) -> Axes:
        g, graph = self.g, self.graph
        batch, time = free[0], free[1] if graph.steps in ("many", "blocks") else 1
        if graph.head == "state":
            row = g.squeeze(last["Y_h"], 1 if graph.layers[-1].layout else 0)
            return Axes(g.output(g.dense(row, width, OUTPUTS), [batch, OUTPUTS]), 0)
        if graph.head.startswith("last") or graph.steps in ("none", "frames"):
            row = g.dense(g.gather(tensor, 1 if batch_first else 0, -1), width, OUTPUTS)
            return Axes(g.output(g.op(graph.head.partition(" ")[2] or "Relu", row), [batch, OUTPUTS]), 0)
        if batch_first != graph.batch_first:
            tensor = g.transpose(tensor, 1, 0, 2)
        if graph.head == "every":
            tensor, width = g.dense(tensor, width, OUTPUTS), OUTPUTS
        if graph.batch_first:
            return Axes(g.output(tensor, [batch, time, width]), 0, 1)
        return Axes(g.output(tensor, [time, batch, width]), 1, 0)
