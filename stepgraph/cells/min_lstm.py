"""minLSTM: f = sigmoid(x W_f + b_f), i = sigmoid(x W_i + b_i), n = x W_n + b_n, h' = (f h + i n) / (f + i).

Its gates do not see h. A file may name f and i as they are or divided by their sum. Files write it with plain operators
and name it in their metadata. Source: Feng et al. 2024, "Were RNNs All We Needed?", section 3.2.
"""

from stepgraph.cells.cell import Cell, Kind, Tensors
from stepgraph.graphs.builder import GraphBuilder


def _follow(g: GraphBuilder, _cell: Cell, gates: Tensors, states: Tensors) -> Tensors:
    f_BH, i_BH = gates["forget"], gates["input"]
    kept = g.op("Add", g.op("Mul", f_BH, states["hidden"]), g.op("Mul", i_BH, gates["candidate"]))
    return {"hidden": g.op("Div", kept, g.op("Add", f_BH, i_BH))}


KIND = Kind("minLSTM", ("hidden",), ("forget", "input", "candidate"), follow=_follow)
