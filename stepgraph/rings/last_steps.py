"""Which cells run over the last steps of a sequence within one step: a window that begins anew at each step."""

from collections.abc import Sequence

from stepgraph.cells.operators import CellNode
from stepgraph.graphs.graph import Graph
from stepgraph.rewriting.ports import Facts
from stepgraph.rules import reader
from stepgraph.rules.reader import Reader


def may_be_cut(graph: Graph, cells: Sequence[CellNode]) -> bool:
    """Whether what a cell runs over is cut before: only then it can be a window of the last steps."""
    return any(
        graph.makers[name].op_type == "Slice" for name in graph.made_of(*(c.x for c in cells)) & graph.makers.keys()
    )


def over_windows(graph: Graph, cells: Sequence[CellNode], facts: Facts) -> list[CellNode]:
    values = Reader(graph).values(reader.begin(facts))
    return [cell for cell in cells if (x := values[cell.x]).last and not x.timed and not x.finding]
