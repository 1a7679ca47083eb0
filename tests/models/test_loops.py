"""Recurrences that exporters wrote as `Loop` or `Scan`: as text and from torch's scripts, also with cells inside."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper, parser
from torch import Tensor, nn

import tidegate
from stepgraph.errors import ModelRefused
from stepgraph.loading import load
from stepgraph.model import LoadedModel
from tests.running_server import RunningServer

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


def write(
    path: Path,
    body: str,
    outputs: str = "float[b,t,4] y",
    gates: int = 1,
    more: str = "",
    steps: str = "t",
    batch: str = "b",
) -> Path:
    """A file from the text of its nodes; the weights of a cell of `gates` gates are `w`, `r`, `bw` and `br` in it."""
    text = f'<ir_version: 10, opset_import: ["": 20]> g (float[{batch},{steps},3] x{more}) => ({outputs}) {{{body}}}'
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


STOP = "big = Abs(hn) q = ReduceSum<keepdims=0>(big) most = Constant<value_float=4.0>() go = Less(q, most)"
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
    "a stop by what it computes": (
        loop(f"xt = Gather<axis=1>(x, i) {RNN}", STOP),
        "stops by what it computes",
    ),
    "a mean over all steps in its body": (
        loop(f"{MEAN}<keepdims=0>(x, ax) xt = Identity(mean) {RNN}"),
        "Loop.*sees more of the input than the step that it is at",
    ),
    "a mean over all steps beside it": (
        f"{MEAN}<keepdims=1>(x, ax) xm = Add(x, mean) {scan(RNN, sliced='xm')}",
        "ReduceMean.*mixes steps",
    ),
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


def test_a_state_begins_with_what_the_file_gives_it(tmp_path: Path) -> None:
    learnt = "row = Constant<value_floats=[0.5,-1.0,2.0,0.25]>() h0 = Add(zeros, row)"
    path = write(
        tmp_path, scan(GRU).replace("h0 = ConstantOfShape(size)", f"zeros = ConstantOfShape(size) {learnt}"), gates=3
    )
    model = load(path, 4, 1.0)
    assert model.graph.initial.tolist() == [0.5, -1.0, 2.0, 0.25]
    (whole,) = onnxruntime.InferenceSession(path).run(["y"], {"x": rows()})
    np.testing.assert_allclose(streamed(model, rows()), whole, atol=1e-6)


def test_a_state_of_a_loop_may_go_in_and_out_of_the_file(tmp_path: Path) -> None:
    body = scan(RNN).replace(ZEROS, "").replace("(h0, x)", "(given, x)")
    path = write(tmp_path, body, "float[b,t,4] y, float[b,4] last", more=", float[b,4] given")
    model = load(path, 4, 1.0)
    assert states(model) == [(None, "given", HIDDEN)]
    assert [port.name for port in model.graph.outputs] == ["y"]
    feeds = {"x": rows(), "given": np.zeros((3, HIDDEN), np.float32)}
    (whole,) = onnxruntime.InferenceSession(path).run(["y"], feeds)
    np.testing.assert_allclose(streamed(model, rows()), whole, atol=1e-6)


def test_whole_numbers_and_truths_are_carried_too(tmp_path: Path) -> None:
    """Each sequence counts its large inputs, and says whether there was one yet."""
    body = """
        n0 = Shape<start=0, end=1>(x)
        none = ConstantOfShape<value=int64[1] {0}>(n0)
        never = ConstantOfShape<value=bool[1] {0}>(n0)
        last, lastly, y = Scan<num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1],
            body = step (int64[b] count, bool[b] ever, float[b,3] xt) => (int64[b] more, bool[b] now, float[b,2] o) {
                axis = Constant<value_ints=[1]>()
                one = Constant<value_float=1.0>()
                peak = ReduceMax<keepdims=0>(xt, axis)
                high = Greater(peak, one)
                whole = Cast<to=7>(high)
                more = Add(count, whole)
                now = Or(ever, high)
                a = Cast<to=1>(more)
                b = Cast<to=1>(now)
                a1 = Unsqueeze(a, axis)
                b1 = Unsqueeze(b, axis)
                o = Concat<axis=1>(a1, b1)
            }>(none, never, x)"""
    path = write(tmp_path, body, "float[b,t,2] y")
    model = load(path, 4, 1.0)
    answers = streamed(model, rows(50))
    (whole,) = onnxruntime.InferenceSession(path).run(["y"], {"x": rows(50)})
    np.testing.assert_array_equal(answers, whole)
    assert answers[:, -1, 0].min() > 2


def test_a_place_in_a_table_is_carried_too(tmp_path: Path) -> None:
    """As a decoder carries the token that it chose last: here the place of the largest input."""
    body = """
        n0 = Shape<start=0, end=1>(x)
        none = ConstantOfShape<value=int64[1] {0}>(n0)
        last, y = Scan<num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1],
            body = step (int64[b] token, float[b,3] xt) => (int64[b] next, float[b,3] o) {
                table = Constant<value=float[3,3] {0.1,0.2,0.3,-1,-2,-3,5,6,7}>()
                row = Gather(table, token)
                o = Add(row, xt)
                next = ArgMax<axis=1, keepdims=0>(o)
            }>(none, x)"""
    path = write(tmp_path, body, "float[b,t,3] y")
    model = load(path, 16, 1.0)
    (whole,) = onnxruntime.InferenceSession(path).run(["y"], {"x": rows(20)})
    np.testing.assert_array_equal(streamed(model, rows(20)), whole)


def test_a_loop_that_has_nothing_to_do_with_time_stays_as_it_is(tmp_path: Path) -> None:
    body = f"""{scan(RNN).replace("last, y", "last, u")}
        three = Constant<value=int64 {{3}}>()
        on = Constant<value=bool {{1}}>()
        y = Loop<body = again (int64 i, bool cond, float[b,t,4] v) => (bool go, float[b,t,4] vn)
            {{go = Identity(cond) vt = Tanh(v) vn = Add(vt, u)}}>(three, on, u)"""
    path = write(tmp_path, body)
    model = load(path, 4, 1.0)
    assert len(states(model)) == 1
    (whole,) = onnxruntime.InferenceSession(path).run(["y"], {"x": rows()})
    np.testing.assert_allclose(streamed(model, rows()), whole, atol=1e-6)


class Stepping(nn.Module):
    """An LSTM called once for each step, as people write decoders, and one of two layers in front of it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(INPUTS, INPUTS), nn.Linear(INPUTS, INPUTS)
        self.cell = nn.LSTM(INPUTS, HIDDEN)

    def forward(self, x: Tensor, mode: Tensor, twice: Tensor) -> Tensor:
        h = torch.zeros(1, x.size(0), self.cell.hidden_size)
        c = torch.zeros(1, x.size(0), self.cell.hidden_size)
        answers = []
        for t in range(x.size(1)):
            z = x[:, t]
            if bool(mode == 1):
                z = self.first(z)
                if bool(twice == 1):
                    z = self.second(z)
            y, (h, c) = self.cell(z.unsqueeze(0), (h, c))
            answers.append(y[0])
        return torch.stack(answers, 1)


