"""minLSTM: f = sigmoid(x W_f + b_f), i = sigmoid(x W_i + b_i), n = x W_n + b_n, h' = (f h + i n) / (f + i).

Its gates do not see h. A file may name f and i as they are or divided by their sum. Files write it with plain
operators; it is known by its equation, or named in their metadata. Source: Feng et al. 2024, "Were RNNs All We
Needed?", section 3.2.
"""

from collections.abc import Iterator, Mapping

from stepgraph.cells.cell import Cell, Kind, Known, Tensors
from stepgraph.graphs.builder import GraphBuilder
from stepgraph.graphs.equations import Equations


def _follow(g: GraphBuilder, _cell: Cell, gates: Tensors, states: Tensors) -> Tensors:
    f_BH, i_BH = gates["forget"], gates["input"]
    kept = g.op("Add", g.op("Mul", f_BH, states["hidden"]), g.op("Mul", i_BH, gates["candidate"]))
    return {"hidden": g.op("Div", kept, g.op("Add", f_BH, i_BH))}


def _known(step: Equations, states: Mapping[str, str]) -> Iterator[Known]:
    for h, end in states.items():
        for f, i, n in (*_weighed(step, h, end), *_divided(step, h, end)):
            if not step.sees(h, f, i, n):
                yield Known({"forget": f, "input": i, "candidate": n}, {"hidden": h})
                break


def _weighed(step: Equations, h: str, end: str) -> Iterator[tuple[str, str, str]]:
    """With gates that are divided by their sum."""
    for p, rest in step.kept(h, end):
        for q, n in step.two("Mul", rest):
            f, i = step.of("Div", p), step.of("Div", q)
            if f and i and all((f[0], i[0]) in step.two("Add", of[1]) for of in (f, i)):
                yield p, q, n


def _divided(step: Equations, h: str, end: str) -> Iterator[tuple[str, str, str]]:
    """As (f h + i n) / (f + i)."""
    of = step.of("Div", end)
    for f, rest in step.kept(h, of[0]) if of else ():
        yield from ((f, i, n) for i, n in step.two("Mul", rest) if (f, i) in step.two("Add", of[1]))


KIND = Kind("minLSTM", ("hidden",), ("forget", "input", "candidate"), follow=_follow, known=_known)
