"""How the states of a model lie in one row [W], and its traces in another [V]. Writes no graph."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from stepgraph.cells import operators
from stepgraph.cells.cell import Cell
from stepgraph.cells.operators import CellNode
from stepgraph.errors import ModelRefused
from stepgraph.graphs.labels import label
from stepgraph.rewriting import generator
from stepgraph.rewriting.columns import Columns
from stepgraph.rewriting.ports import Carried, Facts, Pace, Port
from stepgraph.rewriting.stepgraph import ANSWERED, BEGUN, COUNT, DRAWS, SEED, StepGraph

_UNROLLED = 16  # time steps within one step that are written one after the other


@dataclass(frozen=True, eq=False)
class NamedCell:
    """A cell that the file writes with plain operators, and names.

    `gates` are the tensors of one step that hold its gates, `states` the states of the interface or of a loop.
    """

    cell: Cell
    gates: Mapping[str, str]
    states: Mapping[str, Carried]


def layout(nodes: Sequence[CellNode], facts: Facts, named: Sequence[NamedCell] = ()) -> StepGraph:
    """The step graph before it is written: its columns, and the state row [W] that a new sequence starts from.

    The states of cells come first, then those of the interface and of loops.
    """
    dtype = _state_type(nodes, facts)
    layers: list[CellNode | NamedCell] = [*nodes, *named]
    kept = [
        (i, nodes[i].cell.states[k], np.asarray(row, dtype))
        for i, (pace, rows) in enumerate(zip(facts.paces, facts.initial, strict=True))
        for k, row in enumerate(rows)
        if pace.streams and row is not None
    ]
    through = [(carried.given, math.prod(carried.given.row)) for carried in facts.through]
    begun = [(None, BEGUN, 1)] if any(pace.computed for pace in facts.paces) else []
    begun += [(None, COUNT, 1)] if facts.window else []
    begun += [(None, SEED, generator.SEED_SIZE), (None, DRAWS, generator.DRAWS_SIZE)] if facts.drawn else []
    own = sum(size for *_, size in begun)
    state = _columns(
        [*((i, name, row.size) for i, name, row in kept), *((None, p.name, n) for p, n in through), *begun]
    )
    trace = _columns(
        (i, name, node.cell.width(name) * pace.rows)
        for i, (node, pace) in enumerate(zip(layers, facts.paces, strict=True))
        for name in (*node.cell.traced, *(node.cell.gates if unrolled(node, pace) else ()))
    )
    first = [np.asarray(carried.given.begun, dtype).reshape(-1) for carried in facts.carried]
    starts = [np.asarray(state.start, dtype).reshape(-1) for state in (*facts.looped, *facts.rings)]
    initial = np.concatenate([*(row for _, _, row in kept), *first, *starts, np.zeros(own, dtype)])
    whole = [*(np.zeros(row.size, bool) for _, _, row in kept), *(np.full(n, p.dtype.kind != "f") for p, n in through)]
    cells = tuple(layer.cell for layer in layers)
    silent = facts.lead or (facts.window and facts.window.last)
    return StepGraph(
        onnx.ModelProto(),
        cells,
        facts.inputs,
        (*facts.outputs, *([Port(ANSWERED, np.dtype(bool), (), 0, None)] if silent else [])),
        state,
        trace,
        initial,
        np.concatenate([*whole, np.ones(own, bool)]),
    )


def unrolled(node: CellNode | NamedCell, pace: Pace) -> bool:
    """Whether a cell is written as its equations; if not, its operator is kept, and its gates cannot be seen.

    A cell that takes many time steps of its own within one step stays as it is, and so does one whose number of steps
    is an input. One of 8 bits keeps its operator in any case, and for one step its gates are computed beside it.
    """
    if isinstance(node, NamedCell):
        return True
    kept = operators.lengths(node.node) or node.operator.kept
    return pace.inner == 1 or (pace.inner <= _UNROLLED and not kept)


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
