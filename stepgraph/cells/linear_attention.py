"""Linear attention: S' = d S + b k (v - d S k), y = s q S'. Keys write to a matrix S, queries read it.

The decay d is exp(g) and belongs to the update rules `gated` and `gated_delta`, the update rate b to `delta` and
`gated_delta`; without one, what is written is k v. RetNet, GLA, Mamba-2, RWKV-6, DeltaNet and Gated DeltaNet are of
this kind. The operator itself computes a step. Source: the operator LinearAttention-27 of the ONNX standard.
"""

import numpy as np
import onnx

from stepgraph.cells.cell import Cell, Kind, Operator, Tensors
from stepgraph.graphs.builder import GraphBuilder
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.labels import name_of
from stepgraph.graphs.nodes import attributes

_RULES = {"decay": ("gated", "gated_delta"), "beta": ("delta", "gated_delta")}  # which update rules have such an input


def _read(node: onnx.NodeProto, graph: Graph) -> Cell:
    given = attributes(node)
    heads, rule = given["kv_num_heads"], given.get("update_rule", b"gated_delta").decode()
    query, key, value = (graph.sized(name, node)[-1] for name in node.input[:3])
    gates = {name: (graph.sized(OPERATOR.taken(node, name), node)[-1],) for name in _RULES if rule in _RULES[name]}
    shapes = {"memory": (heads, key // heads, value // heads), **gates, "norm": (heads,)}
    dtype = graph.dtype(OPERATOR.taken(node, "past_state") or node.input[0])
    hidden = given["q_num_heads"] * value // heads
    return Cell(
        KIND.name,
        name_of(node),
        query,
        hidden,
        dtype,
        KIND.states,
        (*gates, "norm"),
        shapes=shapes,
        untraced=KIND.states,
    )


def _gates(g: GraphBuilder, node: onnx.NodeProto, cell: Cell, after: Tensors) -> Tensors:
    """The decay d of each head or of each of its keys, the update rate b, and the norm of S after the step."""
    taken = {name: OPERATOR.taken(node, name) for name in cell.gates if name in _RULES}
    rows = {
        name: g.cast(g.reshape(tensor, (-1, cell.width(name))), np.dtype(np.float32)) for name, tensor in taken.items()
    }
    heads, keys, values = cell.shape("memory")
    norm = g.norm(g.reshape(after["memory"], (-1, heads, keys * values)), 2)
    return {name: g.op("Exp", row) if name == "decay" else row for name, row in rows.items()} | {"norm": norm}


KIND = Kind("LinearAttention", ("memory",), ("decay", "beta", "norm"))
OPERATOR = Operator(
    KIND,
    "LinearAttention",
    inputs=("query", "key", "value", "past_state", "decay", "beta"),
    outputs=("output", "present_state"),
    kept=True,
    time=1,
    read=_read,
    gates=_gates,
)
OPERATORS = (OPERATOR,)
