"""Short descriptions of operators. Pure onnx."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import helper

from stepgraph.cells.cell import Operator
from stepgraph.cells.kinds import OPERATORS
from stepgraph.graphs.nodes import attributes, subgraphs

_SAME_SHAPE = frozenset({"Cast", "DequantizeLinear", "Identity"})


@dataclass(frozen=True)
class Word:
    """The description of one or a few nodes; `nodes` are their names."""

    text: str
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Box:
    """A recurrent node as the file has it; a size is None where the file does not say it plainly."""

    kind: str
    input_size: int | None
    hidden_size: int | None
    special: tuple[str, ...]  # attributes that differ from the operator's defaults


class Constants:
    """The shapes of constants, and descriptions of the operators that take them."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                self.shapes[node.output[0]] = next((list(a.t.dims) for a in node.attribute if a.name == "value"), [])
            elif node.input and node.input[0] in self.shapes and node.op_type in _SAME_SHAPE:
                self.shapes[node.output[0]] = self.shapes[node.input[0]]
            elif node.input and node.input[0] in self.shapes and node.op_type == "Transpose":
                self.shapes[node.output[0]] = self.shapes[node.input[0]][::-1]

    def say(self, node: onnx.NodeProto, biased: bool) -> str:
        """The description of an operator, with its sizes where it has weights."""
        shapes = [self.shapes.get(name) for name in node.input]
        match node.op_type, shapes:
            case "MatMul", [_, [wide, high]]:
                return f"Linear {wide}->{high} ({'MatMul+Add' if biased else 'MatMul'})"
            case "Gemm", [_, [a, b], *_]:
                flipped = attributes(node).get("transB")
                return f"Linear {b}->{a} (Gemm)" if flipped else f"Linear {a}->{b} (Gemm)"
            case "Gather", [[words, wide], None]:
                return f"Embedding {words}->{wide} (Gather)"
            case "Conv", [_, [filters, channels, *kernel], *_]:
                return f"Conv {channels}->{filters} (kernel {'x'.join(map(str, kernel))})"
        inner = [n.op_type for graph in subgraphs(node) for n in graph.node if n.op_type != "Constant"]
        domain = f"{node.domain}." if node.domain not in ("", "ai.onnx") else ""
        return domain + node.op_type + (f" (of {', '.join(dict.fromkeys(inner))})" if inner else "")

    def box(self, node: onnx.NodeProto) -> Box:
        given = attributes(node)
        operator = OPERATORS[node.op_type]
        w, r = (self.shapes.get(operator.taken(node, name), []) for name in ("W", "R"))
        inputs, hidden = (shape[operator.input_axis] if len(shape) == 3 else None for shape in (w, r))
        hidden = given.get("hidden_size", hidden)
        special = _special(operator, node, given)
        return Box(node.op_type, inputs, hidden if isinstance(hidden, int) else None, tuple(special))


def declared(info: onnx.ValueInfoProto) -> str:
    """An input's or output's shape and type in the file's own axes."""
    kind = info.type.tensor_type
    if not kind.elem_type:
        return ""
    axes = ", ".join(d.dim_param or str(d.dim_value or "?") for d in kind.shape.dim)
    return f"[{axes}] {helper.tensor_dtype_to_np_dtype(kind.elem_type)}"


def _special(operator: Operator, node: onnx.NodeProto, given: Mapping[str, object]) -> Iterator[str]:
    direction = given.get("direction", b"forward")
    if isinstance(direction, bytes) and direction != b"forward":
        yield direction.decode(errors="replace")
    names = given.get("activations", ())
    functions = (
        tuple(n.decode(errors="replace") for n in names if isinstance(n, bytes)) if isinstance(names, list) else ()
    )
    default = operator.kind.activations
    if tuple(n.lower() for n in functions[: len(default)]) not in ((), tuple(n.lower() for n in default)):
        yield ", ".join(functions)
    clip = given.get("clip")
    if isinstance(clip, float):
        yield f"clip {clip:.6g}"
    if operator.taken(node, "P"):
        yield "peepholes"
    for name in ("input_forget", "linear_before_reset", "layout"):
        if given.get(name):
            yield name
    if operator.taken(node, "sequence_lens"):
        yield "sequence_lens"
