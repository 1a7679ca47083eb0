"""LSTM: i, f, o = f(..), g = g(..), c' = f c + i g, h' = o h(c'). Source: the operator LSTM-22 of the ONNX standard.

ONNX packs i, o, f, c.
"""

import numpy as np

from stepgraph.cells import gates
from stepgraph.cells.cell import INPUTS, OUTPUTS, Cell, Kind, Operator, Step, Tensors
from stepgraph.graphs.builder import GraphBuilder

ORDER = ("input", "forget", "output", "candidate")  # in which gates are computed: three sigmoids side by side


def _step(g: GraphBuilder, cell: Cell, x_BI: str, states: Tensors) -> Step:
    a_BG = gates.affine(g, cell, ORDER, x_BI, states["hidden"])
    if cell.peepholes or cell.input_forget:
        return gate_by_gate(g, cell, a_BG, states["cell"])
    ifo_BG, g_BH = g.split(a_BG, [3 * cell.hidden_size, cell.hidden_size])
    i_BH, f_BH, o_BH = g.split(gates.activated(g, cell, 0, ifo_BG), [cell.hidden_size] * 3)
    g_BH = gates.activated(g, cell, 1, g_BH)
    shown = {"input": i_BH, "forget": f_BH, "candidate": g_BH, "output": o_BH}
    return Step(_follow(g, cell, shown, states), shown)


def gate_by_gate(g: GraphBuilder, cell: Cell, a_BG: str, c_BH: str) -> Step:
    """From all gates before their activation, in `ORDER`. The output gate peeps at the new cell, so it comes last."""
    ai_BH, af_BH, ao_BH, ag_BH = g.split(a_BG, [cell.hidden_size] * 4)
    i_BH = gates.activated(g, cell, 0, _peep(g, cell, "input", ai_BH, c_BH))
    if cell.input_forget:
        f_BH = g.op("Sub", g.constant(np.ones(1, cell.dtype)), i_BH)
    else:
        f_BH = gates.activated(g, cell, 0, _peep(g, cell, "forget", af_BH, c_BH))
    g_BH = gates.activated(g, cell, 1, ag_BH)
    new_BH = _remember(g, i_BH, f_BH, g_BH, c_BH)
    o_BH = gates.activated(g, cell, 0, _peep(g, cell, "output", ao_BH, new_BH))
    shown = {"input": i_BH, "forget": f_BH, "candidate": g_BH, "output": o_BH}
    return Step(_shown(g, cell, o_BH, new_BH), shown)


def _follow(g: GraphBuilder, cell: Cell, given: Tensors, states: Tensors) -> Tensors:
    new_BH = _remember(g, given["input"], given["forget"], given["candidate"], states["cell"])
    return _shown(g, cell, given["output"], new_BH)


def _remember(g: GraphBuilder, i_BH: str, f_BH: str, g_BH: str, c_BH: str) -> str:
    return g.op("Add", g.op("Mul", f_BH, c_BH), g.op("Mul", i_BH, g_BH))


def _shown(g: GraphBuilder, cell: Cell, o_BH: str, c_BH: str) -> Tensors:
    return {"hidden": g.op("Mul", o_BH, cell.activations[2](g, c_BH, cell.dtype)), "cell": c_BH}


def _peep(g: GraphBuilder, cell: Cell, gate: str, a_BH: str, c_BH: str) -> str:
    if not cell.peepholes:
        return a_BH
    return g.op("Add", a_BH, g.op("Mul", g.constant(cell.peepholes[gate]), c_BH))


_GATES = ("input", "forget", "candidate", "output")
KIND = Kind("LSTM", ("hidden", "cell"), _GATES, ("Sigmoid", "Tanh", "Tanh"), _follow)
_PACKED = ("input", "output", "forget", "candidate")
OPERATORS = (Operator(KIND, "LSTM", _PACKED, _step, (*INPUTS, "initial_c", "P"), (*OUTPUTS, "Y_c")),)
