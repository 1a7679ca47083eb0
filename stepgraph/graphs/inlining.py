"""Takes the nodes of a subgraph out of the node that holds it, under names of their own. Pure onnx."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from stepgraph.graphs.nodes import copied, subgraphs


@dataclass(frozen=True, eq=False)
class Inlined:
    """What was in a subgraph; `outputs` are what its outputs are called now."""

    nodes: list[onnx.NodeProto]
    initializers: list[onnx.TensorProto]
    outputs: list[str]


def inline(graph: onnx.GraphProto, inputs: Mapping[str, str], prefix: str) -> Inlined:
    """The nodes and constants of a subgraph, whose names get a prefix; `inputs` says what its inputs are outside."""
    inner = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    names = {name: prefix + name for name in inner if name} | dict(inputs)
    nodes, initializers = [copied(node) for node in graph.node], [copied(tensor) for tensor in graph.initializer]
    for node in nodes:
        rename(node, names)
    for tensor in initializers:
        tensor.name = names[tensor.name]
    return Inlined(nodes, initializers, [names.get(output.name, output.name) for output in graph.output])


def rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Gives tensors other names, also where a subgraph takes them from around it."""
    for field in (node.input, node.output):
        for i, name in enumerate(field):
            field[i] = names.get(name, name)
    for graph in subgraphs(node):
        for inner in graph.node:
            rename(inner, names)
        for output in graph.output:
            output.name = names.get(output.name, output.name)
