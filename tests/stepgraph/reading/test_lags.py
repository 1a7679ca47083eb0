"""Lags as [zeros, x[:-n]]: served, though a file that makes them so has too many rows for sequences of fewer steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from stepgraph.loading import load
from stepgraph.reading import lags

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 200
TEXT = """<ir_version: 9, opset_import: ["": 19]> g (float[batch, time, 4] x) => (float[batch, time, 3] y) {
    one = Constant<value_ints = [1]>()  zero = Constant<value_ints = [0]>()  back = Constant<value_ints = [-LAG]>()
    zeros = Constant<value = float[1, 1, 4] {0, 0, 0, 0}>()  b = Shape<start = 0, end = 1>(x)
    four = Constant<value_ints = [4]>()  n = Constant<value_ints = [ROWS]>()  s = Concat<axis = 0>(b, n, four)
    rows = Expand(zeros, s)
    cut = Slice(x, zero, back, one)  late = Concat<axis = 1>(rows, cut)
    MORE
    turned = Transpose<perm = [1, 0, 2]>(z)  all, end = GRU<hidden_size = 3>(turned, W, R)  flat = Squeeze(all, one)
    y = Transpose<perm = [1, 0, 2]>(flat) }"""
MORE = {"alone": ("z = Identity(late)", 4), "beside the steps": ("z = Concat<axis = 2>(x, late)", 8)}


def written(lag: int, rows: int, more: str, folder: Path) -> Path:
    text, width = MORE[more]
    text = TEXT.replace("LAG", str(lag)).replace("ROWS", str(rows)).replace("MORE", text)
    model, random = parser.parse_model(text), np.random.default_rng(0)
    weights = {"W": (1, 9, width), "R": (1, 9, 3)}
    model.graph.initializer.extend(
        numpy_helper.from_array(random.standard_normal(shape, np.float32), name) for name, shape in weights.items()
    )
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("more", MORE)
@pytest.mark.parametrize("lag", [1, 2, 24])
def test_a_lag_of_zeros_before_a_sequence_without_its_end_is_proved_and_served(
    lag: int, more: str, tmp_path: Path
) -> None:
    path = written(lag, lag, more, tmp_path)
    model, x = load(path, 2, 0.0), np.random.default_rng(1).standard_normal((2, STEPS, 4), np.float32)
    assert model.proof.unread == ""
    (wanted,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    found = model.engine.run({"x": x.swapaxes(0, 1)}, model.graph.start(2), trace=False).outputs["y"]
    np.testing.assert_allclose(found.swapaxes(0, 1), wanted, atol=1e-5)


def test_what_puts_other_than_as_many_rows_before_a_sequence_as_it_takes_off_its_end_is_left_as_it_is(
    tmp_path: Path,
) -> None:
    model = onnx.load(written(2, 3, "alone", tmp_path))
    assert lags.cut_last(model) is model
