"""Every attribute and input of RNN, LSTM and GRU: outputs, states and gates against the standard's equations.

The weights of each gate are their own, biases and initial states are not zero. The equations (tests/onnx_equations.py)
are written from the standard's text; the loader's proof holds each file against onnxruntime besides.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch

from stepgraph.loading import load
from tests import onnx_equations as equations
from tests.onnx_writer import Layer, Writer

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from stepgraph.running.engine import Engine

KINDS = ("RNN", "LSTM", "GRU")
INPUTS, STEPS, BATCH = 3, 7, 4
TOLERANCE = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-5}
OPSETS = (7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22)


@dataclass(frozen=True)
class Case:
    """A file with one operator.

    `initial`: "absent", "constant" or "computed" states; `lengths`: "", "input" or "computed" ones.
    """

    layer: Layer
    opset: int = 17
    dtype: str = "float32"
    initial: str = "constant"
    lengths: str = ""

    def __str__(self) -> str:
        layer = self.layer
        parts = [layer.kind, *(f"{k}={v}" for k, v in layer.attributes().items())]
        default = Case(Layer(layer.kind))
        parts += [str(v) for k, v in vars(self).items() if k != "layer" and v != getattr(default, k)]
        parts += ["peepholes"] * layer.peepholes + ["no-bias"] * (not layer.bias)
        parts += [layer.weights] * (layer.weights != "initializer")
        parts += ["+".join(layer.outputs)] * (layer.outputs != default.layer.outputs)
        return "-".join(parts).replace(" ", "")


@dataclass(frozen=True, eq=False)
class Written:
    """A file, and what is known of it without the server: its operators' numbers and the rows that they start from."""

    model: onnx.ModelProto
    operators: list[equations.Operator]
    initial: list[list[equations.Array]]
    outputs: dict[str, str] = field(default_factory=dict)
    lengths: str = ""


def write(case: Case) -> Written:
    """x, [T, B, I] or with layout 1 [B, T, I], to all the outputs that the operator has a name for."""
    g, layer = Writer(case.opset, case.dtype), case.layer
    free: list[int | str] = ["batch", "time"] if layer.layout else ["time", "batch"]
    x = g.input([*free, INPUTS])
    lengths = _lengths(g, case, x)
    states, rows = _states(g, case, x)
    outputs, operator = g.cell(layer, x, INPUTS, states, lengths)
    shapes = {"Y": ["batch", "time", 1, layer.hidden] if layer.layout else ["time", 1, "batch", layer.hidden]}
    last = ["batch", 1, layer.hidden] if layer.layout else [1, "batch", layer.hidden]
    used = {name: tensor for name, tensor in outputs.items() if tensor}
    for name, tensor in used.items():
        g.output(tensor, shapes.get(name, last))
    return Written(g.model(), [operator], [rows], used, lengths if case.lengths == "input" else "")


def _lengths(g: Writer, case: Case, x: str) -> str:
    if case.lengths == "input":
        return g.input(["batch"], np.int32)
    if case.lengths == "computed":
        length = g.op("Cast", g.size(x, 1 - _batch_axis(case)), to=onnx.TensorProto.INT32)
        return g.op("Tile", length, g.size(x, _batch_axis(case)))
    return ""


def _batch_axis(case: Case) -> int:
    return 0 if case.layer.layout else 1


def _states(g: Writer, case: Case, x: str) -> tuple[list[str], list[equations.Array]]:
    """The operator's initial states, and the row [H] that each of them repeats."""
    hidden, states = case.layer.hidden, case.layer.states
    if case.initial == "absent":
        return [], [np.zeros(hidden) for _ in states]
    tensors, rows = [], []
    for _ in states:
        row = g.numbers(1, 1, hidden)
        tensor = g.constant(row)
        if case.initial == "computed":
            tensor, row = g.op("Tanh", g.op("Mul", tensor, tensor)), np.tanh(row * row)
        tensors.append(g.repeated(tensor, _batch_axis(case), x, _batch_axis(case)))
        rows.append(row.reshape(hidden).astype(np.float64))
    return tensors, rows


