"""Files that once got a wrong verdict: served with the right numbers over 200 steps, or refused for the true cause."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import numpy_helper

from stepgraph.errors import ModelRefused
from stepgraph.file import servable
from stepgraph.graphs.ordering import order
from stepgraph.loading import load
from stepgraph.model import LoadedModel
from tidegate import wire

CASES = Path(__file__).parent / "cases"
STEPS = 200


def streamed(loaded: LoadedModel, x: np.ndarray) -> dict[str, np.ndarray]:
    """What the engine answers to x [B, T, I] step by step, [B, T, ...] by output."""
    (port,) = loaded.graph.inputs
    state = np.tile(loaded.graph.initial, (len(x), 1))
    rows: dict[str, list[np.ndarray]] = {}
    for step in range(x.shape[1]):
        result = loaded.engine.run({port.name: np.moveaxis(x[:, step : step + 1], 0, 1)}, state, trace=False)
        state = result.state
        for name, value in result.outputs.items():
            rows.setdefault(name, []).append(value[0])
    return {name: np.stack(values, 1) for name, values in rows.items()}


def whole(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """What onnxruntime answers to the untouched file, with zeros for its states."""
    options = onnxruntime.SessionOptions()  # its optimiser crashes on one of these files
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(path, options)
    shapes = {i.name: [len(x) if d == "batch" else d for d in i.shape] for i in session.get_inputs()[1:]}
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    states = {i.name: np.zeros(shapes[i.name], types[i.type]) for i in session.get_inputs()[1:]}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: x} | states), strict=True))


@pytest.mark.parametrize(("name", "tolerance"), [("constant_output", 1e-5), ("pcm", 1), ("half_by_onnxruntime", 5e-3)])
def test_it_is_served_with_the_numbers_of_the_untouched_file(name: str, tolerance: float) -> None:
    loaded = load(CASES / f"{name}.onnx", 4, 1.0)
    (port,) = loaded.graph.inputs
    x = np.random.default_rng(0).normal(size=(2, STEPS, *port.row)).astype(port.dtype)
    wanted = whole(CASES / f"{name}.onnx", x)
    for output, got in streamed(loaded, x).items():
        np.testing.assert_allclose(got.astype(float), wanted[output].astype(float), atol=tolerance)


GRU = """<ir_version: 9, opset_import: ["": 19, "ai.onnx.ml": 3]> g (float[batch, time, 4] x) => (OUT) {
  turned = Transpose<perm = [1, 0, 2]>(x)
  Y, last = GRU<hidden_size = 8>(turned, W, R)
  flat = Squeeze(Y, one)
  h = Transpose<perm = [1, 0, 2]>(flat)
  BODY
}"""
ALL = "float[batch, time, n] y"
CONSTANTS = {"one": np.array([1]), "hundred": np.float32(100), "scale": np.float32(0.01), "zero": np.uint8(128)}
WORDS = onnx.helper.make_tensor("words", onnx.TensorProto.STRING, [2], [b"no", b"yes"])


def written(folder: Path, body: str, out: str = ALL) -> Path:
    """A file of the same kind as one of the cases, made for the test."""
    model, random = onnx.parser.parse_model(GRU.replace("OUT", out).replace("BODY", body)), np.random.default_rng(0)
    weights = {"W": random.standard_normal((1, 24, 4), np.float32), "R": random.standard_normal((1, 24, 8), np.float32)}
    made = (numpy_helper.from_array(value, name) for name, value in (CONSTANTS | weights).items())
    model.graph.initializer.extend([*made, WORDS])
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


GRIDS = {
    "whole numbers of 16 bits": "s = Mul(h, hundred)  y = Cast<to = 5>(s)",
    "rounded down": "s = Mul(h, hundred)  y = Floor(s)",
    "two places behind the point": "s = Mul(h, hundred)  r = Round(s)  y = Div(r, hundred)",
    "8 bits and their scale": "q = QuantizeLinear(h, scale, zero)  y = DequantizeLinear(q, scale, zero)",
}


@pytest.mark.parametrize("grid", GRIDS)
def test_answers_on_a_grid_are_those_of_the_file_or_their_neighbours(grid: str, tmp_path: Path) -> None:
    out = ALL.replace("float", "int16") if "16 bits" in grid else ALL
    path = written(tmp_path, GRIDS[grid], out)
    loaded = load(path, 4, 1.0)
    (port,) = loaded.facts.outputs
    unit = 0.01 if "places" in grid or "8 bits" in grid else 1.0
    assert port.unit == pytest.approx(unit) or "8 bits" in grid, "these are proved without their rounding"
    x = np.random.default_rng(0).standard_normal((2, STEPS, 4), np.float32)
    wanted, got = whole(path, x)["y"].astype(float), streamed(loaded, x)["y"].astype(float)
    assert np.abs(got - wanted).max() <= 1.001 * unit
    assert np.isclose(got, wanted, atol=unit / 100).mean() > 0.99


OF_NO_STEP = {
    "a version": ("v = Constant<value_ints = [3]>()  y = Identity(h)", f"{ALL}, int64[1] v"),
    "the size of a memory": ("v = Constant<value_float = 8.0>()  y = Identity(h)", f"{ALL}, float v"),
    "the shape of the weights": ("v = Shape(R)  y = Identity(h)", f"{ALL}, int64[3] v"),
}


@pytest.mark.parametrize("kind", OF_NO_STEP)
def test_whatever_belongs_to_no_step_is_left_out_and_the_rest_is_served(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, *OF_NO_STEP[kind])
    loaded = load(path, 4, 1.0)
    assert loaded.facts.left_out == ("v",)
    x = np.random.default_rng(0).standard_normal((2, STEPS, 4), np.float32)
    got = streamed(loaded, x)
    assert got.keys() == {"y"}
    np.testing.assert_allclose(got["y"], whole(path, x)["y"], atol=1e-5)


NOT_CARRIED = {
    "words by their place": (
        "a = ArgMax<axis = 2, keepdims = 0>(h)  b = Clip(a, zero_, one_)  v = Gather(words, b)  y = Identity(h)",
        f"{ALL}, string[batch, time] v",
        r"output 'v' returns text.*leave_out = \[\"v\"\]",
    ),
    "a list": (
        "v = SplitToSequence<axis = 2>(h)  y = Identity(h)",
        f"{ALL}, seq(float[batch, time, 1]) v",
        r"output 'v' returns a value that is no tensor \(sequence\)",
    ),
    "numbers of a short type": (
        "v = Cast<to = 16>(h)  y = Identity(h)",
        f"{ALL}, bfloat16[batch, time, 8] v",
        r"returns numbers of the type bfloat16",
    ),
}


@pytest.mark.parametrize("kind", NOT_CARRIED)
def test_an_output_that_no_message_carries_is_refused_by_its_name(kind: str, tmp_path: Path) -> None:
    body, out, match = NOT_CARRIED[kind]
    body = "zero_ = Constant<value_int = 0>()  one_ = Constant<value_int = 1>()  " + body
    with pytest.raises(ModelRefused, match=match):
        load(written(tmp_path, body, out), 4, 1.0)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            "optional(float[1, b, 8])",
            r"a value that is no tensor \(optional\).*Export the file with a tensor in its place",
        ),
        ("bfloat16[1, b, 8]", r"numbers of the type bfloat16.*Let the file take float32, and cast it"),
        ("string[1, b, 8]", r"text.*Let clients send the index of each word"),
    ],
)
def test_an_input_that_no_message_carries_is_refused_with_what_would_be_carried(
    kind: str, words: str, tmp_path: Path
) -> None:
    text = f"g ({kind} x) => (float[1, b, 8] y) {{ y = Identity(x) }}"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 19]> {text}'), tmp_path / "model.onnx")
    with pytest.raises(ModelRefused, match=words):
        load(tmp_path / "model.onnx", 4, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_nodes_in_any_order_give_the_same_answers(seed: int, tmp_path: Path) -> None:
    path = written(tmp_path, "s = Mul(h, scale)  t = Tanh(s)  y = Sub(t, h)")
    x = np.random.default_rng(0).standard_normal((2, STEPS, 4), np.float32)
    wanted, model = whole(path, x)["y"], onnx.load(path)
    nodes = [model.graph.node[i] for i in np.random.default_rng(seed).permutation(len(model.graph.node))]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)
    np.testing.assert_allclose(streamed(load(path, 4, 1.0), x)["y"], wanted, atol=1e-5)


def test_an_output_that_belongs_to_no_step_is_left_out_with_a_note() -> None:
    loaded = load(CASES / "constant_output.onnx", 4, 1.0)
    assert "scale" not in [port.name for port in loaded.graph.outputs]
    assert loaded.facts.left_out == ("scale",)


def test_outputs_that_hold_rounded_numbers_know_their_spacing() -> None:
    (port,) = load(CASES / "pcm.onnx", 4, 1.0).facts.outputs
    assert port.unit == 1.0


def test_text_in_or_out_is_refused_and_an_output_of_text_can_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"input 'word' takes text"):
        load(CASES / "strings.onnx", 4, 1.0)
    with pytest.raises(ModelRefused, match=r'output \'label\' returns text.*leave_out = \["label"\]'):
        load(CASES / "labels.onnx", 4, 1.0)
    path = Path(shutil.copy(CASES / "labels.onnx", tmp_path / "model.onnx"))
    path.with_name("model.toml").write_text('[outputs]\nleave_out = ["label"]\n')
    loaded = load(path, 4, 1.0)
    x = np.random.default_rng(0).normal(size=(2, STEPS, 4)).astype(np.float32)
    wanted = onnxruntime.InferenceSession(path).run(["y"], {"x": x})[0]
    np.testing.assert_allclose(streamed(loaded, x)["y"], wanted, atol=1e-5)


@pytest.mark.parametrize("said", ['leave_out = "y"', "leave_out = [1]", 'keep = ["y"]', 'leave_out = ["z"]'])
def test_what_model_toml_says_of_outputs_is_checked(said: str, tmp_path: Path) -> None:
    path = Path(shutil.copy(CASES / "pcm.onnx", tmp_path / "model.onnx"))
    path.with_name("model.toml").write_text(f"[outputs]\n{said}\n")
    with pytest.raises(ModelRefused, match=r"model\.toml (says|leaves out)"):
        load(path, 4, 1.0)


def test_a_file_that_draws_random_numbers_is_refused_with_the_node() -> None:
    with pytest.raises(ModelRefused, match=r"\(RandomNormalLike\) draws random numbers"):
        load(CASES / "sampling_policy.onnx", 4, 1.0)


def test_nodes_in_any_order_are_sorted_and_a_circle_is_refused(tmp_path: Path) -> None:
    model = onnx.load(CASES / "constant_output.onnx")
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    shuffled = tmp_path / "model.onnx"
    onnx.save(model, shuffled)
    assert load(shuffled, 4, 1.0).facts.left_out == ("scale",)
    first = next(node for node in model.graph.node if node.op_type == "Transpose")
    first.input[0] = model.graph.output[0].name
    order(model.graph)
    onnx.save(model, shuffled)
    with pytest.raises(ModelRefused, match="circle"):
        load(shuffled, 4, 1.0)


def test_the_types_that_are_served_are_those_that_a_message_carries() -> None:
    numbers = map(onnx.TensorProto.DataType.Value, servable.TYPES)
    assert {onnx.helper.tensor_dtype_to_np_dtype(number) for number in numbers} == {
        np.dtype(kind) for kind in wire._DTYPES.values()
    }


def test_what_no_output_needs_keeps_no_file_from_being_served(tmp_path: Path) -> None:
    """A convolution that a single step is too short for."""
    ones = ", ".join("1" * 16)
    path = written(
        tmp_path,
        f"""t = Transpose<perm = [0, 2, 1]>(h)  q = QuantizeLinear(t, scale, zero)
        k = Constant<value = uint8[1, 8, 2] {{{ones}}}>()  dead = ConvInteger(q, k)  y = Identity(h)""",
    )
    x = np.random.default_rng(0).standard_normal((2, STEPS, 4), np.float32)
    np.testing.assert_allclose(streamed(load(path, 4, 1.0), x)["y"], whole(path, x)["y"], atol=1e-5)
