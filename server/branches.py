"""Replaces every `If` whose condition is constant by the branch that it takes. Pure onnx."""

from collections.abc import Iterator
from itertools import count

import onnx

from server import inlining
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
        del graph.node[:]
        graph.node.extend(nodes)
    return changed