@pytest.fixture(scope="module")
def stepping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stepping") / "model.onnx"
    axes = {"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "time"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripting is on its way out, as is this exporter
        torch.onnx.export(
            torch.jit.script(Stepping().eval()),
            (torch.zeros(2, 3, INPUTS), torch.tensor(1), torch.tensor(1)),
            str(path),
            dynamo=False,
            opset_version=17,
            dynamic_axes=axes,
            input_names=["x", "mode", "twice"],
            output_names=["y"],
        )
    return path


@pytest.mark.parametrize(("mode", "twice"), [(0, 0), (1, 0), (1, 1)])
def test_a_cell_in_a_loop_has_its_gates_once_what_decides_the_branches_is_fixed(
    stepping: Path, tmp_path: Path, mode: int, twice: int
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(stepping.read_bytes())
    path.with_name("model.toml").write_text(f"[fixed]\nmode = {mode}\ntwice = {twice}\n")
    model = load(path, 4, 1.0)
    assert [columns.name for columns in model.graph.trace] == [
        "hidden",
        "cell",
        "input",
        "forget",
        "candidate",
        "output",
    ]
    assert sorted(size for _, _, size in states(model)) == [HIDDEN, HIDDEN]
    assert not {"If", "Loop"} & {node.op_type for node in model.graph.model.graph.node}
    net, x = Stepping().eval(), torch.from_numpy(rows())
    with torch.no_grad():
        whole = net(x, torch.tensor(mode), torch.tensor(twice)).numpy()
    np.testing.assert_allclose(streamed(model, rows()), whole, atol=1e-6)


def test_a_branch_in_a_loop_that_the_data_decide_stays_a_branch(tmp_path: Path) -> None:
    body = loop(f"""g = Gather<axis=1>(x, i) top = ReduceMax<keepdims=0>(g) big = Constant<value_float=100.0>()
        q = Greater(top, big)
        xt = If(q)<then_branch = yes_ () => (float[b,3] p) {{p = Neg(g)}},
            else_branch = no_ () => (float[b,3] r_) {{r_ = Identity(g)}}> {RNN}""")
    model = load(write(tmp_path, body), 4, 1.0)
    assert "If" in {node.op_type for node in model.graph.model.graph.node}
    assert len(states(model)) == 1


def test_what_is_served_says_where_each_state_lives_and_what_cannot_be_seen(
    stepping: Path, tmp_path: Path, start: Callable[..., RunningServer]
) -> None:
    for name in ("plain", "stepping"):
        (tmp_path / name / "1").mkdir(parents=True)
    write(tmp_path / "plain" / "1", scan(GRU), gates=3)
    (tmp_path / "stepping/1/model.onnx").write_bytes(stepping.read_bytes())
    (tmp_path / "stepping/1/model.toml").write_text("[fixed]\nmode = 0\ntwice = 0\n")
    server = start(tmp_path).ready()
    with tidegate.Client(server.address) as client:
        (state,) = client.describe("plain", ready=True).states
        assert (state.layer, state.shape, state.home, state.loop) == (
            None,
            (HIDDEN,),
            "loop",
            "the Scan that makes 'last'",
        )
        assert "gates cannot be told apart" in state.unseen
        homes = {(s.layer, s.name, s.home, s.unseen) for s in client.describe("stepping", ready=True).states}
        assert homes == {(0, "hidden", "loop", ""), (0, "cell", "loop", "")}


def test_a_loop_over_every_second_row_takes_two_rows_as_one_step(tmp_path: Path) -> None:
    model = load(write(tmp_path, HALF + scan(RNN, sliced="xs")), 4, 1.0)
    assert [port.block for port in model.facts.inputs] == [2]
    assert len(states(model)) == 1


COUNTED = f"""
        n0 = Shape<start=0, end=1>(x)
        four = Constant<value_ints=[4]>()
        size = Concat<axis=0>(n0, four)
        h0 = ConstantOfShape(size)
        six = Constant<value=int64 {{6}}>()
        nought = Constant<value=int64 {{0}}>()
        yes = Less(nought, six)
        end, last, all = Loop<body = step (int64 i, bool cond, int64 n, float[b,4] h)
            => (bool go, int64 next, float[b,4] hn, float[b,4] o) {{
                xt = Gather<axis=1>(x, n) {RNN} o = Identity(hn)
                one = Constant<value=int64 {{1}}>() next = Add(n, one) go = Less(next, six)
            }}>(LIMIT, yes, nought, h0)
        y = Transpose<perm=[1,0,2]>(all)"""


@pytest.mark.parametrize("limit", ["six", ""])
def test_a_loop_over_a_fixed_number_of_steps_is_freed(tmp_path: Path, limit: str) -> None:
    """As tf2onnx writes a network of Keras whose sequences have one length, and torch a `while_loop`."""
    path = write(tmp_path, COUNTED.replace("LIMIT", limit), "float[b,6,4] y", steps="6")
    model = load(path, 4, 1.0)
    assert model.facts.freed
    assert [size for _, _, size in states(model)] == [HIDDEN]
    (whole,) = onnxruntime.InferenceSession(path).run(["y"], {"x": rows(6)})
    np.testing.assert_allclose(streamed(model, rows(6)), whole, atol=1e-6)


def test_a_loop_for_another_number_of_times_than_there_are_steps_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, COUNTED.replace("LIMIT", "six"), "float[b,6,4] y", steps="9")
    with pytest.raises(ModelRefused, match=r"Loop.*does not run once for each step of a sequence") as refused:
        load(path, 4, 1.0)
    assert refused.value.node == "end"


def test_a_loop_over_the_steps_of_one_sequence_only_is_served_alone(tmp_path: Path) -> None:
    """Its state has no axis for a batch at all."""
    body = f"""
        h0 = Constant<value_floats=[0.0, 1.0, 0.0, 0.0]>()
        first = Constant<value_ints=[0]>()
        steps_ = Squeeze(x, first)
        last, ys = Scan<num_scan_inputs=1, body = step (float[4] h4, float[3] x3) => (float[4] h4n, float[4] o) {{
            xt = Unsqueeze(x3, first) h = Unsqueeze(h4, first) {RNN} h4n = Squeeze(hn, first) o = Identity(h4n)
        }}>(h0, steps_)
        y = Unsqueeze(ys, first)"""
    path = write(tmp_path, body, "float[1,t,4] y", batch="1")
    model = load(path, 4, 1.0)
    assert model.facts.alone
    assert model.graph.initial.tolist() == [0, 1, 0, 0]
    (whole,) = onnxruntime.InferenceSession(path).run(["y"], {"x": rows()[:1]})
    np.testing.assert_allclose(streamed(model, rows()[:1]), whole, atol=1e-6)