def loaded(model: onnx.ModelProto, folder: Path) -> Engine:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return load(path, 1, 1e-3).engine


def streamed(
    engine: Engine, x_TBI: NDArray[np.generic], state: NDArray[np.generic]
) -> dict[object, list[equations.Array]]:
    """Outputs by name and trace by layer and name, [T, B, n], one step at a time."""
    seen: dict[object, list[equations.Array]] = {}
    (port,) = engine.graph.inputs
    for x in x_TBI:
        result = engine.run({port.name: x[np.newaxis]}, state, trace=True)
        state = result.state
        for name, value in result.outputs.items():
            seen.setdefault(name, []).append(value[0].reshape(len(x), -1))
        assert result.trace is not None
        for columns in engine.graph.trace:
            seen.setdefault((columns.layer, columns.name), []).append(result.trace[0][:, columns.span])
    return seen


def check(case: Case, folder: Path) -> None:
    """Streams random sequences from the initial state of the file, then from random states, and compares."""
    written = write(case)
    engine = loaded(written.model, folder)
    random = np.random.default_rng(1)
    x_TBI = random.normal(size=(STEPS, BATCH, INPUTS)).astype(case.dtype)
    (operator,), (rows,) = written.operators, written.initial
    assert [columns.name for columns in engine.graph.state] == list(case.layer.states)
    fresh = [np.tile(row, (BATCH, 1)) for row in rows]
    random_states = [random.normal(size=(BATCH, case.layer.hidden)) for _ in rows]
    for states in (fresh, random_states):
        given = np.concatenate(states, 1).astype(engine.graph.dtype)
        if states is fresh:
            np.testing.assert_allclose(
                np.tile(engine.graph.initial, (BATCH, 1)), given, rtol=0, atol=TOLERANCE[case.dtype]
            )
        before = np.split(given.astype(np.float64), len(states), 1)
        expected = equations.run(operator, x_TBI, before)
        seen = streamed(engine, x_TBI, given)
        wanted = {(0, name): [step[name] for step in expected] for name in expected[0]}
        of_output = {"Y": "hidden", "Y_h": "hidden", "Y_c": "cell"}
        wanted |= {tensor: wanted[0, of_output[name]] for name, tensor in written.outputs.items()}
        assert set(seen) == set(wanted)
        for name, values in wanted.items():
            np.testing.assert_allclose(seen[name], values, rtol=0, atol=TOLERANCE[case.dtype], err_msg=str(name))


def lstm(**attributes: object) -> Layer:
    return replace(Layer("LSTM"), **attributes)


def gru(**attributes: object) -> Layer:
    return replace(Layer("GRU"), **attributes)


GATED = [
    lstm(peepholes=True),
    lstm(input_forget=True),
    lstm(peepholes=True, input_forget=True),
    lstm(clip=0.5),
    lstm(clip=0.5, peepholes=True),
    lstm(clip=0.5, input_forget=True),
    lstm(clip=0.5, peepholes=True, input_forget=True),
    *(gru(linear_before_reset=lbr, clip=clip) for lbr in (False, True) for clip in (None, 0.5)),
    *(gru(linear_before_reset=lbr, bias=False) for lbr in (False, True)),
    Layer("RNN", clip=0.5),
    lstm(bias=False),
    lstm(bias=False, peepholes=True),
    Layer("RNN", bias=False),
    *(Layer(kind, hidden=1) for kind in KINDS),
    *(Layer(kind, hidden=33) for kind in KINDS),
]  # fmt: skip


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("layer", GATED, ids=lambda layer: str(Case(layer)))
def test_attributes_and_inputs_do_what_the_standard_says(layer: Layer, layout: int, tmp_path: Path) -> None:
    check(Case(replace(layer, layout=layout)), tmp_path)


