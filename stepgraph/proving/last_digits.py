"""A file with the last digit of each number on its way moved: how far its own answers are a matter of rounding.

Sums that are added in another order move such digits. What is between two runs of the same network is compared with
what that makes of its answers.
"""

import onnx
from onnx import TensorProto, helper, shape_inference

from stepgraph.graphs.nodes import copied, refill
from stepgraph.rewriting.stepgraph import PREFIX

_PART = 1e-7  # of itself, by which a number is moved
_MOVED = (TensorProto.FLOAT, TensorProto.DOUBLE)


def moved(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which what each node makes is moved by a tiny part of itself, at random; nothing within subgraphs."""
    copy = copied(model)
    graph = shape_inference.infer_shapes(copy).graph
    infos = (*graph.value_info, *graph.output)
    types = {info.name: info.type.tensor_type.elem_type for info in infos if info.type.HasField("tensor_type")}
    nodes = list[onnx.NodeProto]()
    for node in copy.graph.node:
        nodes.append(node)
        for i, name in enumerate(node.output):
            if types.get(name) in _MOVED:
                exact, factor = f"{PREFIX}exact/{name}", f"{PREFIX}near_one/{name}"
                node.output[i] = exact
                nodes.append(_near_one(exact, factor, len(nodes)))
                nodes.append(helper.make_node("Mul", [exact, factor], [name]))
    refill(copy.graph.node, [copied(node) for node in nodes])
    return copy


def _near_one(like: str, name: str, seed: int) -> onnx.NodeProto:
    return helper.make_node("RandomNormalLike", [like], [name], mean=1.0, scale=_PART, seed=float(seed))
