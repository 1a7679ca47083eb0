"""Files that draw random numbers: refused by the node, or served with a seed in each sequence's state."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

import stepgraph
from stepgraph.errors import ModelRefused
from stepgraph.file.sidecar import parse
from stepgraph.library import Model
from stepgraph.loading import load
from stepgraph.report import example, remarks
from stepgraph.rewriting.stepgraph import SEED
from tests.onnx_writer import Layer, Writer

CASES = Path(__file__).parents[1] / "cases"
ALLOWED = "[random]\nallow = true\n"
INPUTS, WIDTH, STEPS = 3, 50, 200

Export = Callable[..., Path]

Draw = Callable[[Writer, str], str]


def scalar(g: Writer, value: float | bool) -> str:
    return g.constant(np.asarray(value, bool if isinstance(value, bool) else np.float32))


def zeros(g: Writer, hidden: str) -> str:
    return g.op("Mul", hidden, scalar(g, 0.0))


def chosen(g: Writer, hidden: str) -> str:
    """Three classes, the middle one never: their logits from [batch, WIDTH]."""
    rows = g.op("MatMul", zeros(g, hidden), g.constant(np.zeros((WIDTH, 3), np.float32)))
    return g.op("Add", rows, g.constant(np.array([0.0, -np.inf, math.log(3)], np.float32)))


# What each operator is given, beside the answers of a GRU.
DRAWS: dict[str, Draw] = {
    "RandomNormalLike": lambda g, h: g.op("RandomNormalLike", h, mean=2.0, scale=3.0),
    "RandomNormal": lambda g, h: g.op("Add", zeros(g, h), g.op("RandomNormal", shape=[1, 1, WIDTH], mean=-1.0)),
    "RandomUniformLike": lambda g, h: g.op("RandomUniformLike", h, low=-2.0, high=4.0),
    "RandomUniform": lambda g, h: g.op("Add", zeros(g, h), g.op("RandomUniform", shape=[1, 1, WIDTH])),
    "Bernoulli": lambda g, h: g.op("Bernoulli", g.op("Sigmoid", zeros(g, h))),
    "Dropout": lambda g, h: g.op("Dropout", g.op("Exp", zeros(g, h)), scalar(g, 0.25), scalar(g, True)),
    "Multinomial": lambda g, h: g.op("Multinomial", chosen(g, h), sample_size=WIDTH, dtype=TensorProto.INT64),
}


def write(folder: Path, kind: str, toml: str = ALLOWED) -> Path:
    """A GRU with an answer at each step, or at the last for a Multinomial, and numbers that are drawn beside it."""
    g = Writer()
    x = g.input(["time", "batch", INPUTS])
    outputs, _ = g.cell(Layer("GRU", WIDTH), x, INPUTS)
    hidden = g.squeeze(outputs["Y_h"], 0) if kind == "Multinomial" else g.squeeze(outputs["Y"], 1)
    g.output(hidden)
    g.output(DRAWS[kind](g, hidden))
    if kind == "Multinomial":
        g.outputs[-1].type.tensor_type.elem_type = TensorProto.INT64
    path = folder / "model.onnx"
    onnx.save(g.model(), path)
    path.with_name("model.toml").write_text(toml)
    return path


def drawn(model: Model, seeds: int, steps: int = STEPS) -> np.ndarray:
    """What is drawn in all of these sequences, [steps, seeds, WIDTH]."""
    graph = model.loaded.graph
    name = graph.outputs[1].name
    rows = [graph.seeded(np.array([seed], np.uint64)) for seed in range(seeds)]
    x = {graph.inputs[0].name: np.zeros((steps, 1, INPUTS), np.float32)}
    return np.concatenate([model.loaded.engine.run(x, row, trace=False).outputs[name] for row in rows], 1)


def apart(values: np.ndarray, below: Callable[[np.ndarray], np.ndarray]) -> float:
    """The statistic of Kolmogorov and Smirnov, times the root of how many there are: above 1.95 for one in 1,000."""
    ordered = np.sort(values.ravel().astype(np.float64))
    at, count = below(ordered), len(ordered)
    places = np.arange(count)
    return math.sqrt(count) * float(max((at - places / count).max(), ((places + 1) / count - at).max()))


def normal(mean: float, scale: float) -> Callable[[np.ndarray], np.ndarray]:
    erf = np.vectorize(math.erf)
    return lambda x: (1 + erf((x - mean) / scale / math.sqrt(2))) / 2


def uniform(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.clip((x - low) / (high - low), 0, 1)


@pytest.mark.parametrize(
    ("kind", "below"),
    [
        ("RandomNormalLike", normal(2, 3)),
        ("RandomNormal", normal(-1, 1)),
        ("RandomUniformLike", uniform(-2, 4)),
        ("RandomUniform", uniform(0, 1)),
    ],
)
def test_numbers_have_the_distribution_that_the_operator_asks_for(
    tmp_path: Path, kind: str, below: Callable[[np.ndarray], np.ndarray]
) -> None:
    values = drawn(stepgraph.load(write(tmp_path, kind)), seeds=8)
    assert apart(values, below) < 1.95
    assert apart(values[-1], below) < 1.95
    assert apart(values[:, 0], below) < 1.95
    for axis in range(3):  # neighbours in time, among sequences and in a row have nothing to do with one another
        first, second = (np.moveaxis(values, axis, 0)[part].ravel() for part in (slice(None, -1), slice(1, None)))
        assert abs(np.corrcoef(first, second)[0, 1]) < 4 / math.sqrt(first.size)


@pytest.mark.parametrize(
    ("kind", "shares"),
    [("Bernoulli", {0: 1 / 2, 1: 1 / 2}), ("Dropout", {0: 1 / 4}), ("Multinomial", {0: 1 / 4, 1: 0})],
)
def test_classes_are_drawn_as_often_as_they_should_be(tmp_path: Path, kind: str, shares: dict[int, float]) -> None:
    values = drawn(stepgraph.load(write(tmp_path, kind)), seeds=8)
    for value, share in shares.items():
        spread = math.sqrt(share * (1 - share) / values.size)
        assert abs((values == value).mean() - share) <= 4 * spread
    if kind == "Dropout":
        np.testing.assert_allclose(values[values != 0], 4 / 3, rtol=1e-6)


@pytest.mark.parametrize("kind", DRAWS)
def test_the_same_seed_draws_the_same_numbers_and_a_state_goes_on_with_the_next(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    model, again = stepgraph.load(path), stepgraph.load(path)
    row, answers = np.ones(INPUTS, np.float32), list[bytes]()
    name = model.loaded.graph.outputs[1].name
    state = middle = model.begin(seed=7)
    for step in range(6):
        middle = state if step == 3 else middle
        answer, state = model.step(row, state)
        answers.append(answer.outputs[name].tobytes())
    other = again.begin(seed=7)
    for wanted in answers:
        answer, other = again.step(row, other)
        assert answer.outputs[name].tobytes() == wanted
    for wanted in answers[3:]:
        answer, middle = model.step(row, middle)
        assert answer.outputs[name].tobytes() == wanted
    assert len(set(answers)) == 6
    assert model.step(row, model.begin(seed=8))[0].outputs[name].tobytes() != answers[0]


@pytest.mark.parametrize("kind", ["RandomNormalLike", "Bernoulli", "Multinomial"])
def test_rows_of_a_batch_draw_from_their_own_seeds_with_the_same_bits_as_alone(tmp_path: Path, kind: str) -> None:
    loaded = load(write(tmp_path, kind), 17, 1.0)
    assert loaded.engine.alone is None
    rows = loaded.graph.seeded(np.arange(17, dtype=np.uint64))
    x = np.random.default_rng(0).standard_normal((4, 17, INPUTS), dtype=np.float32)
    port, output = loaded.graph.inputs[0].name, loaded.graph.outputs[1].name
    together = loaded.engine.run({port: x}, rows, trace=False)
    for i in range(17):
        alone = loaded.engine.run({port: x[:, i : i + 1]}, rows[i : i + 1], trace=False)
        assert alone.outputs[output].tobytes() == together.outputs[output][:, i].tobytes()
        assert alone.state.tobytes() == together.state[i].tobytes()


def test_numbers_are_those_of_squares_in_plain_integers(tmp_path: Path) -> None:
    """Widynski, Squares, with the key that the seed gives: as the paper's C program has it."""

    def squares(counter: int, key: int) -> int:
        x = y = counter * key % 2**64
        z = (y + key) % 2**64
        for added in (y, z, y):
            x = (x * x + added) % 2**64
            x = (x >> 32) | (x << 32) % 2**64
        return (x * x + z) % 2**64 >> 32

    seed = 2**63 + 12_345
    high, low = squares(seed, 0x548C9DECBCE65295), squares(seed, 0xC8E4FD154CE32F6D)
    model = stepgraph.load(write(tmp_path, "RandomUniform"))
    state, name = model.begin(seed), model.loaded.graph.outputs[1].name
    for step in range(3):
        answer, state = model.step(np.zeros(INPUTS, np.float32), state)
        wanted = [(squares(step * WIDTH + i, high << 32 | low) >> 8) / 2**24 for i in range(WIDTH)]
        assert answer.outputs[name].ravel().tolist() == wanted


