"""How many tokens an integer input may name: as many as the tables have rows that it picks from. Pure onnx."""

import onnx

from stepgraph.graphs.constants import Constants

_PASSES = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
UNKNOWN = 2  # 0 and 1 are in most tables


def count(model: onnx.ModelProto, name: str) -> int:
    """The rows of the smallest table that the input `name` picks rows from; 2 where it picks from none."""
    constants, same, rows = Constants(model), {name}, list[int]()
    for node in model.graph.node:
        if node.op_type in _PASSES and node.input[0] in same:
            same.add(node.output[0])
        if node.op_type == "Gather" and node.input[1] in same:
            table = constants.value(node.input[0])
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            rows += [table.shape[axis]] if table is not None else []
        if node.op_type == "OneHot" and node.input[0] in same:
            depth = constants.value(node.input[1])
            rows += [int(depth.item())] if depth is not None else []
    return min(rows, default=UNKNOWN)
