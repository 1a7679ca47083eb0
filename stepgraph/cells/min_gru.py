"""minGRU: z = sigmoid(x W_z + b_z), n = x W_n + b_n, h' = (1 - z) h + z n. Its gates do not see h.

Files write it with plain operators and name it in their metadata. Source: Feng et al. 2024, "Were RNNs All We Needed?",
section 3.1; with its g() the candidate is positive.
"""

from stepgraph.cells.cell import Cell, Kind, Tensors
from stepgraph.graphs.builder import GraphBuilder


def _follow(g: GraphBuilder, _cell: Cell, gates: Tensors, states: Tensors) -> Tensors:
    h_BH = states["hidden"]
    return {"hidden": g.op("Add", h_BH, g.op("Mul", gates["update"], g.op("Sub", gates["candidate"], h_BH)))}


KIND = Kind("minGRU", ("hidden",), ("update", "candidate"), follow=_follow)
