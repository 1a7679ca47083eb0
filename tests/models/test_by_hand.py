"""Files written by hand, of kinds that no toolkit of these tests writes, streamed for 300 steps beside onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import numpy_helper

from stepgraph.errors import ModelRefused
from stepgraph.loading import load
from stepgraph.report import remarks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stepgraph.model import LoadedModel

STEPS, LAG = 300, 5  # the second sequence begins so many steps later, in the same batches
ALL = "g (float[b,t,4] x) => (float[b,t,n] y)"
CELL = """
  xt = Transpose<perm=[1,0,2]>(x)
  Y, Yh, Yc = LSTM<hidden_size=8>(xt, W, R, B)
  Ys = Squeeze(Y, one)
  h = Transpose<perm=[1,0,2]>(Ys)
"""


def weight(*shape: int) -> np.ndarray:
    return 0.4 * np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape, np.float32)


CONSTANTS = {
    "W": weight(1, 32, 4),
    "R": weight(1, 32, 8),
    "B": weight(1, 64),
    "E": weight(8, 5),
    "zero": np.array([0]),
    "one": np.array([1]),
    "two": np.array([2]),
    "many": np.array([1000]),
}


@dataclass(frozen=True)
class File:
    """A graph in ONNX's own words. `states` as model.toml has them: of files that take one step at a time."""

    body: str
    head: str = ALL
    more: Mapping[str, np.ndarray] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    near: float = 1e-5

    def write(self, path: Path, toml: str = "") -> Path:
        text = f'<ir_version: 9, opset_import: ["": 19]>\n{self.head} {{{self.body}}}'
        model = onnx.parser.parse_model(text)
        used = {name for node in model.graph.node for name in node.input}
        given = {name: value for name, value in (CONSTANTS | {**self.more}).items() if name in used}
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in given.items())
        onnx.save(model, path)
        path.with_name("model.toml").write_text(toml or self.toml)
        return path

    @property
    def toml(self) -> str:
        said = "".join(f'{name} = "{output}"\n' for name, output in self.states.items())
        return f"[state]\n{said}" if said else ""


def over_cells(body: str, **more: np.ndarray) -> File:
    return File(CELL + body, more=more)


def pooled(attributes: str) -> File:
    """Frames of four samples, of which a pool makes one number each."""
    flat, four = np.array([0, 1, -1]), np.array([1, 4, 1])
    pool = f"  s = Reshape(x, flat)\n  q = AveragePool<{attributes}>(s)\n"
    spread = "  e = Expand(q, four)\n  z = Transpose<perm=[0,2,1]>(e)\n"
    body = pool + spread + CELL.replace("(x)", "(z)") + "  y = Identity(h)"
    return File(body, more={"flat": flat, "four": four})


