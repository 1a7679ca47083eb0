"""Rewrites a model to take one step of B sequences. Pure onnx.

Everything around the cells stays as it is and runs with a time axis of length 1. Each recurrent operator is replaced by
its equations (`cells`), so that its gates can be read.
Uses no onnxruntime; `Facts` give what the file does not say.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from stepgraph.cells.cell import Cell, Step
from stepgraph.cells.kinds import KINDS
from stepgraph.cells.operators import CellNode
from stepgraph.errors import ModelRefused
from stepgraph.graphs import weights
from stepgraph.graphs.builder import GraphBuilder
from stepgraph.graphs.nodes import copied, drop_unused, opset, reachable
from stepgraph.rewriting import generator, infos, precision, runnable, unanswered, windows
from stepgraph.rewriting.layout import NamedCell, layout, unrolled
from stepgraph.rewriting.ports import Facts, Port
from stepgraph.rewriting.stepgraph import BEGUN, COUNT, DRAWS, NEXT_STATE, PREFIX, SEED, STATE, TRACE, StepGraph


def rewrite(
    model: onnx.ModelProto, nodes: Sequence[CellNode], facts: Facts, named: Sequence[NamedCell] = ()
) -> StepGraph:
    """Makes the step graph of `model`, whose recurrent operators are `nodes`; `named` are cells without an operator."""
    if any(name.startswith(PREFIX) for node in model.graph.node for name in node.output):
        raise ModelRefused(f"the graph uses names that begin with '{PREFIX}', which are taken")
    laid = layout(nodes, facts, named)
    kept = list[np.ndarray]()
    g = precision.builder(model, kept, facts.weights)
    graph = _Rewriter(model, nodes, facts, laid, named, g).graph()
    precision.narrow(graph, g)
    unanswered.write_lead(graph, opset(model), laid, facts)
    if facts.window:
        windows.write(graph, opset(model), laid, facts.window, keep=(SEED, DRAWS))
    if facts.drawn:
        generator.write(graph, opset(model), laid, facts)
    rewritten = helper.make_model(graph, opset_imports=model.opset_import, ir_version=max(model.ir_version, 4))
    if not all(map(unrolled, nodes, facts.paces)):
        rewritten = runnable.runnable(rewritten)
    drop_unused(rewritten.graph)
    taken = weights.take(rewritten.graph)
    return replace(laid, model=copied(rewritten) if taken else rewritten, weights=weights.of(rewritten))


class _Rewriter:
    """Writes the step graph, node after node."""

    def __init__(
        self,
        model: onnx.ModelProto,
        nodes: Sequence[CellNode],
        facts: Facts,
        laid: StepGraph,
        named: Sequence[NamedCell],
        g: GraphBuilder,
    ) -> None:
        self._model = model
        self._nodes = nodes
        self._named = named
        self._cells = laid.layers
        self._facts = facts
        self._dtype = laid.dtype
        self._g = g
        names = self._g.split(STATE, [columns.size for columns in laid.state]) if laid.state else []
        self._before = {(columns.layer, columns.name): name for columns, name in zip(laid.state, names, strict=True)}
        # tensors that are a cell's output but for axes of length 1, and that output [B, H]
        self._flat: dict[str, str] = {}

    def graph(self) -> onnx.GraphProto:
        g, facts = self._g, self._facts
        for carried in facts.through:
            self._unpack(carried.given)
        for port in facts.starts:
            self._same_for_all(port, port.fresh(1))
        for port in facts.lengths:
            self._same_for_all(port, np.ones(port.shape(1, 1), port.dtype))
        steps = self._steps()
        kept = [self._row(layer, name, steps[layer].states[name]) for layer, name in self._before if layer is not None]
        followed = {
            named.states[name].given.name: self._row(layer, name, steps[layer].states[name])
            for layer, named in enumerate(self._named, len(self._nodes))
            for name in named.states
        }
        next_state = [*kept, *(followed.get(c.given.name) or self._pack(c.returned) for c in facts.through)]
        next_state += [self._own(name) for name in (BEGUN, COUNT, SEED, DRAWS) if (None, name) in self._before]
        traces = [
            self._row(layer, name, {**step.states, **step.gates}[name])
            for layer, step in enumerate(steps)
            for name in (*self._cells[layer].traced, *step.gates)
        ]
        outputs = [port.name for port in facts.outputs]
        ends = [infos.of_output(port) for port in facts.outputs]
        for name, tensors in ((TRACE, traces), (NEXT_STATE, next_state)):
            if tensors:
                g.concat(*tensors, output=name)
                outputs.append(name)
                ends.append(infos.matrix(name, self._dtype))
        nodes = reachable(g.nodes, outputs)
        inputs = [infos.of_input(port) for port in facts.inputs] + (
            [infos.matrix(STATE, self._dtype)] if next_state else []
        )
        return helper.make_graph(nodes, "step", inputs, ends, [*self._model.graph.initializer, *g.constants])

    def _own(self, name: str) -> str:
        """A column of the next state that no tensor of the file holds."""
        if name == SEED:
            return self._before[None, SEED]
        if name == DRAWS:
            return generator.next_draws(self._g, self._before[None, DRAWS], self._dtype)
        if name == COUNT:
            return windows.counted(self._g, self._before[None, COUNT], self._dtype)
        return self._g.rows(self._g.constant(np.ones((1, 1), self._dtype)), STATE)

    def _steps(self) -> list[Step]:
        """Copies the nodes around the cells, and writes each cell as its equations."""
        g = self._g
        by_output = {next(o for o in node.node.output if o): layer for layer, node in enumerate(self._nodes)}
        steps: list[Step] = []
        for node in self._model.graph.node:
            layer = by_output.get(next((o for o in node.output if o), ""))
            if layer is not None:
                steps.append(self._step(layer))
                continue
            g.nodes.append(node)
            if node.op_type in ("Squeeze", "Identity") and node.input[0] in self._flat:
                self._flat[node.output[0]] = self._flat[node.input[0]]
        return [*steps, *map(self._follow, self._named)]

    def _follow(self, named: NamedCell) -> Step:
        """One step of a cell by its gates, which the file computes, and the states before."""
        g, narrow, wide = self._g, named.cell.dtype, _wide(named.cell)
        cell, kind = named.cell.in_type(wide), KINDS[named.cell.kind]
        gates = {
            gate: self._cast(g.reshape(tensor, (-1, cell.hidden_size)), narrow, wide)
            for gate, tensor in named.gates.items()
        }
        before = {
            name: self._cast(self._before[None, state.given.name], self._dtype, wide)
            for name, state in named.states.items()
        }
        followed = kind.follow(g, cell, gates, before) if kind.follow else {}
        returned = {name: each.returned for name, each in named.states.items() if name not in followed}
        rest = {name: self._pack(port, wide) for name, port in returned.items()}
        return Step({**followed, **rest}, gates)

    def _step(self, layer: int) -> Step:
        node, pace = self._nodes[layer], self._facts.paces[layer]
        if not unrolled(node, pace):
            return self._operator(layer)
        if node.operator.kept:
            return self._beside(layer)
        assert node.operator.step is not None
        narrow, wide = node.cell.dtype, _wide(node.cell)
        cell = node.cell.in_type(wide)
        moments = [self._cast(x, narrow, wide) for x in self._moments(layer)]
        before = {name: self._state(layer, k, moments[0]) for k, name in enumerate(cell.states)}
        hidden = []
        for x_BI in moments:
            step = node.operator.step(self._g, cell, x_BI, before)
            before = dict(step.states)
            hidden.append(self._cast(before["hidden"], wide, narrow))
        _shape_outputs(self._g, node, hidden, {name: self._cast(h, wide, narrow) for name, h in before.items()})
        if node.outputs[0] and len(hidden) == 1:
            self._flat[node.outputs[0]] = hidden[0]
        return step

    def _moments(self, layer: int) -> list[str]:
        """The cell's input at each of its own time steps within the step, [B, I] each; B counts all its rows."""
        g, node, size = self._g, self._nodes[layer], self._nodes[layer].cell.input_size
        inner = self._facts.paces[layer].inner
        assert size is not None  # an operator's
        if inner == 1:
            return [self._flat.get(node.x) or g.reshape(node.x, (-1, size))]
        picked = [g.op("Gather", node.x, g.constant([k], np.int64), axis=node.time_axis) for k in range(inner)]
        return [g.reshape(moment, (-1, size)) for moment in picked]

    def _operator(self, layer: int) -> Step:
        g, node, pace = self._g, self._nodes[layer], self._facts.paces[layer]
        cell, copy = node.cell, copied(node.node)
        ends = {}
        operator = node.operator
        for k, (name, start, end) in enumerate(zip(cell.states, operator.initial, operator.outputs[1:], strict=True)):
            kept = self._kept(layer, k)
            if kept:
                node.operator.take(
                    copy, start, self._cast(g.reshape(kept, node.state_shape(name)), self._dtype, cell.dtype)
                )
            ends[name] = node.operator.made(copy, end) or g.name(name)
            node.operator.make(copy, end, ends[name])
        g.nodes.append(copy)
        rows = {name: g.reshape(end, (-1, pace.rows * cell.width(name))) for name, end in ends.items()}
        return Step({name: self._cast(row, cell.dtype, _wide(cell)) for name, row in rows.items()}, {})

    def _beside(self, layer: int) -> Step:
        """Keeps a cell's operator, and computes its gates beside it."""
        node, after = self._nodes[layer], self._operator(layer).states
        if node.operator.step is None:
            gates = node.operator.gates
            return Step(after, gates(self._g, node.node, node.cell, after) if gates else {})
        (x_BI,) = self._moments(layer)
        before = {name: self._state(layer, k, x_BI) for k, name in enumerate(node.cell.states)}
        return Step(after, node.operator.step(self._g, node.cell, x_BI, before).gates)

    def _state(self, layer: int, index: int, x_BI: str) -> str:
        """A state before the step, [B, H]: kept by us, carried by the interface, or the same at every step."""
        cell, initial = self._nodes[layer].cell, self._nodes[layer].initial[index]
        kept = self._kept(layer, index)
        if kept:
            rows = kept if self._facts.paces[layer].rows == 1 else self._g.reshape(kept, (-1, cell.hidden_size))
            return self._cast(rows, self._dtype, _wide(cell))
        row = self._facts.initial[layer][index]
        if row is not None and (len(row) == cell.hidden_size or not row.any()):
            row = row[: cell.hidden_size].astype(_wide(cell))
            return self._g.rows(self._g.constant(row[np.newaxis]), x_BI)
        assert initial is not None  # the interface carries it or the step computes it, so it comes from there
        return self._cast(self._g.reshape(initial, (-1, cell.hidden_size)), cell.dtype, _wide(cell))

    def _kept(self, layer: int, index: int) -> str | None:
        """A state that is kept by us, [B, n]; in the first step of a sequence what that computes, if it does."""
        g, node, pace = self._g, self._nodes[layer], self._facts.paces[layer]
        name, initial = node.cell.states[index], node.initial[index]
        kept = self._before.get((layer, name))
        if kept is None or initial is None or index not in pace.computed:
            return kept
        first = self._cast(g.reshape(initial, (-1, pace.rows * node.cell.width(name))), node.cell.dtype, self._dtype)
        begun = self._before[None, BEGUN]
        beginning = g.op("Sub", g.constant(np.ones(1, self._dtype)), begun)
        return g.op("Add", g.op("Mul", begun, kept), g.op("Mul", beginning, first))

    def _row(self, layer: int, name: str, tensor: str) -> str:
        cell, pace = self._cells[layer], self._facts.paces[layer]
        rows = tensor if pace.rows == 1 else self._g.reshape(tensor, (-1, pace.rows * cell.width(name)))
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

    def _pack(self, port: Port, dtype: np.dtype | None = None) -> str:
        """The columns [B, n] of an output of the original that is state, in the state's type or another."""
        tensor = port.name
        if port.batch is not None:
            axes = [port.batch, *(i for i in range(len(port.row) + 1) if i != port.batch)]
            tensor = self._g.op("Transpose", tensor, perm=axes)
        return self._cast(self._g.reshape(tensor, (-1, math.prod(port.row))), port.dtype, dtype or self._dtype)

    def _same_for_all(self, port: Port, value: np.ndarray) -> None:
        """Gives an input of the original that clients do not send the same value for each sequence."""
        g, facts = self._g, self._facts
        row = g.constant(value)
        like = next((p for p in facts.inputs if p.batch is not None), None)
        if port.batch is None or like is None or like.batch is None:
            g.op_to(port.name, "Identity", row)
            return
        count = g.op("Gather", g.op("Shape", like.name), g.constant([like.batch], np.int64))
        ones = [g.constant([1], np.int64)] * len(port.shape(1, 1))
        ones[port.batch] = count
        g.op_to(port.name, "Tile", row, g.op("Concat", *ones, axis=0) if len(ones) > 1 else count)


def _wide(cell: Cell) -> np.dtype:
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
