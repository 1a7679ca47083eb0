"""How a sentence names a node of a graph, and what operators are called that only reshape."""

import onnx

# operators that keep each value as it is, in another shape, order or type
RESHAPING = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def name_of(node: onnx.NodeProto) -> str:
    """What tells a node from others: its name, else its first output's."""
    return node.name or next(iter(filter(None, node.output)), node.op_type)


def label(node: onnx.NodeProto) -> str:
    return f"node '{node.name}' ({node.op_type})" if node.name else f"the {node.op_type} that makes '{node.output[0]}'"