BEFORE = "  ht = Transpose<perm=[0,2,1]>(h)\n"
HALF = "  short = Cast<to=10>(h)\n  f = Cast<to=1>(short)\n"
SERVED = {
    "an average of blocks, rounded up": pooled("kernel_shape=[8], pads=[4,0], strides=[4], ceil_mode=1"),
    "an average of blocks, all counted": pooled(
        "kernel_shape=[8], pads=[4,0], strides=[4], ceil_mode=1, count_include_pad=1"
    ),
    "an average over steps and features": over_cells(
        "  u = Unsqueeze(h, one)\n"
        "  q = AveragePool<kernel_shape=[2,3], pads=[1,1,0,1], strides=[1,2], ceil_mode=1>(u)\n"
        "  y = Squeeze(q, one)"
    ),
    "an average with gaps": over_cells(
        f"{BEFORE}  p = Pad(ht, pads)\n  q = AveragePool<kernel_shape=[3], dilations=[2]>(p)\n"
        "  y = Transpose<perm=[0,2,1]>(q)",
        pads=np.array([0, 0, 4, 0, 0, 0]),
    ),
    "half precision on the way": File(f"{CELL}{HALF}  y = MatMul(f, E)", near=2e-3),
    "half precision in a pool": File(
        f"{CELL}  short = Cast<to=10>(h)\n{BEFORE.replace('(h)', '(short)')}"
        "  q = AveragePool<kernel_shape=[3], pads=[2,0]>(ht)\n  f = Cast<to=1>(q)\n  y = Transpose<perm=[0,2,1]>(f)",
        near=2e-3,
    ),
    "bfloat16 on the way": File(f"{CELL}{HALF.replace('10', '16')}  y = MatMul(f, E)", near=2e-2),
    "a mean so far": over_cells(
        "  c = CumSum(h, axis)\n  o = Sub(h, h)\n  a = Add(o, unit)\n  n = CumSum(a, axis)\n  y = Div(c, n)",
        axis=np.array(1),
        unit=np.float32(1),
    ),
    "a threshold on a sum so far": over_cells(
        "  a = Abs(x)\n  s = ReduceSum<keepdims=1>(a, two)\n  c = CumSum(s, axis)\n  g = Greater(c, limit)\n"
        "  f = Cast<to=1>(g)\n  y = Add(h, f)",
        axis=np.array(1),
        limit=np.float32(400),
    ),
    "a table by the step's number": over_cells(
        "  s = Shape<start=1, end=2>(x)\n  t = Squeeze(s)\n  r = Range(i0, t, i1)\n  m = Mod(r, seven)\n"
        "  e = Gather(table, m)\n  y = Add(h, e)",
        i0=np.array(0),
        i1=np.array(1),
        seven=np.array(7),
        table=weight(7, 8),
    ),
    "a window of rows in a buffer": File(
        "  u = Unsqueeze(x, one)\n  a = Concat<axis=1>(k, u)\n  k2 = Slice(a, one, many, one)\n"
        "  m = ReduceMean<keepdims=0>(a, one)\n  y = Tanh(m)",
        "g (float[b,4] x, float[b,3,4] k) => (float[b,4] y, float[b,3,4] k2)",
        states={"k": "k2"},
    ),
    "two states that change places": File(
        "  s = Add(x, a)\n  b2 = Tanh(s)\n  m = Sub(b, b2)\n  a2 = Mul(m, half)\n  y = Add(a2, b2)",
        "g (float[b,4] x, float[b,4] a, float[b,4] b) => (float[b,4] y, float[b,4] a2, float[b,4] b2)",
        {"half": np.float32(0.5)},
        {"a": "b2", "b": "a2"},
    ),
    "attention to the last rows, by their place": File(
        "  m = Mod(n, eight)\n  z = Concat<axis=0>(zero, m)\n  at = Unsqueeze(z, zero)\n  k2 = ScatterND(k, at, x)\n"
        "  r = Range(i0, i8, i1)\n  known = LessOrEqual(r, n)\n  w = Where(known, nothing, least)\n"
        "  u = Unsqueeze(x, one)\n  kt = Transpose<perm=[0,2,1]>(k2)\n  s = MatMul(u, kt)\n  sw = Add(s, w)\n"
        "  p = Softmax<axis=-1>(sw)\n  o = MatMul(p, k2)\n  y = Squeeze(o, one)\n  n2 = Add(n, one)",
        "g (float[1,4] x, float[1,8,4] k, int64[1] n) => (float[1,4] y, float[1,8,4] k2, int64[1] n2)",
        {
            "eight": np.array([8]),
            "i0": np.array(0),
            "i8": np.array(8),
            "i1": np.array(1),
            "nothing": np.float32(0),
            "least": np.float32(-1e9),
        },
        {"k": "k2", "n": "n2"},
    ),
}


def drawn(loaded: LoadedModel) -> dict[str, np.ndarray]:
    """[T, 2, ...row] by input."""
    random = np.random.default_rng(1)
    return {p.name: random.standard_normal((STEPS, 2, *p.row)).astype(p.dtype) for p in loaded.graph.inputs}


def streamed(loaded: LoadedModel, x: Mapping[str, np.ndarray]) -> np.ndarray:
    """The answers [T, 2, ...row] to two sequences, the second of which is younger by some steps."""
    first = loaded.graph.initial[np.newaxis]
    states, answers = [first, first], ([], [])
    for now in range(STEPS + LAG):
        at = [(i, now - i * LAG) for i in (0, 1) if 0 <= now - i * LAG < STEPS]
        for some in [[each] for each in at] if loaded.engine.alone else [at]:
            rows = {name: np.stack([values[step, i] for i, step in some])[np.newaxis] for name, values in x.items()}
            result = loaded.engine.run(rows, np.concatenate([states[i] for i, _ in some]), trace=False)
            for place, (i, _) in enumerate(some):
                states[i] = result.state[place : place + 1]
                answers[i].append(result.outputs[loaded.graph.outputs[0].name][0, place])
    return np.stack([np.stack(each) for each in answers], 1)


def answered(file: File, path: Path, x: Mapping[str, np.ndarray], i: int) -> np.ndarray:
    """What onnxruntime answers with the untouched file to a sequence, [T, ...row]."""
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    if not file.states:
        return session.run(names[:1], {"x": x["x"][np.newaxis, :, i]})[0][0]
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    shapes = {given.name: [n if isinstance(n, int) else 1 for n in given.shape] for given in session.get_inputs()}
    types = {given.name: kinds[given.type] for given in session.get_inputs()}
    held, answers = {name: np.zeros(shapes[name], types[name]) for name in file.states}, []
    for step in range(STEPS):
        said = dict(zip(names, session.run(names, {"x": x["x"][step, i : i + 1]} | held), strict=True))
        held = {name: said[output] for name, output in file.states.items()}
        answers.append(said[names[0]][0])
    return np.stack(answers)


