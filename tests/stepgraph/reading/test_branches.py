"""Which `If` is decided before any data comes: what is known of sizes decides, and nothing that may differ."""

from __future__ import annotations

import onnx
import pytest
from onnx import parser

from stepgraph.file import sidecar
from stepgraph.reading import branches

BOTH = "<then_branch = t () => (a) { a = Neg(x) }, else_branch = e () => (b) { b = Relu(x) }>"


def graph(condition: str, info: str = "") -> onnx.ModelProto:
    """`c` decides what becomes of x, which has three features and any number of rows."""
    return parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[rows, 3] x, float[rows, samples] s) => (float[rows, 3] y) <{info}>
        {{
            two = Constant<value_int = 2>()
            three = Constant<value_int = 3>()
            last = Constant<value_int = -1>()
            first = Constant<value_int = 0>()
            {condition}
            y = If (c) {BOTH}
        }}"""
    )


def taken(model: onnx.ModelProto) -> str:
    """The operator that makes y."""
    (maker,) = [node for node in model.graph.node if node.op_type in ("If", "Neg", "Relu")]
    return maker.op_type


@pytest.mark.parametrize(
    ("condition", "operator"),
    [
        ("shape = Shape(x)\n rank = Size(shape)\n c = Equal(rank, two)", "Neg"),
        ("shape = Shape(x)\n rank = Size(shape)\n c = Equal(rank, three)", "Relu"),
        ("shape = Shape(x)\n wide = Gather(shape, last)\n c = Equal(wide, three)", "Neg"),
        ("shape = Shape<start = 1>(x)\n wide = Gather(shape, first)\n c = Equal(wide, three)", "Neg"),
        ("z = Transpose(x)\n shape = Shape(z)\n wide = Gather(shape, first)\n c = Equal(wide, two)", "Relu"),
        ("shape = Shape(x)\n rows = Gather(shape, first)\n c = Equal(rows, three)", "If"),
        ("shape = Shape(s)\n wide = Gather(shape, last)\n c = Equal(wide, three)", "If"),
        ("all = Size(x)\n c = Equal(all, three)", "If"),
        ("sum = ReduceSum<keepdims = 0>(x)\n c = Cast<to = 9>(sum)", "If"),
    ],
)
def test_a_branch_is_taken_if_all_data_would_take_it(condition: str, operator: str) -> None:
    assert taken(branches.resolve(graph(condition))) == operator


def test_what_a_file_says_of_a_size_between_decides_nothing() -> None:
    condition = "z = Abs(s)\n shape = Shape(z)\n wide = Gather(shape, last)\n c = Equal(wide, three)"
    assert taken(branches.resolve(graph(condition, "float[7, 3] z"))) == "If"


@pytest.mark.parametrize(("samples", "operator"), [(6, "Neg"), (8, "Relu")])
def test_the_size_of_a_block_decides_through_what_cuts_it(samples: int, operator: str) -> None:
    condition = """
        half = Constant<value_ints = [3]>()
        axis = Constant<value_ints = [1]>()
        end = Constant<value_ints = [100]>()
        z = Slice(s, half, end, axis)
        shape = Shape(z)
        wide = Gather(shape, last)
        c = Equal(wide, three)"""
    model = graph(condition)
    assert taken(branches.resolve(model)) == "If"
    assert taken(branches.resolve(sidecar.cut(model, {"s": samples}))) == operator
