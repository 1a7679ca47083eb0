"""How a sentence names a node of a graph, and what operators are called that only reshape."""

import re

import onnx

# operators that keep each value as it is, in another shape, order or type
RESHAPING = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})

STATE_INSTEAD = (
    "Export it with that state as an input and an output, name the pair in model.toml beside the file, under [state], "
    "and let clients begin each sequence with its own by sequence(state=...)"
)


def name_of(node: onnx.NodeProto) -> str:
    """What tells a node from others: its name, else its first output's."""
    return node.name or next(iter(filter(None, node.output)), node.op_type)


def label(node: onnx.NodeProto) -> str:
    return f"node '{node.name}' ({node.op_type})" if node.name else f"the {node.op_type} that makes '{node.output[0]}'"


_ENDINGS = re.compile(r"(?:^|[_./:])(?:in|out|input|output|next|new|prev|previous|past|present|last|n|0|1)(?=$|[_./:])")


def stem(name: str) -> str:
    """The name of an input or output without what tells before from after: "cache" of past.cache and cacheOut."""
    worded = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return _ENDINGS.sub("", worded).strip("_./:")
