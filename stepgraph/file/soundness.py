"""What must be true of a model file before anything is made of it: sizes that are there, known names, no circles.

Says which node or tensor breaks it. Pure onnx; allocates nothing that a file asks for.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from stepgraph.errors import ModelRefused
from stepgraph.file import tensors
from stepgraph.graphs.labels import label, name_of
from stepgraph.graphs.nodes import subgraphs

_DEPTH = 16  # graphs and functions within one another
_NODES = 100_000  # with those of subgraphs and functions, each as often as it is used
_INPUT_BYTES = 2**31  # of one element in each free axis

Nodes = Sequence[onnx.NodeProto]


def check(model: onnx.ModelProto) -> None:
    """Looks through the whole file."""
    _readable(model)
    for tensor in tensors.within(model):
        tensors.check(tensor)
    for info in model.graph.input:
        _input(info)
    functions = {(f.domain, f.name): f for f in model.functions}
    _Counter(functions).graph(model.graph)
    for function in functions.values():
        _References(function.input).nodes(function.node)
    _References(()).graph(model.graph)


def _readable(model: onnx.ModelProto) -> None:
    name = unreadable(model)
    if name is not None:
        raise ModelRefused(
            f"the file holds the name '{name:.60}', which is not UTF-8: names of nodes, tensors and axes must be text. "
            "The file is damaged, or was written in another encoding"
        )


def _input(info: onnx.ValueInfoProto) -> None:
    sizes = [dim.dim_value for dim in info.type.tensor_type.shape.dim if dim.HasField("dim_value")]
    if min(sizes, default=0) < 0 or 4 * math.prod(sizes) > _INPUT_BYTES:
        raise ModelRefused(
            f"input '{info.name}' declares axes of {', '.join(map(str, sizes))}: no step can be that large. Export the "
            "model with the axes of batch and time dynamic, and the others as they are"
        )


class _Counter:
    """Counts nodes as if every function were written out where it is called."""

    def __init__(self, functions: Mapping[tuple[str, str], onnx.FunctionProto]) -> None:
        self._functions = functions
        self._sizes: dict[tuple[str, str], int] = {}
        self._open: list[tuple[str, str]] = []

    def graph(self, graph: onnx.GraphProto) -> int:
        return self._count(graph.node, 0)

    def _count(self, nodes: Nodes, depth: int) -> int:
        total = 0
        for node in nodes:
            if depth > _DEPTH:
                raise ModelRefused(
                    f"{label(node)} lies in more than {_DEPTH} graphs or functions within one another", name_of(node)
                )
            total += 1 + self._called(node) + sum(self._count(g.node, depth + 1) for g in subgraphs(node))
            if total > _NODES:
                raise ModelRefused(
                    f"the graph has more than {_NODES} nodes, those of its functions counted as often as they are "
                    f"used; {label(node)} is the first above that. Export the recurrence as a recurrent operator "
                    "instead of unrolling it",
                    name_of(node),
                )
        return total

    def _called(self, node: onnx.NodeProto) -> int:
        key = (node.domain, node.op_type)
        if key not in self._functions:
            return 0
        if key in self._open:
            raise ModelRefused(f"{label(node)} calls a function that calls itself", name_of(node))
        if key not in self._sizes:
            self._open.append(key)
            self._sizes[key] = self._count(self._functions[key].node, len(self._open))
            self._open.pop()
        return self._sizes[key]


@dataclass
class _References:
    """Follows the names through a graph: what a node takes must have been made before it."""

    given: Sequence[str]
    around: "_References | None" = None
    known: set[str] = field(default_factory=set)

    def graph(self, graph: onnx.GraphProto) -> None:
        self.known.update(tensor.name for tensor in graph.initializer)
        self.known.update(sparse.values.name for sparse in graph.sparse_initializer)
        self.known.update(info.name for info in graph.input)
        self.nodes(graph.node)
        for output in graph.output:
            if not self.knows(output.name):
                raise ModelRefused(
                    f"the output '{output.name}' of the graph is made by no node: the file is damaged, or was cut "
                    "apart at the wrong place"
                )

    def nodes(self, nodes: Nodes) -> None:
        self.known.update(self.given)
        makers: dict[str, onnx.NodeProto] = {}
        for node in nodes:
            for name in filter(None, node.output):
                if name in makers or name in self.known:
                    raise ModelRefused(
                        f"{label(node)} makes '{name}', and so does {_maker(makers.get(name))}: a name can stand for "
                        "one tensor only. Export the model again",
                        name_of(node),
                    )
                makers[name] = node
        for node in nodes:
            for name in filter(None, node.input):
                if not self.knows(name):
                    raise ModelRefused(_missing(node, name, makers.get(name)), name_of(node))
            for graph in subgraphs(node):
                _References((), self).graph(graph)
            self.known.update(node.output)

    def knows(self, name: str) -> bool:
        return name in self.known or (self.around is not None and self.around.knows(name))


def _maker(node: onnx.NodeProto | None) -> str:
    return "an input or an initialiser" if node is None else label(node)


def _missing(node: onnx.NodeProto, name: str, maker: onnx.NodeProto | None) -> str:
    if maker is node:
        return f"{label(node)} takes '{name}', which it makes itself: the graph runs in a circle"
    if maker is not None:
        return (
            f"{label(node)} takes '{name}', which {label(maker)} makes after it: the graph runs in a circle, or its "
            "nodes stand in the wrong order"
        )
    return (
        f"{label(node)} takes '{name}', and nothing in the file makes it: the file is damaged, or was cut apart at the "
        "wrong place"
    )


def unreadable(message: Message) -> str | None:
    """The first name in a model, or in a part of one, that is not UTF-8, with those bytes spelt out; None if all are.

    Comments (`doc_string`) may hold anything: they are not read.
    """
    raw = next((text for text in _texts(message) if isinstance(text, bytes)), None)
    return None if raw is None else raw.decode(errors="backslashreplace")


def _texts(message: Message) -> Iterator[str | bytes]:
    for declared, value in message.ListFields():
        if declared.type == FieldDescriptor.TYPE_STRING and declared.name != "doc_string":
            yield from [value] if isinstance(value, str | bytes) else value
        elif declared.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _texts(inner)
