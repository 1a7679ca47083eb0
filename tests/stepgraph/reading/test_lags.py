"""Lags as [zeros, x[:-n]] and differences as [x[:n], x[n:] - x[:-n]], of which steps are made in two ways: served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from stepgraph.errors import ModelRefused
from stepgraph.loading import load
from stepgraph.reading import lags

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 200
TEXT = """<ir_version: 9, opset_import: ["": 19]> g (float[batch, time, 4] x) => (float[batch, time, 3] y) {
    one = Constant<value_ints = [1]>()  zero = Constant<value_ints = [0]>()  back = Constant<value_ints = [-LAG]>()
    zeros = Constant<value = float[1, 1, 4] {0, 0, 0, 0}>()  b = Shape<start = 0, end = 1>(x)
    four = Constant<value_ints = [4]>()  n = Constant<value_ints = [ROWS]>()  s = Concat<axis = 0>(b, n, four)
    rows = Expand(zeros, s)  most = Constant<value_ints = [9223372036854775807]>()
    first = Slice(x, zero, n, one)  twice = Add(first, first)  rest = Slice(x, n, most, one)
    cut = Slice(x, zero, back, one)  apart = Sub(rest, cut)  late = PARTS
    MORE
    turned = Transpose<perm = [1, 0, 2]>(z)  all, end = GRU<hidden_size = 3>(turned, W, R)  flat = Squeeze(all, one)
    y = Transpose<perm = [1, 0, 2]>(flat) }"""
PARTS = {"lag": "Concat<axis = 1>(rows, cut)", "difference": "Concat<axis = 1>(first, apart)"}
MORE = {"alone": ("z = Identity(late)", 4), "beside the steps": ("z = Concat<axis = 2>(x, late)", 8)}


def written(parts: str, lag: int, rows: int, more: str, folder: Path) -> Path:
    text, width = MORE[more]
    text = TEXT.replace("LAG", str(lag)).replace("ROWS", str(rows)).replace("MORE", text).replace("PARTS", parts)
    model, random = parser.parse_model(text), np.random.default_rng(0)
    weights = {"W": (1, 9, width), "R": (1, 9, 3)}
    model.graph.initializer.extend(
        numpy_helper.from_array(random.standard_normal(shape, np.float32), name) for name, shape in weights.items()
    )
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("more", MORE)
@pytest.mark.parametrize("lag", [1, 2, 24])
@pytest.mark.parametrize("parts", PARTS)
def test_what_a_file_makes_of_the_rows_of_some_steps_before_is_proved_and_served(
    parts: str, lag: int, more: str, tmp_path: Path
) -> None:
    path = written(PARTS[parts], lag, lag, more, tmp_path)
    model, x = load(path, 2, 0.0), np.random.default_rng(1).standard_normal((2, STEPS, 4), np.float32)
    assert model.proof.unread == ""
    (wanted,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    found = model.engine.run({"x": x.swapaxes(0, 1)}, model.graph.start(2), trace=False).outputs["y"]
    np.testing.assert_allclose(found.swapaxes(0, 1), wanted, atol=1e-5)


def test_what_puts_other_than_as_many_rows_before_a_sequence_as_it_takes_off_its_end_is_left_as_it_is(
    tmp_path: Path,
) -> None:
    model = onnx.load(written(PARTS["lag"], 2, 3, "alone", tmp_path))
    assert lags.alike(model) is model


def test_what_takes_more_off_an_axis_than_it_has_is_left_as_it_is(tmp_path: Path) -> None:
    model = onnx.load(written(PARTS["lag"], 2, 2, "alone", tmp_path))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    assert lags.alike(model) is model


def test_rows_of_the_data_that_are_put_before_the_steps_are_what_a_file_is_refused_for(tmp_path: Path) -> None:
    path = written("Concat<axis = 1>(twice, apart)", 1, 1, "alone", tmp_path)
    with pytest.raises(ModelRefused, match="puts rows that depend on the data before or after the steps"):
        load(path, 2, 0.0)
