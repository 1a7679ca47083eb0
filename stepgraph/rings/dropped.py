"""How many rows at the beginning of a sequence a file drops: so many steps have no answer."""

from collections.abc import Callable, Sequence
from functools import partial

from stepgraph.cells.operators import CellNode
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.sliding import SHORTENING
from stepgraph.rewriting.ports import Facts
from stepgraph.rings import forms
from stepgraph.rules import reader
from stepgraph.rules.axes import time_of
from stepgraph.rules.reader import Reader


def lead(graph: Graph, cells: Sequence[CellNode]) -> Callable[[Facts], int] | None:
    """What tells from a graph's inputs after how many steps every cell and output has begun; None if nothing drops."""
    if any(node.op_type in SHORTENING for node in graph.nodes):
        return partial(_lead, graph, cells)
    return None


def _lead(graph: Graph, cells: Sequence[CellNode], facts: Facts) -> int:
    seen = [*(cell.x for cell in cells), *(info.name for info in graph.model.graph.output)]
    readings = (forms.values(graph, facts), Reader(graph).values(reader.begin(facts)))
    found = [values[name] for values in readings for name in seen if name in values]
    times = (time_of(value.axes) for value in found if not value.finding)
    return max((-(time.extra // time.rate) for time in times if time and time.extra < 0), default=0)
