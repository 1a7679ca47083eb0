"""Replaces every `If` whose condition is constant by the branch that it takes. Pure onnx."""

from collections.abc import Iterator
from itertools import count

import onnx

from server.recurrence import Constants


def resolve(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the `If` nodes whose condition does not depend on an input, however deeply they are nested."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    numbers = count()
    while _resolve_once(copy, numbers):
        pass
    return copy


def _resolve_once(model: onnx.ModelProto, numbers: Iterator[int]) -> bool:
    graph, constants, nodes = model.graph, Constants(model), list[onnx.NodeProto]()
    changed = False
    for node in graph.node:
        condition = constants.value(node.input[0]) if node.op_type == "If" else None
        if condition is None:
            nodes.append(node)
            continue
        wanted = "then_branch" if condition.item() else "else_branch"
        branch = next(attribute.g for attribute in node.attribute if attribute.name == wanted)
        inner, initializers = _inline(branch, list(node.output), f"taken{next(numbers)}/")
        nodes.extend(inner)
        graph.initializer.extend(initializers)
        changed = True
    if changed:
        del graph.node[:]
        graph.node.extend(nodes)
    return changed


def _inline(
    branch: onnx.GraphProto, outputs: list[str], prefix: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes and constants of a branch under names of their own, ending in the tensors `outputs`."""
    inner = {name for node in branch.node for name in node.output} | {tensor.name for tensor in branch.initializer}
    names = {name: prefix + name for name in inner if name}
    nodes = [_renamed(node, names) for node in branch.node]
    for output, name in zip(branch.output, outputs, strict=True):
        nodes.append(onnx.helper.make_node("Identity", [names.get(output.name, output.name)], [name]))
    initializers = []
    for tensor in branch.initializer:
        renamed = onnx.TensorProto()
        renamed.CopyFrom(tensor)
        renamed.name = names[tensor.name]
        initializers.append(renamed)
    return nodes, initializers


def _renamed(node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    """A copy of a node, and of all in its subgraphs, with other names for some tensors."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    _rename(copy, names)
    return copy


def _rename(node: onnx.NodeProto, names: dict[str, str]) -> None:
    for field in (node.input, node.output):
        for i, name in enumerate(field):
            field[i] = names.get(name, name)
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            for inner in graph.node:
                _rename(inner, names)
            for output in graph.output:
                output.name = names.get(output.name, output.name)
