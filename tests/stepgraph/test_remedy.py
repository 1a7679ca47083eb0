"""A refusal says what model.toml would have to say, and with that the file is served as its own numbers have it."""

from __future__ import annotations

import shutil
from pathlib import Path
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
    from stepgraph.model import LoadedModel

CASES = Path(__file__).parents[1] / "models" / "cases"
STEPS = 20
HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'

# a memory block without cells: the last two rows of each sequence go in and out; the axis of time is not the last one
MEMORY = """agraph (float[1, frames, 4] x, float[1, 2, 4] past_rows) =>
(float[1, later, 4] y, float[1, 2, 4] next_rows) {
  seen = Concat<axis = 1>(past_rows, x)
  turned = Transpose<perm = [0, 2, 1]>(seen)
  mixed = Conv<group = 4>(turned, kernel)
  y = Transpose<perm = [0, 2, 1]>(mixed)
  next_rows = Slice(seen, from, to, axis)
}"""
# samples and frames: eight samples of sound for each frame of features
TWO_RATES = """agraph (float[batch, samples] sound, float[batch, frames, 3] features) => (float[batch, frames, 4] y) {
  blocks = Reshape(sound, eight)
  both = Concat<axis = 2>(blocks, features)
  turned = Transpose<perm = [1, 0, 2]>(both)
  seen, last = RNN<hidden_size = 4>(turned, W, R)
  flat = Squeeze(seen, axis)
  y = Transpose<perm = [1, 0, 2]>(flat)
}"""
# two series, of which one has three rows for each of the other; each has a cell of its own
TWO_SERIES = """agraph (float[batch, ticks, 3] quick, float[batch, hours, 3] slow) => (float[batch, ticks, 4] y) {
  q = Transpose<perm = [1, 0, 2]>(quick)
  a, la = RNN<hidden_size = 4>(q, W, R)
  s = Transpose<perm = [1, 0, 2]>(slow)
  b, lb = RNN<hidden_size = 4>(s, W, R)
  often = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">(b, , scales)
  both = Add(a, often)
  flat = Squeeze(both, axis)
  y = Transpose<perm = [1, 0, 2]>(flat)
}"""
# two rates of sound, of which one decides the branch; the state has no cell
RATE = """agraph (float[batch, samples] x, int64 rate, float[batch, 4] state) =>
(float[batch, 4] y, float[batch, 4] stateN) {
  fast = Equal(rate, many)
  one = ReduceMean<axes = [1], keepdims = 1>(x)
  wide = Gemm(x, square)
  y = If(fast) <
    then_branch = g1 () => (float[batch, 4] t) { t = Add(one, state) },
    else_branch = g2 () => (float[batch, 4] e) { e = Add(wide, state) }
  >
  stateN = Tanh(y)
}"""


def written(text: str, folder: Path, **constants: np.ndarray | list[int]) -> Path:
    model = parser.parse_model(HEAD + text)
    random = np.random.default_rng(0)
    for name, value in constants.items():
        shape = value if isinstance(value, tuple) else None
        array = random.normal(0, 0.5, shape).astype(np.float32) if shape else np.array(value, np.int64)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def served(path: Path) -> LoadedModel:
    """The model once what the refusal says is written beside it."""
    with pytest.raises(ModelRefused, match=r"served once model\.toml beside it says") as refused:
        load(path, 4, 1.0)
    path.with_name("model.toml").write_text("\n".join(refused.value.remedy))
    return load(path, 4, 1.0)


def test_a_memory_block_without_cells_is_served_with_its_states_and_one_row_a_step(tmp_path: Path) -> None:
    path = written(MEMORY, tmp_path, kernel=(4, 1, 3), **{"from": [-2]}, to=[2**31], axis=[1])
    assert examination.examine(path).example[-1] == "x = 1"
    model = served(path)
    x = np.random.default_rng(1).standard_normal((1, STEPS, 4)).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(path).run(["y"], {"x": x, "past_rows": np.zeros((1, 2, 4), np.float32)})
    state = model.graph.initial[np.newaxis]
    for step in range(STEPS):
        result = model.engine.run({"x": x[np.newaxis, :, step : step + 1]}, state, trace=False)
        state = result.state
        np.testing.assert_allclose(result.outputs["y"][0, 0, 0], wanted[0, step], atol=1e-6)


