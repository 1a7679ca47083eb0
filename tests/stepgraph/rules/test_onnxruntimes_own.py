"""Files that onnxruntime's tools have written: optimised, or rounded to 8 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from stepgraph.errors import ModelRefused
from stepgraph.loading import load
from stepgraph.rules.value import NO_RULE
from tests.drawn.graphs import OWN, Drawing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STEPS, INPUTS, HIDDEN = 200, 3, 4
BEFORE = (("Transpose", ["x"], ["rows"], {"perm": [0, 2, 1]}), ("Pad", ["rows", "pads"], ["padded"], {}))
AFTER = (
    ("Transpose", ["slid"], ["steps"], {"perm": [2, 0, 1]}),
    ("GRU", ["steps", "W", "R"], ["each"], {"hidden_size": HIDDEN}),
    ("Squeeze", ["each", "one"], ["y"], {}),
)
SLID = ("Conv", ["padded", "kernel"], ["slid"], {})

ROUNDED = ["y8", "scale", "zero"]
IN_8_BITS = {
    "QLinearAdd": [*ROUNDED, *ROUNDED, "scale", "zero"],
    "QLinearMul": [*ROUNDED, *ROUNDED, "scale", "zero"],
    "QLinearSigmoid": [*ROUNDED, "scale", "zero"],
    "QLinearLeakyRelu": [*ROUNDED, "scale", "zero"],
}
EXACT = {"BiasGelu": ["y", "bias"], "FastGelu": ["y"], "QuickGelu": ["y"]}

Operator = tuple[str, list[str], list[str], dict[str, object]]


def written(path: Path, operators: Sequence[Operator], answer: str = "y") -> None:
    """A file of these operators; those that the standard does not have are onnxruntime's."""
    random = np.random.default_rng(0)
    constants = {
        "pads": np.array([0, 0, 2, 0, 0, 0]),
        "one": np.array([1]),
        "kernel": random.standard_normal((INPUTS, INPUTS, 3)).astype(np.float32),
        "kernel8": random.integers(-9, 9, (INPUTS, INPUTS, 3), np.int8),
        "W": random.standard_normal((1, 3 * HIDDEN, INPUTS)).astype(np.float32),
        "R": random.standard_normal((1, 3 * HIDDEN, HIDDEN)).astype(np.float32),
        "bias": np.ones(HIDDEN, np.float32),
        "scale": np.float32(0.1),
        "zero": np.uint8(128),
        "zero8": np.int8(0),
    }
    used = {name for _, inputs, _, _ in operators for name in inputs}
    nodes = [
        helper.make_node(of, inputs, outputs, domain="" if onnx.defs.has(of) else "com.microsoft", **attributes)
        for of, inputs, outputs, attributes in operators
    ]
    graph = helper.make_graph(
        nodes,
        "own",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "time", INPUTS])],
        [helper.make_tensor_value_info(answer, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def held_to_the_file(path: Path, operators: Sequence[Operator], answer: str = "y", apart: float = 1e-5) -> None:
    written(path, operators, answer)
    model = load(path, 2, 0.0)
    assert model.proof.unread == ""
    x = np.random.default_rng(1).standard_normal((2, STEPS, INPUTS)).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(path).run([answer], {"x": x})
    found = model.engine.run({"x": x.swapaxes(0, 1)}, model.graph.start(2), trace=False).outputs[answer]
    np.testing.assert_allclose(found, wanted, atol=apart)


def test_a_convolution_with_its_activation_is_read_and_served(tmp_path: Path) -> None:
    fused = ("FusedConv", ["padded", "kernel"], ["slid"], {"activation": "Relu"})
    held_to_the_file(tmp_path / "model.onnx", [*BEFORE, fused, *AFTER])


def test_weights_in_8_bits_are_known_in_every_version(tmp_path: Path) -> None:
    weights = ("DequantizeLinear", ["kernel8", "scale", "zero8"], ["k"], {})
    held_to_the_file(tmp_path / "model.onnx", [*BEFORE, weights, ("Conv", ["padded", "k"], ["slid"], {}), *AFTER])


@pytest.mark.parametrize("operator", [*IN_8_BITS, *EXACT])
def test_what_computes_each_element_by_itself_is_read_and_served(operator: str, tmp_path: Path) -> None:
    if operator in EXACT:
        behind = [(operator, EXACT[operator], ["z"], {})]
    else:
        behind = [
            ("QuantizeLinear", ["y", "scale", "zero"], ["y8"], {}),
            (operator, IN_8_BITS[operator], ["z8"], {}),
            ("DequantizeLinear", ["z8", "scale", "zero"], ["z"], {}),
        ]
    apart = 1e-5 if operator in EXACT else 0.2001  # a number between two may be rounded to either
    held_to_the_file(tmp_path / "model.onnx", [*BEFORE, SLID, *AFTER, *behind], "z", apart)


def test_an_operator_without_a_rule_that_needs_several_steps_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    fused = ("FusedConv", ["padded", "kernel", "", "rows"], ["slid"], {"activation": "Relu"})
    written(path, [*BEFORE, fused, *AFTER])
    with pytest.raises(ModelRefused, match=r"\(?FusedConv.* and one step alone does not run, so it cannot be cut"):
        load(path, 2, 0.0)


OTHERWISE = {
    "Attention": (["x", "projected", "bias"], {"num_heads": 2}),  # projects its first input, over all steps
    "RotaryEmbedding": (["x", "places", "table", "table"], {"num_heads": 1}),
    "QLinearConv": (["x", "scale", "zero", "x", "scale", "zero", "scale", "zero"], {"channels_last": 1}),
}


@pytest.mark.parametrize("operator", OTHERWISE)
def test_what_is_otherwise_than_the_standards_operator_of_that_name_is_not_read_as_that(operator: str) -> None:
    inputs, attributes = OTHERWISE[operator]
    drawing = Drawing(np.random.default_rng(0), "rows first", 23)
    sizes = {"projected": (4, 12), "bias": (12,), "table": (9, 2), "places": (2, 9), "scale": (), "zero": ()}
    drawing.constants += [numpy_helper.from_array(np.ones(n, np.float32), name) for name, n in sizes.items()]
    name = drawing.op(operator, *inputs, domain=OWN, **attributes)
    finding = drawing.read()[name].finding
    assert finding is not None
    assert finding.words == NO_RULE
