"""How a sentence names a node of a graph."""

import onnx


def name_of(node: onnx.NodeProto) -> str:
    """What tells a node from others: its name, else its first output's."""
    return node.name or next(iter(filter(None, node.output)), node.op_type)


def label(node: onnx.NodeProto) -> str:
    return f"node '{node.name}' ({node.op_type})" if node.name else f"the {node.op_type} that makes '{node.output[0]}'"