@pytest.mark.parametrize("name", SERVED)
def test_a_file_streams_what_onnxruntime_answers_with_it(name: str, tmp_path: Path) -> None:
    file = SERVED[name]
    loaded = load(file.write(tmp_path / "model.onnx"), 2, 0.0)
    assert not loaded.proof.unread
    x = drawn(loaded)
    got = streamed(loaded, x)
    for i in (0, 1):
        np.testing.assert_allclose(got[:, i], answered(file, tmp_path / "model.onnx", x, i), atol=file.near)


@pytest.mark.parametrize("seed", [0, 1])
def test_rounding_to_half_on_the_way_is_no_reason_to_refuse(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    weights = {name: random.standard_normal(CONSTANTS[name].shape, np.float32) / 2 for name in "WRE"}
    file = File(SERVED["half precision on the way"].body, more=weights)
    assert load(file.write(tmp_path / "model.onnx"), 1, 0.0).proof.tolerance == 2e-3


@pytest.mark.parametrize(
    ("start", "why"),
    [
        ("  Z, Zh = GRU<hidden_size=8>(xt, U, V)\n", r"GRU that makes 'Y' starts from the last step of the sequence"),
        (
            "  f = Slice(xt, minus, many, zero)\n  Zh = MatMul(f, F)\n",
            "the Slice that makes 'f' picks steps that cannot be told from the file",
        ),
    ],
    ids=["an encoder's end", "the last row"],
)
def test_a_cell_that_starts_from_the_end_of_its_sequence_is_refused_for_that(
    start: str, why: str, tmp_path: Path
) -> None:
    file = File(
        f"  xt = Transpose<perm=[1,0,2]>(x)\n{start}  Y, Yh = GRU<hidden_size=8>(xt, U, V, , , Zh)\n"
        "  s = Squeeze(Y, one)\n  y = Transpose<perm=[1,0,2]>(s)",
        more={"U": weight(1, 24, 4), "V": weight(1, 24, 8), "F": weight(4, 8), "minus": np.array([-1])},
    )
    with pytest.raises(ModelRefused, match=why):
        load(file.write(tmp_path / "model.onnx"), 2, 0.0)


GROWING = File(
    "  u = Unsqueeze(x, one)\n  k2 = Concat<axis=1>(k, u)\n  y = ReduceMax<keepdims=0>(k2, one)",
    "g (float[b,4] x, float[b,p,4] k) => (float[b,4] y, float[b,q,4] k2)",
    states={"k": "k2"},
)


@pytest.mark.parametrize(
    ("block", "why"),
    [
        ("", r"the state 'k' .* has a free axis beside that of the batch.*grows with every step.*\[block\]: k = ROWS"),
        ("[block]\nk = 4\n", r"the state 'k' of \[4, 4\] for each sequence becomes 'k2' of \[5, 4\]"),
    ],
)
def test_a_state_that_grows_is_refused_for_that(block: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=why):
        load(GROWING.write(tmp_path / "model.onnx", GROWING.toml + block), 2, 0.0)


def test_a_state_whose_size_is_free_in_name_only_is_served_once_it_is_said(tmp_path: Path) -> None:
    fixed = SERVED["a window of rows in a buffer"]
    file = File(fixed.body, fixed.head.replace("3", "rows"), states=fixed.states)
    loaded = load(file.write(tmp_path / "model.onnx", f"{file.toml}[block]\nk = 3\n"), 2, 0.0)
    x = drawn(loaded)
    np.testing.assert_allclose(
        streamed(loaded, x)[:, 0], answered(fixed, fixed.write(tmp_path / "fixed.onnx"), x, 0), atol=1e-6
    )


def test_a_buffer_beside_the_states_of_cells_is_asked_after(tmp_path: Path) -> None:
    """Nothing but its numbers' way through the file shows that an input is what an output was."""
    file = File(
        "  u = Unsqueeze(x, one)\n  all = Concat<axis=1>(old, u)\n  kept = Slice(all, one, many, one)\n"
        "  m = ReduceMean<keepdims=0>(all, one)\n  s = Unsqueeze(m, zero)\n"
        "  Y, hn, cn = LSTM<hidden_size=8>(s, W, R, B, , h, c)\n  y = Squeeze(hn, zero)",
        "g (float[b,4] x, float[1,b,8] h, float[1,b,8] c, float[b,3,4] old)"
        " => (float[b,8] y, float[1,b,8] hn, float[1,b,8] cn, float[b,3,4] kept)",
    )
    loaded = load(file.write(tmp_path / "model.onnx"), 2, 0.0)
    assert [pair.given.name for pair in loaded.facts.carried] == ["h", "c"]
    assert any("'old' is sent by clients. If it is what output 'kept' was" in said for said in remarks.remarks(loaded))
