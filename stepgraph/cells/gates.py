"""What the equations of cells have in common: products of several gates side by side, and activation functions."""

import numpy as np

from stepgraph.cells.cell import Cell
from stepgraph.graphs.builder import GraphBuilder


def affine(g: GraphBuilder, cell: Cell, gates: tuple[str, ...], x_BI: str, h_BH: str) -> str:
    """X W + H R + Wb + Rb of several gates side by side, [B, len(gates) * H], as one product with [x, h]."""
    parts = ((x_BI, cell.weights.x), (h_BH, cell.weights.h))
    return g.affine([(tensor, [weights[gate] for gate in gates]) for tensor, weights in parts], bias(cell, gates))


def bias(cell: Cell, gates: tuple[str, ...]) -> np.ndarray:
    return np.concatenate([cell.weights.x_bias[gate] + cell.weights.h_bias[gate] for gate in gates])


def activated(g: GraphBuilder, cell: Cell, activation: int, a_BG: str) -> str:
    """The cell's activation function number `activation` of one or more gates side by side."""
    if cell.clip is not None:
        a_BG = g.clip(a_BG, cell.clip, cell.dtype)
    return cell.activations[activation](g, a_BG, cell.dtype)
