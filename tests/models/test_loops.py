"""Recurrences that exporters wrote as `Loop` or `Scan`: as text and from torch's scripts, also with cells inside."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from server.errors import ModelRefused
from server.loader import load
from server.model import LoadedModel

INPUTS, HIDDEN = 3, 4
Array = NDArray[np.float32]

GRU = """
    a = Gemm<transB=1>(xt, w, bw)
    b = Gemm<transB=1>(h, r, br)
    az, ar, an = Split<axis=1, num_outputs=3>(a)
    bz, br_, bn = Split<axis=1, num_outputs=3>(b)
    zs = Add(az, bz)
    z = Sigmoid(zs)
    rs = Add(ar, br_)
    rg = Sigmoid(rs)
    rn = Mul(rg, bn)
    ns = Add(an, rn)
    n = Tanh(ns)
    d = Sub(h, n)
    zd = Mul(z, d)
    hn = Add(n, zd)
"""
RNN = """
    a = Gemm<transB=1>(xt, w, bw)
    b = Gemm<transB=1>(h, r, br)
    s = Add(a, b)
    hn = Tanh(s)
"""
ZEROS = """
    n0 = Shape<start=0, end=1>(x)
    four = Constant<value_ints=[4]>()
    size = Concat<axis=0>(n0, four)
    h0 = ConstantOfShape(size)
"""
STEPS = """
    steps = Shape<start=1, end=2>(x)
    none = Constant<value_ints=[0]>()
    m = Squeeze(steps, none)
    yes = Constant<value=bool {1}>()
"""


def write(path: Path, body: str, outputs: str = "float[b,t,4] y", gates: int = 1, more: str = "") -> Path:
    """A file from the text of its nodes; the weights of a cell of `gates` gates are `w`, `r`, `bw` and `br` in it."""
    text = f'<ir_version: 10, opset_import: ["": 20]> g (float[b,t,3] x{more}) => ({outputs}) {{{body}}}'
    model = parser.parse_model(text)
    random = np.random.default_rng(0)
    shapes = {"w": (INPUTS,), "r": (HIDDEN,), "bw": (), "br": ()}
    for name, shape in shapes.items():
        values = random.normal(0, 0.5, (gates * HIDDEN, *shape)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    path = path / "model.onnx"
    onnx.save(model, path)
    return path


def scan(body: str, attributes: str = "scan_input_axes=[1], scan_output_axes=[1]", sliced: str = "x") -> str:
    """A `Scan` that carries h and slices `sliced`; `body` makes hn from xt and h."""
    return f"""{ZEROS} last, y = Scan<num_scan_inputs=1, {attributes}, body = step (float[b,4] h, float[b,3] xt)
        => (float[b,4] hn, float[b,4] o) {{{body} o = Identity(hn)}}>(h0, {sliced})"""


def loop(body: str, again: str = "go = Identity(cond)") -> str:
    """A `Loop` that carries h and whose answers are stacked; `body` makes hn from x, i and h."""
    return f"""{ZEROS} {STEPS} last, all = Loop<body = step (int64 i, bool cond, float[b,4] h)
        => (bool go, float[b,4] hn, float[b,4] o) {{{body} o = Identity(hn) {again}}}>(m, yes, h0)
        y = Transpose<perm=[1,0,2]>(all)"""


def streamed(model: LoadedModel, x_BTI: Array, fixed: Mapping[str, Array] | None = None) -> Array:
    """What the server's steps answer, [B, T, ...]."""
    state, answers = np.tile(model.graph.initial, (len(x_BTI), 1)), []
    for t in range(x_BTI.shape[1]):
        result = model.engine.run({"x": x_BTI[np.newaxis, :, t], **(fixed or {})}, state, trace=True)
        state = result.state
        answers.append(result.outputs["y"][0])
    return np.stack(answers, 1)


def rows(steps: int = 7) -> Array:
    return np.random.default_rng(1).standard_normal((3, steps, INPUTS)).astype(np.float32)


def states(model: LoadedModel) -> list[tuple[int | None, str, int]]:
    return [(columns.layer, columns.name, columns.size) for columns in model.graph.state]


SERVED = {
    "a Scan": (scan(GRU), 3),
    "a Scan over the second axis by a transposed input": (
        f"xs = Transpose<perm=[1,0,2]>(x) {scan(RNN, 'scan_output_axes=[1]', 'xs')}",
        1,
    ),
    "a Loop that gathers its step": (loop(f"xt = Gather<axis=1>(x, i) {GRU}"), 3),
}


@pytest.mark.parametrize("name", SERVED)
def test_the_state_of_a_loop_over_the_steps_is_carried(name: str, tmp_path: Path) -> None:
    body, gates = SERVED[name]
    path = write(tmp_path, body, gates=gates)
    model = load(path, 4, 1.0)
    assert [size for _, _, size in states(model)] == [HIDDEN]
    (whole,) = onnxruntime.InferenceSession(path).run(["y"], {"x": rows()})
    np.testing.assert_allclose(streamed(model, rows()), whole, atol=1e-6)


MEAN = "ax = Constant<value_ints=[1]>() mean = ReduceMean"
AHEAD = "one = Constant<value_int=1>() j = Add(i, one) e = Sub(m, one) k = Min(j, e)"
HALF = """zero = Constant<value_ints=[0]>() end = Constant<value_ints=[9999]>() axis = Constant<value_ints=[1]>()
    two = Constant<value_ints=[2]>() xs = Slice(x, zero, end, axis, two)"""
REFUSED = {
    "a Scan backwards": (
        scan(RNN, "scan_input_axes=[1], scan_output_axes=[1], scan_input_directions=[1]"),
        "Scan.*runs backwards over the steps",
    ),
    "the number of the step": (
        loop(f"f = Cast<to=1>(i) g = Gather<axis=1>(x, i) xt = Mul(g, f) {RNN}"),
        "Loop.*cannot be cut into steps: its body computes with the number of the iteration, in the Mul",
    ),
    "the step after the present one": (
        loop(f"{AHEAD} xt = Gather<axis=1>(x, k) {RNN}"),
        "Loop.*computes with the number of the iteration, in the Add",
    ),
    "a mean over all steps in its body": (
        loop(f"{MEAN}<keepdims=0>(x, ax) xt = Identity(mean) {RNN}"),
        "Loop.*sees more of the input than the step that it is at",
    ),
    "a mean over all steps beside it": (
        f"{MEAN}<keepdims=1>(x, ax) xm = Add(x, mean) {scan(RNN, sliced='xm')}",
        "ReduceMean.*mixes steps",
    ),
    "every second step": (HALF + scan(RNN, sliced="xs"), "Scan.*runs 2 times for 3 steps and 3 times for 6"),
    "a start that depends on the input": (
        scan(RNN).replace("h0 = ConstantOfShape(size)", f"{MEAN}<keepdims=0>(x, ax) h0 = Gemm<transB=1>(mean, w, bw)"),
        "Scan.*carries 'h', which starts from a state that depends on its input",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_loop_that_cannot_be_cut_into_steps_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    body, reason = REFUSED[name]
    with pytest.raises(ModelRefused, match=reason) as refused:
        load(write(tmp_path, body), 4, 1.0)
    assert refused.value.node