def test_the_tail_of_the_normal_distribution_is_within_a_millionth_of_it() -> None:
    from stepgraph.rewriting import generator  # the table is nobody else's

    begin, slope = generator._quantiles()
    for octave in range(32):
        middle = 2.0**octave * (1 + 64.5 / 128)
        place = octave * 128 + 64
        wanted = -NormalDist().inv_cdf(middle / 2**33)
        assert abs(begin[place] + slope[place] / 2 - wanted) < 5e-6


def test_a_file_that_draws_is_refused_with_the_table_that_allows_it_and_its_example_has_it(tmp_path: Path) -> None:
    path = write(tmp_path, "Bernoulli", "")
    with pytest.raises(ModelRefused, match=r"Bernoulli .* draws random numbers.*\[random\]: allow = true"):
        load(path, 1, 0.0)
    shown = "\n".join(example.lines(onnx.load(path)))
    assert parse(shown.encode()).random


def test_a_policy_that_samples_is_served_with_a_remark_once_that_is_allowed(tmp_path: Path) -> None:
    path = Path(shutil.copy(CASES / "sampling_policy.onnx", tmp_path / "model.onnx"))
    path.with_name("model.toml").write_text(ALLOWED)
    loaded = load(path, 4, 1.0)
    assert "equal sequences get different answers" in " ".join(remarks.remarks(loaded))
    assert loaded.proof.unread == ""
    assert [port.name for port in loaded.graph.inputs] == ["obs"]


