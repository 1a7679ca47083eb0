"""Cells of plain operators are known by their equations, in the forms in which people write them; others are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from stepgraph.loading import load
from tests.stepgraph.cells.streaming import streamed

if TYPE_CHECKING:
    from pathlib import Path

    from stepgraph.model import LoadedModel

TEXT = """<ir_version: 10, opset_import: ["": 17]> g (float[b,t,3] x) => (float[b,t,4] y) {
    one = Constant<value_float=1.0>()  half = Constant<value_float=0.5>()  BEFORE
    pa = MatMul(x, wa)  a = Sigmoid(pa)  pb = MatMul(x, wb)  b = Sigmoid(pb)  n = MatMul(x, wn)
    s = Shape<start=0, end=1>(x)  w = Constant<value_ints=[4]>()  size = Concat<axis=0>(s, w)
    z0 = ConstantOfShape(size)
    ENDS y = Scan<num_scan_inputs=3, scan_input_axes=[1, 1, 1], scan_output_axes=[1], body = step
        (STATES float[b,4] f, float[b,4] i, float[b,4] c) => (RESULTS float[b,4] out) { BODY }>(STARTS a, b, n) }
"""
MINIMAL = {
    "STATES": "float[b,4] h,",
    "RESULTS": "float[b,4] new,",
    "ENDS": "last,",
    "STARTS": "z0,",
    "BEFORE": "",
}
EXPONENTIAL = {
    "STATES": "float[b,4] h, float[b,4] k, float[b,4] m,",
    "RESULTS": "float[b,4] new, float[b,4] k2, float[b,4] m2,",
    "ENDS": "l1, l2, l3,",
    "STARTS": "z0, z0, z0,",
    "BEFORE": "",
}
MIN_GRU, MIN_LSTM = ("minGRU", ("update", "candidate")), ("minLSTM", ("forget", "input", "candidate"))
LERP = """d = Sub(c, h)  p = Mul(f, d)  u = Add(h, p)  r = Sub(one, f)  q = Mul(d, r)  v = Sub(c, q)
    k = Less(f, half)  new = Where(k, u, v)"""
FORMS = {
    "(1 - z) h + z n": (MIN_GRU, "r = Sub(one, f)  p = Mul(r, h)  q = Mul(f, c)  new = Add(p, q)"),
    "z n + h (1 - z)": (MIN_GRU, "r = Sub(one, f)  p = Mul(h, r)  q = Mul(c, f)  new = Add(q, p)"),
    "z h + (1 - z) n": (MIN_GRU, "r = Sub(one, f)  p = Mul(f, h)  q = Mul(r, c)  new = Add(p, q)"),
    "(-z + 1) h + z n": (MIN_GRU, "u = Neg(f)  r = Add(u, one)  p = Mul(r, h)  q = Mul(f, c)  new = Add(p, q)"),
    "s(-a) h + s(a) n": (
        MIN_GRU,
        "u = Neg(i)  r = Sigmoid(u)  v = Sigmoid(i)  p = Mul(r, h)  q = Mul(v, c) new = Add(p, q)",
    ),
    "h + z (n - h)": (MIN_GRU, "d = Sub(c, h)  p = Mul(d, f)  new = Add(p, h)"),
    "h - z (h - n)": (MIN_GRU, "d = Sub(h, c)  p = Mul(f, d)  new = Sub(h, p)"),
    "torch.lerp": (MIN_GRU, LERP),
    "(f h + i n) / (f + i)": (MIN_LSTM, "p = Mul(f, h)  q = Mul(i, c)  u = Add(p, q)  v = Add(i, f)  new = Div(u, v)"),
    "f / (f + i) h + i / (f + i) n": (
        MIN_LSTM,
        "v = Add(f, i)  p = Div(f, v)  q = Div(i, v)  r = Mul(p, h)  t = Mul(q, c)  new = Add(r, t)",
    ),
}
SLSTM = "p = Mul(f, k)  q = Mul(i, c)  k2 = Add(p, q)  r = Mul(f, m)  m2 = Add(r, i)  d = Div(k2, m2)  new = Mul(d, o)"


def loaded(parts: dict[str, str], body: str, path: Path) -> LoadedModel:
    text = TEXT
    for name, part in {**parts, "BODY": f"{body}  out = Identity(new)"}.items():
        text = text.replace(name, part)
    model, random = parser.parse_model(text), np.random.default_rng(0)
    weights = (numpy_helper.from_array(random.standard_normal((3, 4), np.float32), name) for name in ("wa", "wb", "wn"))
    model.graph.initializer.extend(weights)
    onnx.save(model, path / "model.onnx")
    return load(path / "model.onnx", 4, 0.0)


@pytest.mark.parametrize("form", FORMS)
def test_a_minimal_cell_is_known_by_its_equation_and_answers_as_its_file(form: str, tmp_path: Path) -> None:
    wanted, body = FORMS[form]
    model = loaded(MINIMAL, body, tmp_path)
    assert [(cell.kind, cell.gates) for cell in model.graph.layers] == [wanted]
    assert model.proof.unread == ""
    x = np.random.default_rng(1).standard_normal((2, 200, 3), np.float32)
    got = streamed(model, x)
    (whole,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(["y"], {"x": x})
    np.testing.assert_allclose(got["y"], whole.swapaxes(0, 1), atol=1e-5)
    np.testing.assert_allclose(got["hidden"], got["y"], atol=1e-6)


def test_an_slstm_is_known_by_its_equations(tmp_path: Path) -> None:
    model = loaded(EXPONENTIAL, f"g = Add(c, h)  o = Sigmoid(g)  {SLSTM}", tmp_path)
    (cell,) = model.graph.layers
    assert (cell.kind, cell.states) == ("sLSTM", ("hidden", "cell", "normaliser"))
    assert model.graph.gates_of(0) == ("input", "forget", "candidate", "output")


@pytest.mark.parametrize(
    "body",
    [
        "r = Sub(one, f)  p = Mul(r, h)  u = Add(c, h)  q = Mul(f, u)  new = Add(p, q)",
        "r = Sub(half, f)  p = Mul(r, h)  q = Mul(f, c)  new = Add(p, q)",
        "p = Mul(f, h)  q = Mul(i, c)  new = Add(p, q)",
        "p = Mul(f, h)  new = Add(p, c)",
    ],
    ids=["a gate that sees the state", "one half", "gates that do not add up to one", "leaky"],
)
def test_what_is_no_minimal_cell_is_served_without_gates(body: str, tmp_path: Path) -> None:
    model = loaded(MINIMAL, body, tmp_path)
    assert not model.graph.layers
    assert [state.loop for state in model.facts.looped]


def test_what_looks_like_a_cell_and_is_none_by_its_numbers_is_served_without_gates(tmp_path: Path) -> None:
    """It takes what stands at another place of the gate than the step's."""
    body = "z = Gather<axis=1>(f, at)  r = Sub(one, z)  p = Mul(r, h)  q = Mul(z, c)  new = Add(p, q)"
    parts = MINIMAL | {"BEFORE": "at = Constant<value_ints=[1]>()"}
    assert not loaded(parts, body, tmp_path).graph.layers
