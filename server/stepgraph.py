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

from server import cells
from server.errors import ModelRefused
from server.graph import GraphBuilder, reachable
from server.probe import Facts, Port
from server.recurrence import CellNode, label

PREFIX = "tidegate/"
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

    @property
    def dtype(self) -> np.dtype:
        """The type of state and trace."""
        return self.initial.dtype


def rewrite(model: onnx.ModelProto, nodes: Sequence[CellNode], facts: Facts) -> StepGraph:
    """Makes the step graph of `model`, whose recurrent operators are `nodes`.

    Raises:
        ModelRefused: the cells are of different types.
    """
    if any(name.startswith(PREFIX) for node in model.graph.node for name in node.output):
        raise ModelRefused(f"the graph uses names that begin with '{PREFIX}', which are taken")
    dtype = _state_type(nodes, facts)
    layers = tuple(node.cell for node in nodes)
    kept = (
        []
        if facts.one_step
        else [
            (i, k)
            for i, rows in enumerate(facts.initial)
            for k, row in enumerate(rows)
            if row is not None and i not in facts.anew
        ]
    )
    state = _columns(
        [
            *((i, layers[i].states[k], layers[i].hidden_size) for i, k in kept),
            *((None, c.given.name, math.prod(c.given.row)) for c in facts.through),
        ]
    )
    trace = _columns(
        (i, name, layer.hidden_size) for i, layer in enumerate(layers) for name in (*layer.states, *layer.gates)
    )
    zeros = [np.zeros(math.prod(c.given.row), dtype) for c in facts.carried]
    starts = [np.asarray(state.start, dtype).reshape(-1) for state in facts.looped]
    rows = [np.asarray(facts.initial[i][k], dtype) for i, k in kept]
    initial = np.concatenate([*rows, *zeros, *starts, np.zeros(0, dtype)])
    graph = _Rewriter(model, nodes, facts, state, dtype).graph()
    rewritten = helper.make_model(graph, opset_imports=model.opset_import, ir_version=max(model.ir_version, 4))
    return StepGraph(rewritten, layers, facts.inputs, facts.outputs, state, trace, initial)


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
        self._g = GraphBuilder(PREFIX, _opset(model))
        names = self._g.split(STATE, [columns.size for columns in state]) if state else []
        self._before = {(columns.layer, columns.name): name for columns, name in zip(state, names, strict=True)}
        # tensors that are a cell's output but for axes of length 1, and that output [B, H]
        self._flat: dict[str, str] = {}

    def graph(self) -> onnx.GraphProto:
        """The step graph."""
        g, facts = self._g, self._facts
        for carried in facts.through:
            self._unpack(carried.given)
        for value, ports in ((0, facts.starts), (1, facts.lengths)):
            for port in ports:
                self._fill(port, value)
        steps = self._steps()
        kept = [
            self._cast(steps[layer].states[name], _wide(self._nodes[layer].cell), self._dtype)
            for layer, name in self._before
            if layer is not None
        ]
        next_state = [*kept, *(self._pack(c.returned) for c in facts.through)]
        traces = [
            self._cast(tensor, _wide(node.cell), self._dtype)
            for node, step in zip(self._nodes, steps, strict=True)
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
        node = self._nodes[layer]
        narrow, wide = node.cell.dtype, _wide(node.cell)
        x_BI = self._flat.get(node.x) or self._g.reshape(node.x, (-1, node.cell.input_size))
        x_BI = self._cast(x_BI, narrow, wide)
        before = {name: self._state(layer, k, x_BI) for k, name in enumerate(node.cell.states)}
        step = cells.step(self._g, node.cell.in_type(wide), x_BI, before)
        after = {name: self._cast(tensor, wide, narrow) for name, tensor in step.states.items()}
        _shape_outputs(self._g, node, after)
        if node.outputs[0]:
            self._flat[node.outputs[0]] = after["hidden"]
        return step

    def _state(self, layer: int, index: int, x_BI: str) -> str:
        """A state before the step, [B, H]: kept by us, carried by the interface, or the same at every step."""
        cell = self._nodes[layer].cell
        kept = self._before.get((layer, cell.states[index]))
        if kept:
            return self._cast(kept, self._dtype, _wide(cell))
        row, initial = self._facts.initial[layer][index], self._nodes[layer].initial[index]
        if row is not None:
            return self._g.rows(self._g.constant(row[np.newaxis].astype(_wide(cell))), x_BI)
        assert initial is not None  # the interface carries it, so it comes from there
        return self._cast(self._g.reshape(initial, (-1, cell.hidden_size)), cell.dtype, _wide(cell))

    def _cast(self, tensor: str, have: np.dtype, want: np.dtype) -> str:
        if have == want:
            return tensor
        return self._g.free_cast(tensor, want) if have.kind == want.kind == "f" else self._g.cast(tensor, want)

    def _unpack(self, port: Port) -> None:
        """Gives an input of the original that is state the columns that hold it, in its own axes."""
        g, rank = self._g, len(port.row) + 1
        columns = self._cast(self._before[None, port.name], self._dtype, port.dtype)
        shaped = g.reshape(columns, (-1, *port.row))
        axes = [*range(1, port.batch + 1), 0, *range(port.batch + 1, rank)]
        g.op_to(port.name, "Transpose", shaped, perm=axes)

    def _fill(self, port: Port, value: int) -> None:
        """Gives an input of the original that nobody is asked for the same value everywhere, for whoever reads it."""
        g, like = self._g, self._facts.inputs[0]
        repeats = [g.constant(np.array([1], np.int64)) for _ in port.shape(1, 1)]
        repeats[port.batch] = g.op("Gather", g.op("Shape", like.name), g.constant(np.array([like.batch], np.int64)))
        one = g.constant(np.full(port.shape(1, 1), value, port.dtype))
        g.op_to(port.name, "Tile", one, g.op("Concat", *repeats, axis=0))

    def _pack(self, port: Port) -> str:
        """The columns [B, n] of an output of the original that is state."""
        axes = [port.batch, *(i for i in range(len(port.row) + 1) if i != port.batch)]
        flat = self._g.reshape(self._g.op("Transpose", port.name, perm=axes), (-1, math.prod(port.row)))
        return self._cast(flat, port.dtype, self._dtype)


def _wide(cell: cells.Cell) -> np.dtype:
    """The type that a cell is computed in: as onnxruntime has it, single precision for half."""
    return np.result_type(np.float32, cell.dtype)


def _shape_outputs(g: GraphBuilder, node: CellNode, states: Mapping[str, str]) -> None:
    """Gives the states after the step the names and shapes of the operator's outputs."""
    size = node.cell.hidden_size
    y, *last = node.outputs
    batch_first = node.time_axis == 1
    if y:  # [T, D, B, H] or [B, T, D, H], with one step and one direction
        g.reshape(states["hidden"], (-1, 1, 1, size) if batch_first else (1, 1, -1, size), y)
    for name, output in zip(node.cell.states, last, strict=True):
        if output:  # [D, B, H] or [B, D, H]
            g.reshape(states[name], (-1, 1, size) if batch_first else (1, -1, size), output)


def _opset(model: onnx.ModelProto) -> int:
    return next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))


def _input(port: Port) -> onnx.ValueInfoProto:
    """The original input with one step and any batch."""
    shape: list[int | str] = list(port.shape(0, 1))
    shape[port.batch] = "batch"
    return helper.make_tensor_value_info(port.name, helper.np_dtype_to_tensor_dtype(port.dtype), shape)


def _output(port: Port) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(port.name, helper.np_dtype_to_tensor_dtype(port.dtype), None)


def _matrix(name: str, dtype: np.dtype) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), ["batch", None])
