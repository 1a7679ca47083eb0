"""Rewrites a model to take one step of B sequences: (x, state) to (y, new state, trace). Pure onnx.

Everything around the cells stays as it is and runs with a time axis of length 1. Each recurrent operator is replaced by
its equations (`cells`), so that its gates can be read. The states of all layers travel as one matrix [B, W], so do the
traces [B, V]: one gather, one scatter and one copy for a batch, however many layers there are.
Knows no onnxruntime; what the file does not say it is told as `Facts`.
"""

import math
from collections.abc import Iterable, Sequence
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
        else [(i, k) for i, rows in enumerate(facts.initial) for k, row in enumerate(rows) if row is not None]
    )
    state = _columns(
        [
            *((i, layers[i].states[k], layers[i].hidden_size) for i, k in kept),
            *((None, c.given.name, math.prod(c.given.row)) for c in facts.carried),
        ]
    )
    trace = _columns(
        (i, name, layer.hidden_size) for i, layer in enumerate(layers) for name in (*layer.states, *layer.gates)
    )
    zeros = [np.zeros(math.prod(c.given.row), dtype) for c in facts.carried]
    initial = np.concatenate([*(facts.initial[i][k] for i, k in kept), *zeros, np.zeros(0, dtype)])
    graph = _Rewriter(model, nodes, facts, state).graph(dtype)
    rewritten = helper.make_model(graph, opset_imports=model.opset_import, ir_version=max(model.ir_version, 4))
    return StepGraph(rewritten, layers, facts.inputs, facts.outputs, state, trace, initial)


def _state_type(nodes: Sequence[CellNode], facts: Facts) -> np.dtype:
    """The one type of all states."""
    types = {label(node.node): node.cell.dtype for node in nodes}
    types |= {f"the state '{carried.given.name}'": carried.given.dtype for carried in facts.carried}
    if len(set(types.values())) > 1:
        raise ModelRefused(
            f"all states must have one type, and there are {', '.join(f'{who}: {kind}' for who, kind in types.items())}"
        )
    return next(iter(types.values()))


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
        self, model: onnx.ModelProto, nodes: Sequence[CellNode], facts: Facts, state: tuple[Columns, ...]
    ) -> None:
        self._model = model
        self._nodes = nodes
        self._facts = facts
        self._g = GraphBuilder(PREFIX, _opset(model))
        names = self._g.split(STATE, [columns.size for columns in state]) if state else []
        self._before = {(columns.layer, columns.name): name for columns, name in zip(state, names, strict=True)}
        # tensors that are a cell's output but for axes of length 1, and that output [B, H]
        self._flat: dict[str, str] = {}

    def graph(self, dtype: np.dtype) -> onnx.GraphProto:
        """The step graph, its states and traces of type `dtype`."""
        g, facts = self._g, self._facts
        for carried in facts.carried:
            self._unpack(carried.given)
        steps = self._steps()
        kept = [steps[layer].states[name] for layer, name in self._before if layer is not None]
        next_state = [*kept, *(self._pack(c.returned) for c in facts.carried)]
        traces = [tensor for step in steps for part in (step.states, step.gates) for tensor in part.values()]
        outputs = [port.name for port in facts.outputs]
        infos = [_output(port) for port in facts.outputs]
        for name, tensors in ((TRACE, traces), (NEXT_STATE, next_state)):
            if tensors:
                g.concat(*tensors, output=name)
                outputs.append(name)
                infos.append(_matrix(name, dtype))
        nodes = reachable(g.nodes, outputs)
        inputs = [_input(port) for port in facts.inputs] + ([_matrix(STATE, dtype)] if next_state else [])
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
        cell = self._nodes[layer]
        size = cell.cell.input_size
        x_BI = self._flat.get(cell.x) or self._g.reshape(cell.x, (-1, size))
        before = {name: self._state(layer, k, x_BI) for k, name in enumerate(cell.cell.states)}
        step = _replace(self._g, cell, x_BI, before)
        if cell.outputs[0]:
            self._flat[cell.outputs[0]] = step.states["hidden"]
        return step

    def _state(self, layer: int, index: int, x_BI: str) -> str:
        """A state before the step, [B, H]: kept by us, carried by the interface, or the same at every step."""
        cell = self._nodes[layer]
        kept = self._before.get((layer, cell.cell.states[index]))
        if kept:
            return kept
        row, initial = self._facts.initial[layer][index], cell.initial[index]
        if row is not None:
            return self._g.rows(self._g.constant(row[np.newaxis]), x_BI)
        assert initial is not None  # the interface carries it, so it comes from there
        return self._g.reshape(initial, (-1, cell.cell.hidden_size))

    def _unpack(self, port: Port) -> None:
        """Gives an input of the original that is state the columns that hold it, in its own axes."""
        g, rank = self._g, len(port.row) + 1
        shaped = g.reshape(self._before[None, port.name], (-1, *port.row))
        axes = [*range(1, port.batch + 1), 0, *range(port.batch + 1, rank)]
        g.op_to(port.name, "Transpose", shaped, perm=axes)

    def _pack(self, port: Port) -> str:
        """The columns [B, n] of an output of the original that is state."""
        axes = [port.batch, *(i for i in range(len(port.row) + 1) if i != port.batch)]
        return self._g.reshape(self._g.op("Transpose", port.name, perm=axes), (-1, math.prod(port.row)))


def _replace(g: GraphBuilder, node: CellNode, x_BI: str, before: dict[str, str]) -> cells.Step:
    """Writes one step of the cell and gives its results the names and shapes of the operator's outputs."""
    cell = node.cell
    step = cells.step(g, cell, x_BI, before)
    y, *last = node.outputs
    batch_first = node.time_axis == 1
    if y:  # [T, D, B, H] or [B, T, D, H], with one step and one direction
        g.reshape(
            step.states["hidden"], (-1, 1, 1, cell.hidden_size) if batch_first else (1, 1, -1, cell.hidden_size), y
        )
    for name, output in zip(cell.states, last, strict=True):
        if output:  # [D, B, H] or [B, D, H]
            g.reshape(
                step.states[name], (-1, 1, cell.hidden_size) if batch_first else (1, -1, cell.hidden_size), output
            )
    return step


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
