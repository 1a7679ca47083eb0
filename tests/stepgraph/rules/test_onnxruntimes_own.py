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
ROUNDED = (
    ("QuantizeLinear", ["y", "scale", "zero"], ["y8"], {}),
    ("QLinearAdd", ["y8", "scale", "zero", "y8", "scale", "zero", "scale", "zero"], ["z8"], {}),
    ("DequantizeLinear", ["z8", "scale", "zero"], ["z"], {}),
)

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


@pytest.mark.parametrize(
    ("inner", "behind", "answer"),
    [
        ([("FusedConv", ["padded", "kernel"], ["slid"], {"activation": "Relu"})], (), "y"),
        (
            [("DequantizeLinear", ["kernel8", "scale", "zero8"], ["k"], {}), ("Conv", ["padded", "k"], ["slid"], {})],
            (),
            "y",
        ),
        ([("Conv", ["padded", "kernel"], ["slid"], {})], ROUNDED, "z"),
    ],
    ids=["a convolution with its activation", "weights in 8 bits", "a sum in 8 bits"],
)
def test_what_they_write_is_read_and_served(
    inner: Sequence[Operator], behind: Sequence[Operator], answer: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    written(path, [*BEFORE, *inner, *AFTER, *behind], answer)
    model = load(path, 2, 0.0)
    assert model.proof.unread == ""
    x = np.random.default_rng(1).standard_normal((2, STEPS, INPUTS)).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(path).run([answer], {"x": x})
    found = model.engine.run({"x": x.swapaxes(0, 1)}, model.graph.start(2), trace=False).outputs[answer]
    np.testing.assert_allclose(found, wanted, atol=1e-5 if answer == "y" else 0.1001)


def test_an_operator_without_a_rule_that_needs_several_steps_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    fused = ("FusedConv", ["padded", "kernel", "", "rows"], ["slid"], {"activation": "Relu"})
    written(path, [*BEFORE, fused, *AFTER])
    with pytest.raises(ModelRefused, match=r"\(?FusedConv.* and one step alone does not run, so it cannot be cut"):
        load(path, 2, 0.0)