def _with(kind: str, position: int, name: str, explicit: bool) -> Layer:
    """A layer whose activation at one position is `name`; the others are the defaults.

    A GRU whose update gate leaves [0, 1] grows without end: it has small weights and no biases.
    """
    names = list(equations.DEFAULTS[kind])
    names[position] = name
    alphas = (0.6,) if explicit and name in equations.ALPHA else ()
    betas = (0.3,) if explicit and name in equations.BETA else ()
    tame = {"scale": 0.1, "bias": False} if (kind, position) == ("GRU", 0) else {}
    return Layer(kind, activations=tuple(names), alphas=alphas, betas=betas, **tame)


IN_EACH_POSITION = [
    _with(kind, position, name, explicit)
    for kind in KINDS
    for position in range(len(equations.DEFAULTS[kind]))
    for name in equations.ACTIVATIONS
    for explicit in ((False, True) if name in equations.ALPHA else (False,))
]


@pytest.mark.parametrize("layer", IN_EACH_POSITION, ids=lambda layer: str(Case(layer)))
def test_each_activation_works_in_each_position(layer: Layer, tmp_path: Path) -> None:
    check(Case(layer), tmp_path)


SEVERAL = [
    lstm(activations=("HardSigmoid", "Affine", "ScaledTanh"), alphas=(0.3, 0.6, 0.9), betas=(0.4, 0.1, 0.8)),
    lstm(activations=("HardSigmoid", "Affine", "ScaledTanh"), alphas=(0.3,), betas=(0.4, 0.1)),
    lstm(activations=("Sigmoid", "LeakyRelu", "Elu"), alphas=(0.2, 0.5)),
    lstm(activations=("LeakyRelu", "Tanh", "HardSigmoid"), alphas=(0.2, 0.3), betas=(0.6,)),
    lstm(activations=("Softsign", "ThresholdedRelu", "Tanh"), alphas=(0.25,), peepholes=True, clip=2.0),
    lstm(activations=("HardSigmoid", "Softsign", "Elu"), peepholes=True, input_forget=True),
    gru(activations=("HardSigmoid", "ScaledTanh"), alphas=(0.3, 0.6), betas=(0.4, 0.1)),
    gru(activations=("HardSigmoid", "ScaledTanh"), alphas=(0.3, 0.6), betas=(0.4, 0.1), linear_before_reset=True),
    gru(activations=("Elu", "LeakyRelu"), alphas=(0.3, 0.6), linear_before_reset=True, clip=0.5),
]


@pytest.mark.parametrize("layer", SEVERAL, ids=lambda layer: str(Case(layer)))
def test_each_activation_takes_the_next_alpha_and_the_next_beta(layer: Layer, tmp_path: Path) -> None:
    check(Case(layer), tmp_path)


@pytest.mark.parametrize("spelling", ["lower", "upper"])
def test_the_names_of_activations_are_read_in_any_case(spelling: str, tmp_path: Path) -> None:
    written = write(Case(lstm(activations=("HardSigmoid", "Softsign", "Relu"))))
    (node,) = (node for node in written.model.graph.node if node.op_type == "LSTM")
    (attribute,) = (a for a in node.attribute if a.name == "activations")
    attribute.strings[:] = [getattr(name, spelling)() for name in attribute.strings]
    assert loaded(written.model, tmp_path).graph.layers


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_opset_from_7_to_22_is_served(kind: str, opset: int, tmp_path: Path) -> None:
    odd = {"LSTM": {"peepholes": True, "clip": 0.9}, "GRU": {"linear_before_reset": True, "clip": 0.9}}
    check(Case(replace(Layer(kind), **odd.get(kind, {"clip": 0.9})), opset), tmp_path)


