"""Replaces every `If` whose condition is known before any data comes by the branch that it takes. Pure onnx."""

from collections.abc import Iterator
from itertools import count

import onnx

from stepgraph.cells.operators import is_recurrent
from stepgraph.graphs import folding, inlining
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.nodes import attributes, copied, refill, subgraphs, with_inner


def resolve(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the `If` nodes whose condition depends on no input, or on sizes that the file fixes.

    However deeply they are nested. The model itself if it has none.
    """
    if not _has_if(model):
        return model
    copy = copied(model)
    numbers = count()
    while _resolve_once(copy, numbers) or _resolve_once(copy, numbers, by_size=True):
        pass
    return copy


def _has_if(model: onnx.ModelProto) -> bool:
    return any(node.op_type == "If" for node in model.graph.node)


def undecided(model: onnx.ModelProto) -> tuple[onnx.NodeProto, tuple[str, ...]] | None:
    """The first remaining `If` with recurrent operators in it, and the inputs that decide it; None if there is none."""
    graph = Graph(model)
    for node in graph.nodes:
        if node.op_type == "If" and _hides_cells(node):
            return node, tuple(sorted(graph.made_of(node.input[0]) & graph.inputs.keys()))
    return None


def _hides_cells(node: onnx.NodeProto) -> bool:
    return any(is_recurrent(inner) for graph in subgraphs(node) for inner in with_inner(graph.node))


def _resolve_once(model: onnx.ModelProto, numbers: Iterator[int], by_size: bool = False) -> bool:
    if not _has_if(model):
        return False
    graph, nodes = model.graph, list[onnx.NodeProto]()
    constants = Graph(folding.folded(model) if by_size else model)
    changed = False
    for node in graph.node:
        condition = constants.value(node.input[0]) if node.op_type == "If" else None
        if condition is None:
            nodes.append(node)
            continue
        wanted = "then_branch" if condition.item() else "else_branch"
        branch = attributes(node)[wanted]
        inner = inlining.inline(branch, {}, f"taken{next(numbers)}/")
        nodes.extend(inner.nodes)
        nodes.extend(
            onnx.helper.make_node("Identity", [name], [output])
            for name, output in zip(inner.outputs, node.output, strict=True)
            if output
        )
        graph.initializer.extend(inner.initializers)
        changed = True
    if changed:
        refill(graph.node, nodes)
    return changed
