"""States that the file takes in begin as model.toml says, and are proved so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import stepgraph
from tests.table_model import write

if TYPE_CHECKING:
    from pathlib import Path

H0, C0 = 0.5, [[0.1, -0.2, 2.0]]
TOML = f"[start]\nh0 = {H0}\nc0 = {C0}\n"


def _lstm(*, returns: bool) -> onnx.ModelProto:
    """An LSTM that takes in both of its states, and hands them out if it `returns` them."""
    random, real = np.random.default_rng(0), onnx.TensorProto.FLOAT
    weights = {"W": (1, 12, 2), "R": (1, 12, 3)}
    state = [helper.make_tensor_value_info(name, real, [1, "batch", 3]) for name in ("h0", "c0", "hn", "cn")]
    graph = helper.make_graph(
        [
            helper.make_node("LSTM", ["x", "W", "R", "", "", "h0", "c0"], ["Y", "hn", "cn"], "lstm", hidden_size=3),
            helper.make_node("Squeeze", ["Y", "direction"], ["y"]),
        ],
        "lstm",
        [helper.make_tensor_value_info("x", real, ["time", "batch", 2]), *state[:2]],
        [helper.make_tensor_value_info("y", real, ["time", "batch", 3]), *(state[2:] if returns else [])],
        [
            *(numpy_helper.from_array(random.standard_normal(s).astype(np.float32), n) for n, s in weights.items()),
            numpy_helper.from_array(np.array([1]), "direction"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("returns", [True, False])
def test_a_sequence_begins_with_what_model_toml_says_of_a_state(tmp_path: Path, returns: bool) -> None:
    path = write(tmp_path, _lstm(returns=returns), TOML)
    x = np.random.default_rng(1).standard_normal((20, 1, 2)).astype(np.float32)
    begun = {"h0": np.full((1, 1, 3), H0, np.float32), "c0": np.array([C0], np.float32)}
    (wanted,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["y"], {"x": x, **begun})
    model, state, got = stepgraph.load(path), None, []
    for row in x[:, 0]:
        answer, state = model.step(row, state)
        got.append(answer.outputs["y"])
    np.testing.assert_allclose(np.stack(got), wanted[:, 0], rtol=1e-5, atol=1e-6)


def test_a_state_that_is_shown_and_not_returned_begins_with_zeros_where_nothing_is_said(tmp_path: Path) -> None:
    loaded = stepgraph.load(write(tmp_path, _lstm(returns=False))).loaded
    assert not loaded.graph.initial.any()


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        (
            "[start]\nh = 0",
            "what 'h' begins with, and no state is taken in by that name; it takes in h0, c0",
        ),
        (
            "[start]\nh0 = [1, 2]",
            r"with \[1, 2\]; expected one finite number, or numbers in its shape \[1, 3\]",
        ),
        ("[start]\nh0 = inf", "begins with inf; expected one finite number"),
        ('[start]\nh0 = "zero"', "begins with 'zero'; expected one finite number"),
        ("start = 3", r"expected the tables \[state\], \[start\]"),
    ],
)
def test_a_start_that_does_not_fit_is_refused_with_what_was_expected(tmp_path: Path, toml: str, sentence: str) -> None:
    with pytest.raises(stepgraph.ModelRefused, match=sentence):
        stepgraph.load(write(tmp_path, _lstm(returns=True), toml))
