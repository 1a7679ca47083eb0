"""The graph that one step is cut from: the file's, or a copy with one iteration of each loop in its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from stepgraph.cells import operators
from stepgraph.cells.operators import CellNode
from stepgraph.graphs.graph import Graph
from stepgraph.reading import branches, interface, loops
from stepgraph.reading.interface import Interface
from stepgraph.reading.iterations import Iteration
from stepgraph.rewriting.layout import NamedCell
from stepgraph.rewriting.ports import Facts, Pace


@dataclass(frozen=True, eq=False)
class Source:
    """The graph that one step is cut from, its cells, and its facts."""

    model: onnx.ModelProto
    cells: Sequence[CellNode]
    facts: Facts
    named: Sequence[NamedCell] = ()  # layers after those of `cells`


def source(whole: Source, known: Interface, learnt: Sequence[Iteration]) -> Source:
    if learnt:
        return _without_loops(whole, known, learnt)
    return replace(whole, facts=replace(whole.facts, holds=_holds(known, whole.cells)))


def _without_loops(whole: Source, known: Interface, learnt: Sequence[Iteration]) -> Source:
    """The graph with one iteration of each loop in its place."""
    model, facts = whole.model, whole.facts
    stepped = branches.resolve(
        loops.stepped(model, loops.find(model), {it.loop.name: [s is not None for s in it.states] for it in learnt})
    )
    states = [state for it in learnt for state in it.states if state is not None]
    ends = {state.carried.given.name: state.carried.returned.name for state in states}
    graph = Graph(stepped)
    found = operators.find(graph)
    of_step = interface.find(graph, found, {**dict(known.states), **ends})
    begins = _beginnings(whole, found)
    return Source(
        stepped,
        found,
        replace(
            facts,
            initial=tuple(initial for initial, _ in begins),
            paces=tuple(pace for _, pace in begins),
            looped=tuple(states),
            holds=_holds(of_step, found),
        ),
    )


def _beginnings(whole: Source, found: Sequence[CellNode]) -> list[tuple[tuple[np.ndarray | None, ...], Pace]]:
    """The initial states of each cell and its pace; a cell inside a loop begins anew in each step."""
    rows = zip(whole.cells, whole.facts.initial, whole.facts.paces, strict=True)
    outside = {tuple(cell.node.output): (initial, pace) for cell, initial, pace in rows}
    return [outside.get(tuple(cell.node.output)) or (_inside(cell), Pace(streams=False)) for cell in found]


def _inside(node: CellNode) -> tuple[np.ndarray | None, ...]:
    cell, starts = node.cell, zip(node.initial, node.cell.states, strict=True)
    return tuple(None if initial else np.zeros(cell.width(name), cell.dtype) for initial, name in starts)


def _holds(known: Interface, cells: Sequence[CellNode]) -> Mapping[str, frozenset[tuple[int, int]]]:
    given = {name for name, _ in known.states}
    return {
        name: frozenset((i, k) for i, k in of if i < len(cells)) for name, of in known.holds.items() if name in given
    }
