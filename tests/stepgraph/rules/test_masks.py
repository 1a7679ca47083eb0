"""Masks that are made of a count of the steps and of the lengths of sequences, as exporters write them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from stepgraph.graphs.graph import Graph
from stepgraph.rules.axes import ROWS, TIME
from stepgraph.rules.reader import Reader
from stepgraph.rules.size import STEPS, size
from stepgraph.rules.value import Value

BEGIN = """
    z = Constant<value_int=0>()  one = Constant<value_int=1>()  zero = Constant<value_float=0.0>()
    a1 = Constant<value_ints=[1]>()  a2 = Constant<value_ints=[2]>()  z1 = Constant<value_ints=[0]>()
    t1 = Shape<start=1, end=2>(x)  t = Squeeze(t1)  most = ReduceMax<keepdims=0>(n)
"""
STEPS_OF = {"its steps": "r = Range(z, t, one)", "the longest sequence": "r = Range(z, most, one)"}
MASKS = {
    "kept": "n2 = Unsqueeze(n, a1)  m = Less(r, n2)  m3 = Unsqueeze(m, a2)  y = Where(m3, x, zero)",
    "the other way round": "n2 = Unsqueeze(n, a1)  m = Greater(n2, r)  m3 = Unsqueeze(m, a2)  y = Where(m3, x, zero)",
    "left out": "n2 = Unsqueeze(n, a1)  m = GreaterOrEqual(r, n2)  m3 = Unsqueeze(m, a2)  y = Where(m3, zero, x)",
    "as a factor": "n2 = Unsqueeze(n, a1)  m = Less(r, n2)  m3 = Unsqueeze(m, a2)  f = Cast<to=1>(m3)  y = Mul(f, x)",
}
VARYING = {
    "all but the last": "u = Sub(n, one)  n2 = Unsqueeze(u, a1)  m = Less(r, n2)  m3 = Unsqueeze(m, a2)",
    "from the second on": "m = Greater(r, z)  m2 = Unsqueeze(m, z1)  m3 = Unsqueeze(m2, a2)",
    "not the first by halves": """h = Constant<value_float=0.5>()  f = Cast<to=1>(r)  g = Add(f, h)  k = Cast<to=1>(z)
        m = Greater(g, h)  m2 = Unsqueeze(m, z1)  m3 = Unsqueeze(m2, a2)""",
}


def read(body: str) -> Value:
    """Of x [rows, steps, 3] and n, the lengths of the sequences, which are as long as there are steps."""
    text = f'<ir_version: 10, opset_import: ["": 17]> g (float[b,t,3] x, int64[b] n) => (y) {{{BEGIN} {body}}}'
    x, lengths = Value(((ROWS,), (TIME,), (3,)), live=True), Value(((ROWS,),), number=np.array(size(STEPS), object))
    return Reader(Graph(parser.parse_model(text))).values({"x": x, "n": lengths})["y"]


@pytest.mark.parametrize("steps", STEPS_OF)
@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_that_keeps_every_step_is_local(steps: str, mask: str) -> None:
    value = read(f"{STEPS_OF[steps]}  {MASKS[mask]}")
    assert value.finding is None
    assert not value.far


def test_a_cut_to_the_longest_sequence_keeps_every_step() -> None:
    assert read("end = Unsqueeze(most, z1)  y = Slice(x, z1, end, a1)").axes == ((ROWS,), (TIME,), (3,))


@pytest.mark.parametrize("mask", VARYING)
def test_a_mask_that_differs_from_step_to_step_is_not_local(mask: str) -> None:
    value = read(f"{STEPS_OF['its steps']}  {VARYING[mask]}  y = Where(m3, x, zero)")
    assert value.finding is not None


def test_a_buffer_that_each_step_is_written_to_is_local() -> None:
    value = read("""r = Range(z, t, one)  s = Shape(x)  b = ConstantOfShape(s)  places = Unsqueeze(r, a1)
        xt = Transpose<perm=[1,0,2]>(x)  bt = Transpose<perm=[1,0,2]>(b)  w = ScatterND(bt, places, xt)
        y = Transpose<perm=[1,0,2]>(w)""")
    assert value.finding is None
    assert value.axes == ((ROWS,), (TIME,), (3,))


SORTED = "b1 = Shape<start=0, end=1>(n)  sorted, order = TopK<axis=-1>(n, b1)  s = Gather(x, order)"
BACK = """b = Squeeze(b1)  places = Range(z, b, one)  none = ConstantOfShape<value = int64[1] {0}>(b1)
    back = ScatterElements(none, order, places)  y = Gather(s, back)"""


def test_sequences_that_are_sorted_by_their_lengths_and_back_are_those_that_came() -> None:
    value = read(f"{SORTED}  {BACK}")
    assert value.finding is None
    assert value.axes == ((ROWS,), (TIME,), (3,))


@pytest.mark.parametrize("places", ["b1 = Shape<start=0, end=1>(n)  b = Squeeze(b1)", f"{SORTED}  b = Squeeze(b1)"])
def test_sequences_at_other_places_than_their_own_are_not_those_that_came(places: str) -> None:
    value = read(f"{places}  r = Range(z, b, one)  r1 = Add(r, one)  m = Mod(r1, b)  y = Gather(x, m)")
    assert value.finding is not None
    assert value.finding.kind == "rows"
