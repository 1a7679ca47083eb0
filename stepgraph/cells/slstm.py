"""sLSTM, the scalar LSTM of xLSTM: c' = f c + i z, n' = f n + i, h' = o c' / n', with exponential gates i and f.

To keep them within range, what is exponentiated has m' = max(a_f + m, a_i) taken from it: i = exp(a_i - m') and
f = exp(a_f + m - m'), where f without m would be exp(a_f). i and f are named after that; m, the stabiliser, is a state
that the file's own nodes compute, and a file that has none names none. Files write the cell with plain operators and
name it in their metadata. Source: Beck et al. 2024, "xLSTM: Extended Long Short-Term Memory", equations 8 to 17.
"""

from stepgraph.cells.cell import Cell, Kind, Tensors
from stepgraph.graphs.builder import GraphBuilder


def _follow(g: GraphBuilder, _cell: Cell, gates: Tensors, states: Tensors) -> Tensors:
    f_BH, i_BH = gates["forget"], gates["input"]
    c_BH = g.op("Add", g.op("Mul", f_BH, states["cell"]), g.op("Mul", i_BH, gates["candidate"]))
    n_BH = g.op("Add", g.op("Mul", f_BH, states["normaliser"]), i_BH)
    return {"hidden": g.op("Mul", gates["output"], g.op("Div", c_BH, n_BH)), "cell": c_BH, "normaliser": n_BH}


_STATES = ("hidden", "cell", "normaliser")
KIND = Kind("sLSTM", _STATES, ("input", "forget", "candidate", "output"), follow=_follow, optional=("stabiliser",))
