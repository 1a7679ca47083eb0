"""Which outputs of a file belong to no step (versions, sizes and other constants), and which hold rounded numbers."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from stepgraph.errors import ModelRefused
from stepgraph.file import sidecar
from stepgraph.graphs.graph import MEASURING, Graph
from stepgraph.graphs.nodes import attributes, captured, copied, reachable, refill
from stepgraph.rewriting.ports import Facts

_ROUNDING = frozenset({"Ceil", "Floor", "Round"})
_ARRANGING = frozenset({"Cast", "Clip", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def without(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy without these outputs and what no other one needs, or the model itself if it needs all that it has.

    Raises:
        ModelRefused: there is no such output, or no other.
    """
    needed = reachable(model.graph.node, [output.name for output in model.graph.output if output.name not in names])
    if not names and len(needed) == len(model.graph.node):
        return model
    known = [output.name for output in model.graph.output]
    unknown = [name for name in names if name not in known]
    if unknown or set(known) == set(names):
        what = f"leaves out '{unknown[0]}', which is no output" if unknown else "leaves out every output"
        raise ModelRefused(f"{sidecar.FILE} {what} of the model; it has {', '.join(known)}")
    copy = copied(model)
    refill(copy.graph.output, [output for output in copy.graph.output if output.name not in names])
    refill(copy.graph.node, needed)
    return copy


def of_no_step(model: onnx.ModelProto) -> tuple[str, ...]:
    """The outputs that depend on no input, or on shapes only; empty if that is true of all."""
    live = set(Graph(model).inputs)
    for node in model.graph.node:
        if node.op_type not in MEASURING and not live.isdisjoint((*node.input, *captured(node))):
            live.update(node.output)
    dead = tuple(output.name for output in model.graph.output if output.name not in live)
    return dead if len(dead) < len(model.graph.output) else ()


def on_their_grid(facts: Facts, graph: Graph) -> Facts:
    """The facts with the step of rounded outputs: a sum on the edge between two values may round to either."""
    ports = tuple(replace(port, unit=_unit(port.name, graph)) for port in facts.outputs)
    return replace(facts, outputs=ports)


def _cuts_off(node: onnx.NodeProto, graph: Graph) -> bool:
    """Whether it makes whole numbers of others."""
    if node.op_type != "Cast" or helper.tensor_dtype_to_np_dtype(attributes(node)["to"]).kind not in "iu":
        return False
    return graph.known_dtype(node.input[0]) in (np.float16, np.float32, np.float64)


def _unit(tensor: str, graph: Graph) -> float:
    unit = 1.0
    while tensor in graph.makers:
        node = graph.makers[tensor]
        if node.op_type in _ROUNDING or _cuts_off(node, graph):
            return unit
        tensor = node.input[0] if node.input else ""
        if node.op_type in ("Div", "Mul"):
            left, right = (graph.value(name) for name in node.input)
            factor, tensor = (left, node.input[1]) if right is None else (right, node.input[0])
            if factor is None or factor.size != 1 or (left is not None and node.op_type == "Div"):
                return 0.0
            number = abs(float(np.ravel(factor)[0]))
            unit *= number if node.op_type == "Mul" else 1 / number
        elif node.op_type not in _ARRANGING:
            return 0.0
    return 0.0
