"""What no rule is for is served as tried, with a remark that names it; random operators are found wherever they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from stepgraph.errors import ModelRefused
from stepgraph.loading import load
from stepgraph.report import examination

if TYPE_CHECKING:
    from pathlib import Path

INPUTS, HIDDEN = 4, 3
TEXT = """<ir_version: 10, opset_import: ["": OPSET]> g (float[b,t,4] x) => (float[b,t,3] y) {
    one = Constant<value_ints=[1]>()  image = Constant<value_ints=[-1, 1, 2, 2]>()
    shape = Shape(x)  BODY
    turned = Transpose<perm=[1, 0, 2]>(z)  Y, last = GRU<hidden_size=3>(turned, W, R)
    flat = Squeeze(Y, one)  y = Transpose<perm=[1, 0, 2]>(flat) }"""
UNREAD = {
    "MaxUnpool": "f = Reshape(x, image)  p, i = MaxPool<kernel_shape=[2, 2]>(f)  "
    "u = MaxUnpool<kernel_shape=[2, 2]>(p, i)  z = Reshape(u, shape)",
    "TfIdfVectorizer": "f = Cast<to=6>(x)  r = Constant<value_ints=[-1, 4]>()  k = Reshape(f, r)  "
    'n = TfIdfVectorizer<mode="TF", min_gram_length=1, max_gram_length=1, max_skip_count=0, ngram_counts=[0], '
    "ngram_indexes=[0, 1, 2, 3], pool_int64s=[0, 1, 2, -1]>(k)  z = Reshape(n, shape)",
    "RoiAlign": "f = Reshape(x, image)  n = Shape<start=0, end=1>(f)  four = Constant<value_ints=[4]>()  "
    "s = Concat<axis=0>(n, four)  unit = Constant<value_floats=[1.0]>()  rois = Expand(unit, s)  count = Squeeze(n)  "
    "zero = Constant<value_int=0>()  by = Constant<value_int=1>()  of = Range(zero, count, by)  "
    "a = RoiAlign<output_height=2, output_width=2>(f, rois, of)  z = Reshape(a, shape)",
    "SequenceMap": "q = SplitToSequence<axis=1, keepdims=0>(x)  "
    "m = SequenceMap<body = b (float[b,4] a) => (float[b,4] c) { c = Tanh(a) }>(q)  "
    "z = ConcatFromSequence<axis=1, new_axis=1>(m)",
}
RANDOM = {
    "a loop over steps": "n = Shape<start=0, end=1>(x)  four = Constant<value_ints=[4]>()  s = Concat<axis=0>(n, four) "
    "h0 = ConstantOfShape(s)  l, z = Scan<num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1], body = b "
    "(float[b,4] h, float[b,4] a) => (float[b,4] k, float[b,4] o) { r = RandomNormalLike(a)  v = Add(a, r)  "
    "k = Add(h, v)  o = Identity(k) }>(h0, x)",
    "a loop within a step": "k = Constant<value_int=3>()  yes = Constant<value=bool {1}>()  z = Loop<body = b "
    "(int64 i, bool c, float[b,t,4] a) => (bool go, float[b,t,4] o) { r = RandomNormalLike(a)  o = Add(a, r)  "
    "go = Identity(c) }>(k, yes, x)",
    "a branch": "yes = Constant<value=bool {1}>()  z = If<then_branch = a () => (float[b,t,4] o) "
    "{ o = RandomUniformLike(x) }, else_branch = d () => (float[b,t,4] p) { p = Identity(x) }>(yes)",
}


def written(body: str, path: Path) -> Path:
    model, random = parser.parse_model(TEXT.replace("OPSET", "17").replace("BODY", body)), np.random.default_rng(0)
    for name, size in (("W", INPUTS), ("R", HIDDEN)):
        values = random.standard_normal((1, 3 * HIDDEN, size), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    onnx.save(model, path / "model.onnx")
    return path / "model.onnx"


@pytest.mark.parametrize("operator", UNREAD)
def test_an_operator_without_a_rule_is_served_as_tried_and_named(operator: str, tmp_path: Path) -> None:
    path = written(UNREAD[operator], tmp_path)
    model = load(path, 2, 0.0)
    assert f"the {operator} that makes" in model.proof.unread
    assert any(operator in remark for remark in examination.examine(path).remarks)
    x = np.random.default_rng(1).standard_normal((200, 2, INPUTS), np.float32)
    served = model.engine.run({"x": x}, model.graph.start(2), trace=False).outputs["y"]
    (whole,) = onnxruntime.InferenceSession(path).run(["y"], {"x": x.swapaxes(0, 1)})
    np.testing.assert_allclose(served, whole.swapaxes(0, 1), atol=1e-5)


@pytest.mark.parametrize("place", RANDOM)
def test_random_numbers_are_named_wherever_they_are_drawn(place: str, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"draws random numbers: equal sequences get different answers.*\[random\]"):
        load(written(RANDOM[place], tmp_path), 2, 0.0)
