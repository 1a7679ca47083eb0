"""Rewrites a model to take one step of B sequences: (x, state) to (y, new state, trace). Pure onnx.

Everything around the cells stays as it is and runs with a time axis of length 1. Each recurrent operator is replaced by
its equations (`cells`), so that its gates can be read. The states of all layers travel as one matrix [B, W], so do the
traces [B, V]: one gather, one scatter and one copy for a batch, however many layers there are.
Knows no onnxruntime; what the file does not say it is told as `Facts`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from server import cells, oracle
from server.errors import ModelRefused
from server.graph import GraphBuilder, opset, reachable
from server.ports import Facts, Pace, Port
from server.recurrence import CellNode, label

PREFIX = "tidegate/"
_INITIAL = 5  # the operators' input initial_h
_UNROLLED = 16  # time steps within one step that are written one after the other
STATE, NEXT_STATE, TRACE = f"{PREFIX}state", f"{PREFIX}next_state", f"{PREFIX}trace"


@dataclass(frozen=True)
class Columns:
    """A run of columns of the state or the trace: `name` ("hidden", "cell" or a gate) of layer `layer`.

    A state that the interface of the file carries has no layer; its name is that of the input.
    """

    layer: int | None
    name: str
    offset: int
    size: int

    @property
    def span(self) -> slice:
        """The columns as a slice."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True, eq=False)