class Latent(nn.Module):
    """What is drawn once is part of what the cell sees at every step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.cell = nn.GRU(INPUTS, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.cell(x + torch.randn(1, 1, INPUTS))
        return y


def test_what_a_file_draws_once_for_a_whole_sequence_stays_the_same_at_every_step(export: Export) -> None:
    axes = {"x": {0: "batch", 1: "time"}}
    path = export(Latent(), (torch.zeros(1, 4, INPUTS),), "x", "y", axes, ALLOWED)
    model, state = stepgraph.load(path), None
    assert not model.loaded.facts.freed
    last = np.zeros(6, np.float32)
    for _ in range(300):  # with the same input and the same noise it comes to rest
        previous = last
        answer, state = model.step(np.zeros(INPUTS, np.float32), state)
        last = answer.output
    np.testing.assert_allclose(last, previous, atol=1e-6)
    assert np.abs(last).max() > 0.01


def test_a_window_begins_anew_and_goes_on_drawing(tmp_path: Path) -> None:
    model = stepgraph.load(write(tmp_path, "RandomNormalLike", f"{ALLOWED}[window]\nsteps = 4\n"))
    state, name = model.begin(seed=3), model.loaded.graph.outputs[1].name
    hidden, noise = list[bytes](), list[bytes]()
    for _ in range(8):
        answer, state = model.step(np.ones(INPUTS, np.float32), state)
        hidden.append(answer.layer[0].hidden.tobytes())
        noise.append(answer.outputs[name].tobytes())
    assert hidden[:4] == hidden[4:]
    assert len(set(noise)) == 8
    (seed,) = (columns for columns in model.loaded.graph.state if columns.name == SEED)
    assert state.row[seed.span].tolist() == [3, 0, 0, 0]


def test_what_draws_within_a_loop_is_refused_by_its_name(tmp_path: Path) -> None:
    g = Writer()
    x = g.input(["time", "batch", INPUTS])
    outputs, _ = g.cell(Layer("GRU", 4), x, INPUTS)
    body = helper.make_graph(
        [
            helper.make_node("RandomNormalLike", ["v"], ["noise"], name="inner"),
            helper.make_node("Add", ["v", "noise"], ["w"]),
            helper.make_node("Identity", ["c"], ["d"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("d", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
        ],
    )
    g.output(g.op("Loop", g.constant(np.array(2)), "", outputs["Y"], body=body))
    path = tmp_path / "model.onnx"
    onnx.save(g.model(), path)
    path.with_name("model.toml").write_text(ALLOWED)
    with pytest.raises(ModelRefused, match=r"'inner' \(RandomNormalLike\) draws random numbers within a loop"):
        load(path, 1, 0.0)


@pytest.mark.parametrize("table", ["", "allow = 1", "seed = 4", "allow = true\nseed = 4"])
def test_a_table_of_random_numbers_that_says_something_else_is_refused(table: str) -> None:
    with pytest.raises(ModelRefused, match="of random numbers; expected allow = true"):
        parse(f"[random]\n{table}\n".encode())
