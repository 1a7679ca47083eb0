"""RNN: h' = f(x W + h R + b). Source: the operator RNN-22 of the ONNX standard."""

from stepgraph.cells import gates
from stepgraph.cells.cell import Cell, Kind, Operator, Step, Tensors
from stepgraph.graphs.builder import GraphBuilder


def _step(g: GraphBuilder, cell: Cell, x_BI: str, states: Tensors) -> Step:
    a_BH = gates.affine(g, cell, ("hidden",), x_BI, states["hidden"])
    return Step({"hidden": gates.activated(g, cell, 0, a_BH)}, {})


KIND = Kind("RNN", ("hidden",), (), ("Tanh",))
OPERATORS = (Operator(KIND, "RNN", ("hidden",), _step),)
