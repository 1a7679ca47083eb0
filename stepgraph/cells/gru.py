"""GRU: z = f(..), r = f(..), n = g(..), h' = (1 - z) n + z h. Source: the operator GRU-22 of the ONNX standard.

ONNX packs z, r, h.
"""

from stepgraph.cells import gates
from stepgraph.cells.cell import Cell, Kind, Operator, Step, Tensors
from stepgraph.graphs.builder import GraphBuilder


def _step(g: GraphBuilder, cell: Cell, x_BI: str, states: Tensors) -> Step:
    h_BH = states["hidden"]
    zr_BG = gates.activated(g, cell, 0, gates.affine(g, cell, ("update", "reset"), x_BI, h_BH))
    z_BH, r_BH = g.split(zr_BG, [cell.hidden_size] * 2)
    n_BH = gates.activated(g, cell, 1, _candidate(g, cell, x_BI, h_BH, r_BH))
    shown = {"update": z_BH, "reset": r_BH, "candidate": n_BH}
    return Step(_follow(g, cell, shown, states), shown)


def _follow(g: GraphBuilder, _cell: Cell, given: Tensors, states: Tensors) -> Tensors:
    h_BH, z_BH, n_BH = states["hidden"], given["update"], given["candidate"]
    return {"hidden": g.op("Add", n_BH, g.op("Mul", z_BH, g.op("Sub", h_BH, n_BH)))}  # the same as (1 - z) n + z h


def _candidate(g: GraphBuilder, cell: Cell, x_BI: str, h_BH: str, r_BH: str) -> str:
    """Before its activation. With linear_before_reset (torch's GRU) the reset gate acts on R h + b, else on h."""
    gate = "candidate"
    if not cell.linear_before_reset:
        return gates.affine(g, cell, (gate,), x_BI, g.op("Mul", r_BH, h_BH))
    weights = cell.weights
    from_x = g.affine([(x_BI, [weights.x[gate]])], weights.x_bias[gate])
    from_h = g.affine([(h_BH, [weights.h[gate]])], weights.h_bias[gate])
    return g.op("Add", from_x, g.op("Mul", r_BH, from_h))


KIND = Kind("GRU", ("hidden",), ("update", "reset", "candidate"), ("Sigmoid", "Tanh"), _follow)
OPERATORS = (Operator(KIND, "GRU", ("update", "reset", "candidate"), _step, aborts=True),)