def test_two_inputs_of_different_rate_are_served_once_the_samples_of_a_step_are_said(tmp_path: Path) -> None:
    path = written(TWO_RATES, tmp_path, eight=[0, -1, 8], W=(1, 4, 11), R=(1, 4, 4), axis=[1])
    model = served(path)
    random = np.random.default_rng(1)
    sound, features = (random.standard_normal(shape).astype(np.float32) for shape in ((1, STEPS * 8), (1, STEPS, 3)))
    (wanted,) = onnxruntime.InferenceSession(path).run(None, {"sound": sound, "features": features})
    state = model.graph.initial[np.newaxis]
    for step in range(STEPS):
        one = {"sound": sound[np.newaxis, :, step * 8 : step * 8 + 8], "features": features[np.newaxis, :, step]}
        result = model.engine.run(one, state, trace=False)
        state = result.state
        np.testing.assert_allclose(result.outputs["y"][0, 0], wanted[0, step], atol=1e-6)


def test_two_series_of_different_rate_are_served_once_the_rows_of_a_step_are_said(tmp_path: Path) -> None:
    path = written(TWO_SERIES, tmp_path, W=(1, 4, 3), R=(1, 4, 4), axis=[1])
    scales = numpy_helper.from_array(np.array([3, 1, 1, 1], np.float32), "scales")
    whole = onnx.load(path)
    whole.graph.initializer.append(scales)
    onnx.save(whole, path)
    with pytest.raises(ModelRefused, match=r"a step has several rows of 'quick', and of other inputs one.*quick = 3"):
        load(path, 4, 1.0)
    path.with_name("model.toml").write_text("[block]\nquick = 3\n")
    model = load(path, 4, 1.0)
    random = np.random.default_rng(1)
    quick, slow = (random.standard_normal((1, STEPS * n, 3)).astype(np.float32) for n in (3, 1))
    (wanted,) = onnxruntime.InferenceSession(path).run(None, {"quick": quick, "slow": slow})
    steps = {"quick": quick.reshape(STEPS, 1, 3, 3), "slow": slow.reshape(STEPS, 1, 3)}
    found = model.engine.run(steps, model.graph.start(1), trace=False).outputs["y"]
    np.testing.assert_allclose(found.reshape(1, 3 * STEPS, 4), wanted, atol=1e-6)


def test_the_state_the_value_and_the_size_that_hide_one_another_are_said_together(tmp_path: Path) -> None:
    model = served(written(RATE, tmp_path, many=16000, square=(10, 4)))
    assert [(c.given.name, c.returned.name) for c in model.facts.carried] == [("state", "stateN")]


def test_what_is_drawn_at_random_is_left_out_where_other_outputs_are_not(tmp_path: Path) -> None:
    path = Path(shutil.copy(CASES / "sampling_policy.onnx", tmp_path / "model.onnx"))
    drawn = onnx.load(path)
    logits = next(node.input[0] for node in drawn.graph.node if node.op_type in ("Multinomial", "RandomNormalLike"))
    drawn.graph.output.append(onnx.helper.make_tensor_value_info(logits, onnx.TensorProto.FLOAT, None))
    onnx.save(drawn, path)
    assert [port.name for port in served(path).facts.outputs] == [logits]


def test_what_no_model_toml_can_mend_is_refused_as_before(tmp_path: Path) -> None:
    text = "agraph (float[batch, time, 4] x) => (float[batch, 1, 4] y) { y = ReduceMean<axes = [1]>(x) }"
    with pytest.raises(ModelRefused) as refused:
        load(written(text, tmp_path), 4, 1.0)
    assert not refused.value.remedy