@pytest.mark.parametrize("opset", [7, 10, 11, 13, 17, 22])
@pytest.mark.parametrize("name", equations.ACTIVATIONS)
def test_every_activation_works_in_old_and_new_opsets(name: str, opset: int, tmp_path: Path) -> None:
    check(Case(_with("GRU", 1, name, explicit=True), opset), tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("weights", ["initializer", "node", "computed"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_and_double_precision_are_served(kind: str, weights: str, layout: int, dtype: str, tmp_path: Path) -> None:
    layer = Layer(kind, weights=weights, layout=layout, peepholes=kind == "LSTM", linear_before_reset=kind == "GRU")
    for initial in ("absent", "constant", "computed"):
        check(Case(layer, dtype=dtype, initial=initial), tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("opset", [7, 17, 22])
@pytest.mark.parametrize("name", equations.ACTIVATIONS)
def test_every_activation_works_in_half_and_double_precision(name: str, opset: int, dtype: str, tmp_path: Path) -> None:
    check(Case(_with("RNN", 0, name, explicit=True), opset, dtype), tmp_path)
    check(Case(_with("LSTM", 1, name, explicit=False), opset, dtype), tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("opset", [7, 10, 11, 14, 22])
def test_half_and_double_precision_clip_in_every_opset(opset: int, dtype: str, tmp_path: Path) -> None:
    check(Case(lstm(clip=0.5, input_forget=True), opset, dtype), tmp_path)


@pytest.mark.parametrize("weights", ["node", "computed"])
@pytest.mark.parametrize("opset", [7, 9, 13, 22])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_may_be_constants_or_computed_from_constants(
    kind: str, opset: int, weights: str, tmp_path: Path
) -> None:
    check(Case(Layer(kind, weights=weights, peepholes=kind == "LSTM"), opset), tmp_path)


@pytest.mark.parametrize("lengths", ["", "input", "computed"])
@pytest.mark.parametrize("initial", ["absent", "constant", "computed"])
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_initial_states_and_lengths_may_come_from_anywhere(
    kind: str, layout: int, initial: str, lengths: str, tmp_path: Path
) -> None:
    check(Case(Layer(kind, layout=layout), initial=initial, lengths=lengths), tmp_path)


USED = {
    1: [("Y",), ("Y_h",), ("Y", "Y_h")],
    2: [("Y",), ("Y_h",), ("Y_c",), ("Y", "Y_h"), ("Y", "Y_c"), ("Y_h", "Y_c"), ("Y", "Y_h", "Y_c")],
}


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize(
    ("kind", "outputs"), [(kind, used) for kind in KINDS for used in USED[len(equations.STATES[kind])]]
)
def test_any_of_the_outputs_may_be_used(kind: str, outputs: tuple[str, ...], layout: int, tmp_path: Path) -> None:
    check(Case(Layer(kind, outputs=outputs, layout=layout)), tmp_path)


def stacked(kinds: tuple[str, ...], dtype: str, layout: int) -> Written:
    """Cells in a row, each fed with the hidden states of the one before; the answer is the last one's."""
    g, operators, rows = Writer(dtype=dtype), [], []
    tensor, width = g.input(["batch", "time", INPUTS] if layout else ["time", "batch", INPUTS]), INPUTS
    for kind in kinds:
        case = Case(Layer(kind, layout=layout, outputs=("Y",)))
        states, started = _states(g, case, g.inputs[0].name)
        outputs, operator = g.cell(case.layer, tensor, width, states)
        tensor, width = g.squeeze(outputs["Y"], 2 if layout else 1), case.layer.hidden
        operators.append(operator)
        rows.append(started)
    g.output(tensor, ["batch", "time", width] if layout else ["time", "batch", width])
    return Written(g.model(), operators, rows)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("kinds", [("LSTM", "LSTM"), ("GRU", "RNN", "LSTM"), ("RNN", "RNN", "RNN")], ids="-".join)
def test_cells_in_a_row_each_have_their_states_and_gates(
    kinds: tuple[str, ...], layout: int, dtype: str, tmp_path: Path
) -> None:
    written = stacked(kinds, dtype, layout)
    engine = loaded(written.model, tmp_path)
    rows = np.random.default_rng(1).normal(size=(STEPS, BATCH, INPUTS)).astype(dtype)
    seen = streamed(engine, rows, np.tile(engine.graph.initial, (BATCH, 1)))
    for layer, (operator, start) in enumerate(zip(written.operators, written.initial, strict=True)):
        steps = equations.run(operator, rows, [np.tile(row, (BATCH, 1)) for row in start])
        for name in steps[0]:
            wanted = [step[name] for step in steps]
            np.testing.assert_allclose(seen[layer, name], wanted, rtol=0, atol=TOLERANCE[dtype], err_msg=name)
        rows = np.stack([step["hidden"] for step in steps])
    np.testing.assert_allclose(seen[engine.graph.outputs[0].name], rows, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("kinds", [("LSTM", "LSTM"), ("GRU", "LSTM"), ("RNN", "GRU", "LSTM")], ids="-".join)
def test_cells_side_by_side_each_have_their_states_and_gates(kinds: tuple[str, ...], tmp_path: Path) -> None:
    g = Writer()
    x = g.input(["time", "batch", INPUTS])
    cells = [g.cell(Layer(kind, hidden=3 + i, outputs=("Y",)), x, INPUTS) for i, kind in enumerate(kinds)]
    g.output(g.concat(2, *(g.squeeze(outputs["Y"], 1) for outputs, _ in cells)), ["time", "batch", None])
    engine = loaded(g.model(), tmp_path)
    rows = np.random.default_rng(1).normal(size=(STEPS, BATCH, INPUTS)).astype(np.float32)
    seen = streamed(engine, rows, np.tile(engine.graph.initial, (BATCH, 1)))
    answers = []
    for layer, (kind, (_, operator)) in enumerate(zip(kinds, cells, strict=True)):
        steps = equations.run(operator, rows, [np.zeros((BATCH, 3 + layer))] * len(equations.STATES[kind]))
        for name in steps[0]:
            np.testing.assert_allclose(seen[layer, name], [step[name] for step in steps], rtol=0, atol=1e-5)
        answers.append(np.stack([step["hidden"] for step in steps]))
    np.testing.assert_allclose(seen[engine.graph.outputs[0].name], np.concatenate(answers, 2), rtol=0, atol=1e-5)


def _onnx_order(packed: torch.Tensor, kind: str) -> NDArray[np.generic]:
    """torch packs LSTM as i, f, g, o and GRU as r, z, n; ONNX as i, o, f, c and z, r, h."""
    blocks = np.split(packed.detach().double().numpy(), equations.BLOCKS[kind])
    return np.concatenate([blocks[i] for i in {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}[kind]])


@pytest.mark.parametrize("kind", KINDS)
def test_the_equations_are_torch_s(kind: str) -> None:
    torch.manual_seed(0)
    cell = getattr(torch.nn, kind)(INPUTS, 5).double()
    x, h, c = torch.randn(STEPS, BATCH, INPUTS).double(), torch.randn(1, BATCH, 5).double(), torch.randn(1, BATCH, 5)
    states = [h, c.double()][: len(equations.STATES[kind])]
    with torch.no_grad():
        y, _ = cell(x, tuple(states) if kind == "LSTM" else h)
    parameters = dict(cell.named_parameters())
    w, r, wb, rb = (_onnx_order(parameters[f"{n}_l0"], kind) for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    operator = equations.Operator(kind, w, r, np.concatenate([wb, rb]), linear_before_reset=True)
    steps = equations.run(operator, x.numpy(), [state[0].numpy() for state in states])
    np.testing.assert_allclose([step["hidden"] for step in steps], y.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_gates_of_a_tested_operator_are_alike(kind: str) -> None:
    written = write(Case(Layer(kind)))
    x = np.random.default_rng(1).normal(size=(STEPS, BATCH, INPUTS))
    steps = equations.run(written.operators[0], x, [np.tile(row, (BATCH, 1)) for row in written.initial[0]])
    parts = [np.stack([step[name] for step in steps]) for name in steps[0]]
    for i, one in enumerate(parts):
        assert all(np.abs(one - other).max() > 0.1 for other in parts[i + 1 :])
