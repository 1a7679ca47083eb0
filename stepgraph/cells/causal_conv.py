"""Causal convolution, each channel by itself: y_t = sum over j < k of w_j x_(t - k + 1 + j) + b.

Its state, the window, is the last k - 1 inputs. The operator itself computes a step. Mamba and Gated DeltaNet have such
a convolution before their recurrence. Source: the operator CausalConvWithState-27 of the ONNX standard.
"""

import onnx

from stepgraph.cells.cell import Cell, Kind, Operator
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.labels import name_of


def _read(node: onnx.NodeProto, graph: Graph) -> Cell:
    channels, _, size = graph.sized(node.input[1], node)
    dtype = graph.dtype(node.input[1])
    shapes = {"window": (channels, size - 1)}
    return Cell(KIND.name, name_of(node), channels, channels, dtype, KIND.states, KIND.gates, shapes=shapes)


KIND = Kind("CausalConv", ("window",), ())
OPERATORS = (
    Operator(
        KIND,
        "CausalConvWithState",
        inputs=("input", "weight", "bias", "past_state"),
        outputs=("output", "present_state"),
        kept=True,
        time=2,
        read=_read,
    ),
)
