"""Nodes of graphs, and of those within them: copied, searched, cut to what outputs need. Pure onnx."""

from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from typing import Any, TypeVar

import onnx
from google.protobuf.message import Message
from onnx import helper

T = TypeVar("T")
M = TypeVar("M", bound=Message)
_ATTRIBUTE = onnx.AttributeProto
_HOLDING = (_ATTRIBUTE.UNDEFINED, _ATTRIBUTE.GRAPH, _ATTRIBUTE.GRAPHS)  # an old file may not say what it holds


def copied(message: M) -> M:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def refill(field: MutableSequence[T], values: Iterable[T]) -> None:
    """Replaces all entries of a repeated field, which may be among the new ones."""
    values = list(values)
    del field[:]
    field.extend(values)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node by name, as Python has them."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def returning(model: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """A copy that returns these tensors too, where it does not yet. What is fed needs no return."""
    copy = copied(model)
    return_too(copy, tensors)
    return copy


def return_too(model: onnx.ModelProto, tensors: Iterable[str]) -> None:
    known = {info.name for info in (*model.graph.input, *model.graph.output)}
    wanted = (name for name in dict.fromkeys(tensors) if name not in known)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)


def reachable(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes that the outputs need: what computed the initial states is needed no more."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            needed.update(captured(node))
            kept.append(node)
    return kept[::-1]


def drop_unused(graph: onnx.GraphProto) -> None:
    """Removes the initialisers that no node takes and that are no output."""
    used = {name for node in graph.node for name in (*node.input, *captured(node))}
    used.update(output.name for output in graph.output)
    for i in reversed(range(len(graph.initializer))):
        if graph.initializer[i].name not in used:
            del graph.initializer[i]


def opset(model: onnx.ModelProto) -> int:
    return next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))


def captured(node: onnx.NodeProto) -> set[str]:
    """Names that the subgraphs of a node take from around it."""
    return {name for graph in subgraphs(node) for name in _taken(graph)}


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The branches or the body of a node that has some."""
    if not node.attribute:  # as most, in graphs of many thousands
        return []
    held = (a for a in node.attribute if a.type in _HOLDING)
    return [graph for a in held for graph in (*([a.g] if a.HasField("g") else []), *a.graphs)]


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, and those within it."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from graphs(inner)


def with_inner(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, and after each those in its subgraphs."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from with_inner(graph.node)


def _taken(graph: onnx.GraphProto) -> set[str]:
    own = {name for node in graph.node for name in node.output}
    own.update(info.name for info in graph.input)
    own.update(tensor.name for tensor in graph.initializer)
    used = {name for node in graph.node for name in (*node.input, *captured(node))}
    return (used | {output.name for output in graph.output}) - own