class StepGraph:
    """The rewritten model. Its inputs are the original's and STATE; its outputs the original's, NEXT_STATE and TRACE.

    `initial` is the state row [W] that a new sequence starts from.
    """

    model: onnx.ModelProto
    layers: tuple[cells.Cell, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    state: tuple[Columns, ...]
    trace: tuple[Columns, ...]
    initial: np.ndarray
    whole: np.ndarray  # [W]: which columns of the state hold whole numbers or truths

    @property
    def dtype(self) -> np.dtype:
        """The type of state and trace."""
        return self.initial.dtype

    def gates_of(self, layer: int) -> tuple[str, ...]:
        """The gates of a layer that a trace shows."""
        shown = {columns.name for columns in self.trace if columns.layer == layer}
        return tuple(gate for gate in self.layers[layer].gates if gate in shown)


def rewrite(model: onnx.ModelProto, nodes: Sequence[CellNode], facts: Facts) -> StepGraph:
    """Makes the step graph of `model`, whose recurrent operators are `nodes`.

    Raises:
        ModelRefused: the cells are of different types.
    """
    if any(name.startswith(PREFIX) for node in model.graph.node for name in node.output):
        raise ModelRefused(f"the graph uses names that begin with '{PREFIX}', which are taken")
    dtype = _state_type(nodes, facts)
    layers = tuple(node.cell for node in nodes)
    kept = [
        (i, k, np.asarray(row, dtype))
        for i, (pace, rows) in enumerate(zip(facts.paces, facts.initial, strict=True))
        for k, row in enumerate(rows)
        if pace.streams and row is not None
    ]
    state = _columns(
        [
            *((i, layers[i].states[k], row.size) for i, k, row in kept),
            *((None, c.given.name, math.prod(c.given.row)) for c in facts.through),
        ]
    )
    trace = _columns(
        (i, name, layer.hidden_size * pace.rows)
        for i, (layer, pace) in enumerate(zip(layers, facts.paces, strict=True))
        for name in (*layer.states, *(layer.gates if unrolled(nodes[i], pace) else ()))
    )
    zeros = [np.zeros(math.prod(c.given.row), dtype) for c in facts.carried]
    starts = [np.asarray(state.start, dtype).reshape(-1) for state in facts.looped]
    initial = np.concatenate([*(row for _, _, row in kept), *zeros, *starts, np.zeros(0, dtype)])
    graph = _Rewriter(model, nodes, facts, state, dtype).graph()
    rewritten = helper.make_model(graph, opset_imports=model.opset_import, ir_version=max(model.ir_version, 4))
    if not all(map(unrolled, nodes, facts.paces)):
        rewritten = oracle.runnable(rewritten)
    kinds = {c.given.name: c.given.dtype.kind for c in facts.through}
    whole = [columns.layer is None and kinds[columns.name] != "f" for columns in state]
    return StepGraph(
        rewritten,
        layers,
        facts.inputs,
        facts.outputs,
        state,
        trace,
        initial,
        np.repeat(whole, [columns.size for columns in state]).astype(bool),
    )


def unrolled(node: CellNode, pace: Pace) -> bool:
    """Whether a cell is written as its equations; if not, its operator is kept, and its gates cannot be seen.

    A cell that takes many time steps of its own within one step stays as it is, and so does one that is told how many.
    One of 8 bits keeps its operator in any case, and for one step its gates are computed beside it.
    """
    lengths = len(node.node.input) > 4 and bool(node.node.input[4])
    return pace.inner == 1 or (pace.inner <= _UNROLLED and not lengths and not node.cell.rounded)


def _state_type(nodes: Sequence[CellNode], facts: Facts) -> np.dtype:
    """The type of the state matrix: the widest of the states' own.

    Half precision is carried in single, as in a run of onnxruntime, which has no recurrent operator in half.
    """
    types = {label(node.node): node.cell.dtype for node in nodes}
    types |= {f"the state '{carried.given.name}'": carried.given.dtype for carried in facts.through}
    strange = {who: kind for who, kind in types.items() if kind.kind not in "fiub"}
    if strange:
        raise ModelRefused(f"states must be numbers; {', '.join(f'{who} is {kind}' for who, kind in strange.items())}")
    return np.result_type(np.float32, *types.values())


def _columns(runs: Iterable[tuple[int | None, str, int]]) -> tuple[Columns, ...]:
    columns: list[Columns] = []
    offset = 0
    for layer, name, size in runs:
        columns.append(Columns(layer, name, offset, size))
        offset += size
    return tuple(columns)


class _Rewriter:
    """Writes the step graph, node after node."""

    def __init__(
        self,
        model: onnx.ModelProto,
        nodes: Sequence[CellNode],
        facts: Facts,
        state: tuple[Columns, ...],
        dtype: np.dtype,
    ) -> None:
        self._model = model
        self._nodes = nodes
        self._facts = facts
        self._dtype = dtype
        self._g = GraphBuilder(PREFIX, opset(model))
        names = self._g.split(STATE, [columns.size for columns in state]) if state else []
        self._before = {(columns.layer, columns.name): name for columns, name in zip(state, names, strict=True)}
        # tensors that are a cell's output but for axes of length 1, and that output [B, H]
        self._flat: dict[str, str] = {}

    def graph(self) -> onnx.GraphProto:
        """The step graph."""
        g, facts = self._g, self._facts
        for carried in facts.through:
            self._unpack(carried.given)
        for port in facts.starts:
            self._same_for_all(port, 0)
        for port in facts.lengths:
            self._same_for_all(port, 1)
        steps = self._steps()
        kept = [self._row(layer, steps[layer].states[name]) for layer, name in self._before if layer is not None]
        next_state = [*kept, *(self._pack(c.returned) for c in facts.through)]
        traces = [
            self._row(layer, tensor)
            for layer, step in enumerate(steps)
            for part in (step.states, step.gates)
            for tensor in part.values()
        ]
        outputs = [port.name for port in facts.outputs]
        infos = [_output(port) for port in facts.outputs]
        for name, tensors in ((TRACE, traces), (NEXT_STATE, next_state)):
            if tensors:
                g.concat(*tensors, output=name)
                outputs.append(name)
                infos.append(_matrix(name, self._dtype))
        nodes = reachable(g.nodes, outputs)
        inputs = [_input(port) for port in facts.inputs] + ([_matrix(STATE, self._dtype)] if next_state else [])
        return helper.make_graph(nodes, "step", inputs, infos, [*self._model.graph.initializer, *g.constants])

    def _steps(self) -> list[cells.Step]:
        """Copies the nodes around the cells, and writes each cell as its equations."""
        g = self._g
        by_output = {next(o for o in node.node.output if o): layer for layer, node in enumerate(self._nodes)}
        steps: list[cells.Step] = []
        for node in self._model.graph.node:
            layer = by_output.get(next((o for o in node.output if o), ""))
            if layer is not None:
                steps.append(self._step(layer))
                continue
            g.nodes.append(node)
            if node.op_type in ("Squeeze", "Identity") and node.input[0] in self._flat:
                self._flat[node.output[0]] = self._flat[node.input[0]]
        return steps

    def _step(self, layer: int) -> cells.Step:
        node, pace = self._nodes[layer], self._facts.paces[layer]
        if not unrolled(node, pace):
            return self._operator(layer)
        if node.cell.rounded:
            return self._rounded(layer)
        narrow, wide = node.cell.dtype, _wide(node.cell)
        cell = node.cell.in_type(wide)
        moments = [self._cast(x, narrow, wide) for x in self._moments(layer)]
        before = {name: self._state(layer, k, moments[0]) for k, name in enumerate(cell.states)}
        hidden = []
        for x_BI in moments:
            step = cells.step(self._g, cell, x_BI, before)
            before = dict(step.states)
            hidden.append(self._cast(before["hidden"], wide, narrow))
        _shape_outputs(self._g, node, hidden, {name: self._cast(h, wide, narrow) for name, h in before.items()})
        if node.outputs[0] and len(hidden) == 1:
            self._flat[node.outputs[0]] = hidden[0]
        return step

    def _moments(self, layer: int) -> list[str]:
        """What the cell sees at each time step of its own within the step, [B, I] each; B counts all its rows."""
        g, node, size = self._g, self._nodes[layer], self._nodes[layer].cell.input_size
        inner = self._facts.paces[layer].inner
        if inner == 1:
            return [self._flat.get(node.x) or g.reshape(node.x, (-1, size))]
        picked = [
            g.op("Gather", node.x, g.constant(np.array([k], np.int64)), axis=node.time_axis) for k in range(inner)
        ]
        return [g.reshape(moment, (-1, size)) for moment in picked]

    def _operator(self, layer: int) -> cells.Step:
        """Keeps a cell's operator, with the state before the step fed to it and that after the step taken from it."""
        g, node, pace = self._g, self._nodes[layer], self._facts.paces[layer]
        cell = node.cell
        copy = onnx.NodeProto()
        copy.CopyFrom(node.node)
        copy.input.extend([""] * (_INITIAL + len(cell.states) - len(copy.input)))
        copy.output.extend([""] * (1 + len(cell.states) - len(copy.output)))
        shape = (-1, 1, cell.hidden_size) if node.time_axis else (1, -1, cell.hidden_size)
        for k, name in enumerate(cell.states):
            kept = self._before.get((layer, name))
            if kept:
                copy.input[_INITIAL + k] = self._cast(g.reshape(kept, shape), self._dtype, cell.dtype)
            copy.output[1 + k] = copy.output[1 + k] or g.name(name)
        g.nodes.append(copy)
        ends = dict(zip(cell.states, copy.output[1:], strict=True))
        width = (-1, pace.rows * cell.hidden_size)
        return cells.Step({n: self._cast(g.reshape(t, width), cell.dtype, _wide(cell)) for n, t in ends.items()}, {})

    def _rounded(self, layer: int) -> cells.Step:
        """Keeps the operator of a cell of 8 bits, and computes its gates beside it."""
        cell, (x_BI,) = self._nodes[layer].cell, self._moments(layer)
        before = {name: self._state(layer, k, x_BI) for k, name in enumerate(cell.states)}
        return cells.Step(self._operator(layer).states, cells.rounded_gates(self._g, cell, x_BI, before))

    def _state(self, layer: int, index: int, x_BI: str) -> str:
        """A state before the step, [B, H]: kept by us, carried by the interface, or the same at every step."""
        cell, initial = self._nodes[layer].cell, self._nodes[layer].initial[index]
        kept = self._before.get((layer, cell.states[index]))
        if kept:
            rows = kept if self._facts.paces[layer].rows == 1 else self._g.reshape(kept, (-1, cell.hidden_size))
            return self._cast(rows, self._dtype, _wide(cell))
        row = self._facts.initial[layer][index]
        if row is not None and (len(row) == cell.hidden_size or not row.any()):
            row = row[: cell.hidden_size].astype(_wide(cell))
            return self._g.rows(self._g.constant(row[np.newaxis]), x_BI)
        assert initial is not None  # the interface carries it or the step computes it, so it comes from there
        return self._cast(self._g.reshape(initial, (-1, cell.hidden_size)), cell.dtype, _wide(cell))

    def _row(self, layer: int, tensor: str) -> str:
        """A state or gate of a cell as columns, one row for each sequence."""
        cell, pace = self._nodes[layer].cell, self._facts.paces[layer]
        rows = tensor if pace.rows == 1 else self._g.reshape(tensor, (-1, pace.rows * cell.hidden_size))
        return self._cast(rows, _wide(cell), self._dtype)

    def _cast(self, tensor: str, have: np.dtype, want: np.dtype) -> str:
        if have == want:
            return tensor
        return self._g.free_cast(tensor, want) if have.kind == want.kind == "f" else self._g.cast(tensor, want)

    def _unpack(self, port: Port) -> None:
        """Gives an input of the original that is state the columns that hold it, in its own axes."""
        g, rank = self._g, len(port.row) + 1
        columns = self._cast(self._before[None, port.name], self._dtype, port.dtype)
        if port.batch is None:
            g.reshape(columns, port.row, port.name)
            return
        shaped = g.reshape(columns, (-1, *port.row))
        axes = [*range(1, port.batch + 1), 0, *range(port.batch + 1, rank)]
        g.op_to(port.name, "Transpose", shaped, perm=axes)

    def _pack(self, port: Port) -> str:
        """The columns [B, n] of an output of the original that is state."""
        tensor = port.name
        if port.batch is not None:
            axes = [port.batch, *(i for i in range(len(port.row) + 1) if i != port.batch)]
            tensor = self._g.op("Transpose", tensor, perm=axes)
        return self._cast(self._g.reshape(tensor, (-1, math.prod(port.row))), port.dtype, self._dtype)

    def _same_for_all(self, port: Port, value: int) -> None:
        """Gives an input of the original that nobody is asked for the same value everywhere."""
        g, facts = self._g, self._facts
        row = g.constant(np.full(port.shape(1, 1), value, port.dtype))
        like = next((p for p in facts.inputs if p.batch is not None), None)
        if port.batch is None or like is None or like.batch is None:
            g.op_to(port.name, "Identity", row)
            return
        count = g.op("Gather", g.op("Shape", like.name), g.constant(np.array([like.batch], np.int64)))
        ones = [g.constant(np.array([1], np.int64))] * len(port.shape(1, 1))
        ones[port.batch] = count
        g.op_to(port.name, "Tile", row, g.op("Concat", *ones, axis=0) if len(ones) > 1 else count)


def _wide(cell: cells.Cell) -> np.dtype:
    """The type that a cell is computed in: as onnxruntime has it, single precision for half."""
    return np.result_type(np.float32, cell.dtype)


def _shape_outputs(g: GraphBuilder, node: CellNode, hidden: Sequence[str], states: Mapping[str, str]) -> None:
    """Gives the hidden states of each time step, and the states after the last, the names and shapes of the outputs."""
    size = node.cell.hidden_size
    y, *last = node.outputs
    batch_first = node.time_axis == 1
    shape = (-1, 1, 1, size) if batch_first else (1, 1, -1, size)  # [B, T, D, H] or [T, D, B, H], of one direction
    if y and len(hidden) == 1:
        g.reshape(hidden[0], shape, y)
    elif y:
        g.op_to(y, "Concat", *(g.reshape(h, shape) for h in hidden), axis=node.time_axis)
    for name, output in zip(node.cell.states, last, strict=True):
        if output:  # [D, B, H] or [B, D, H]
            g.reshape(states[name], (-1, 1, size) if batch_first else (1, -1, size), output)


def _input(port: Port) -> onnx.ValueInfoProto:
    """The original input with one step and any batch."""
    shape: list[int | str] = list(port.shape(1, 1))
    if port.batch is not None:
        shape[port.batch] = "batch"
    return helper.make_tensor_value_info(port.name, helper.np_dtype_to_tensor_dtype(port.dtype), shape)


def _output(port: Port) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(port.name, helper.np_dtype_to_tensor_dtype(port.dtype), None)


def _matrix(name: str, dtype: np.dtype) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), ["batch", None])
