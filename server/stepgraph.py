"""Rewrites a model to take one step of B sequences: (x, state) to (y, new state, trace). Pure onnx.

Everything around the cells stays as it is and runs with a time axis of length 1. Each recurrent operator is replaced by
its equations (`cells`), so that its gates can be read. The states of all layers travel as one matrix [B, W], so do the
traces [B, V]: one gather, one scatter and one copy for a batch, however many layers there are.
Knows no onnxruntime; what the file does not say it is told as `Facts`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from server import cells
from server.errors import ModelRefused
from server.graph import GraphBuilder
from server.probe import Facts, Port
from server.recurrence import CellNode, label

PREFIX = "tidegate/"
STATE, NEXT_STATE, TRACE = f"{PREFIX}state", f"{PREFIX}next_state", f"{PREFIX}trace"


@dataclass(frozen=True)
class Columns:
    """A run of columns of the state or the trace: `name` ("hidden", "cell" or a gate) of layer `layer`."""

    layer: int
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
    for cell in nodes:
        if cell.cell.dtype != nodes[0].cell.dtype:
            raise ModelRefused(f"{label(cell.node)} is {cell.cell.dtype}, another cell {nodes[0].cell.dtype}")
    layers = tuple(node.cell for node in nodes)
    state = _columns((i, name, layer.hidden_size) for i, layer in enumerate(layers) for name in layer.states)
    trace = _columns(
        (i, name, layer.hidden_size) for i, layer in enumerate(layers) for name in (*layer.states, *layer.gates)
    )
    initial = np.concatenate([row for rows in facts.initial for row in rows])
    graph = _graph(model, nodes, facts, state)
    rewritten = helper.make_model(graph, opset_imports=model.opset_import, ir_version=max(model.ir_version, 4))
    return StepGraph(rewritten, layers, facts.inputs, facts.outputs, state, trace, initial)


def _columns(runs: Iterable[tuple[int, str, int]]) -> tuple[Columns, ...]:
    columns: list[Columns] = []
    offset = 0
    for layer, name, size in runs:
        columns.append(Columns(layer, name, offset, size))
        offset += size
    return tuple(columns)


def _graph(
    model: onnx.ModelProto, nodes: Sequence[CellNode], facts: Facts, state: tuple[Columns, ...]
) -> onnx.GraphProto:
    g = GraphBuilder(PREFIX, _opset(model))
    carried = dict(zip(state, g.split(STATE, [columns.size for columns in state]), strict=True))
    by_output = {node.node.output[0] or node.node.output[1]: layer for layer, node in enumerate(nodes)}
    steps: list[cells.Step] = []
    flat: dict[str, str] = {}  # tensors that are a cell's output but for axes of length 1, and that output [B, H]
    for node in model.graph.node:
        layer = by_output.get(next((o for o in node.output if o), ""))
        if layer is None:
            g.nodes.append(node)
            if node.op_type in ("Squeeze", "Identity") and node.input[0] in flat:
                flat[node.output[0]] = flat[node.input[0]]
            continue
        cell = nodes[layer]
        before = {columns.name: tensor for columns, tensor in carried.items() if columns.layer == layer}
        x_BI = flat.get(cell.x) or g.reshape(cell.x, (-1, cell.cell.input_size))
        steps.append(_replace(g, cell, x_BI, before))
        flat[cell.outputs[0]] = steps[-1].states["hidden"]
    g.concat(*(tensor for step in steps for tensor in step.states.values()), output=NEXT_STATE)
    g.concat(
        *(tensor for step in steps for part in (step.states, step.gates) for tensor in part.values()), output=TRACE
    )
    return helper.make_graph(
        _reachable(g.nodes, [*(port.name for port in facts.outputs), NEXT_STATE, TRACE]),
        "step",
        [_input(port) for port in facts.inputs] + [_matrix(STATE, nodes[0].cell.dtype)],
        [_output(port) for port in facts.outputs] + [_matrix(n, nodes[0].cell.dtype) for n in (NEXT_STATE, TRACE)],
        [*model.graph.initializer, *g.constants],
    )


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


def _reachable(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes that the outputs need: what computed the initial states is needed no more."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            needed.update(name for name in _outer_names(node))
            kept.append(node)
    return kept[::-1]


def _outer_names(node: onnx.NodeProto) -> set[str]:
    """Names that the subgraphs of a node may take from around it."""
    graphs = [a.g for a in node.attribute if a.HasField("g")] + [g for a in node.attribute for g in a.graphs]
    inner = [n for graph in graphs for n in graph.node]
    names = {name for n in inner for name in (*n.input, *_outer_names(n))}
    return names | {output.name for graph in graphs for output in graph.output}


def _input(port: Port) -> onnx.ValueInfoProto:
    """The original input with one step and any batch."""
    shape: list[int | str] = list(port.shape(0, 1))
    shape[port.batch] = "batch"
    return helper.make_tensor_value_info(port.name, helper.np_dtype_to_tensor_dtype(port.dtype), shape)


def _output(port: Port) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(port.name, helper.np_dtype_to_tensor_dtype(port.dtype), None)


def _matrix(name: str, dtype: np.dtype) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), ["batch", None])
