"""Finds out which node of a refused model is to blame: runs it in two ways with all tensors in view, and compares.

Only for the sentence of a refusal; decides nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from server import session
from server.engine import shaped_feeds
from server.errors import TidegateError
from server.ports import Facts
from server.recurrence import label
from server.stepgraph import NEXT_STATE, STATE, StepGraph

ADVICE = "Only recurrent cells may carry anything from step to step; let the rest of the network see one step at a time"
_STEPS, _ROWS = 4, 3
_WINDOWS = frozenset({"AveragePool", "Conv", "ConvInteger", "ConvTranspose", "LpPool", "MaxPool", "QLinearConv"})

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class _Part:
    """Which part of an axis in the one run is the whole axis in the other: `size` of `of`, from `start`."""

    start: int
    size: int
    of: int
    beginning: bool = False  # of sequences, not of the rows of a batch


def explained(node: onnx.NodeProto) -> str:
    """Why a node that mixes steps keeps a model from streaming, and what to do."""
    how, what = next((words for operators, words in _EXPLAINED if node.op_type in operators), _OTHERWISE)
    return f"{label(node)} mixes steps with one another, so this model cannot answer a stream: {how}. {what}"


def mixing_node(original: onnx.ModelProto, facts: Facts, graph: StepGraph, tolerance: float) -> onnx.NodeProto | None:
    """The first node whose value at the last of a few steps differs though all that goes into it agrees.

    None if it cannot be told.
    """
    if facts.one_step:
        return None
    data = _data(facts, 1)
    return _compared(
        original,
        lambda: _values(original, _feeds(facts, data, _STEPS)),
        lambda: _last_step(graph, data),
        _Part(_STEPS - 1, 1, _STEPS),
        tolerance,
    )


def ahead_node(original: onnx.ModelProto, facts: Facts, tolerance: float) -> onnx.NodeProto | None:
    """The first node whose values at some steps change once there is one step more; None if it cannot be told."""
    data, fewer = _data(facts, 1), _STEPS - 1
    return _compared(
        original,
        lambda: _values(original, _feeds(facts, data, _STEPS)),
        lambda: _values(original, _feeds(facts, data, fewer)),
        _Part(0, fewer, _STEPS, beginning=True),
        tolerance,
    )


def row_mixing_node(original: onnx.ModelProto, facts: Facts, tolerance: float) -> onnx.NodeProto | None:
    """The first node whose value for a sequence changes with others beside it; None if it cannot be told."""
    data = _data(facts, _ROWS)
    return _compared(
        original,
        lambda: _values(original, _feeds(facts, data, _STEPS)),
        lambda: _values(original, _feeds(facts, {name: x[:, :1] for name, x in data.items()}, _STEPS)),
        _Part(0, 1, _ROWS),
        tolerance,
    )


def _compared(
    original: onnx.ModelProto,
    one: Callable[[], Tensors],
    other: Callable[[], Tensors],
    part: _Part,
    tolerance: float,
) -> onnx.NodeProto | None:
    try:
        node = _first_unlike(original, one(), other(), part, tolerance)
    except TidegateError:
        return None
    return node and _window_behind(original, node)


def _first_unlike(
    original: onnx.ModelProto, whole: Tensors, other: Tensors, part: _Part, tolerance: float
) -> onnx.NodeProto | None:
    agreed: set[str] = set()
    for node in original.graph.node:
        names = [name for name in node.output if name in whole and name in other]
        same = {name: _same(whole[name], other[name], part, tolerance) for name in names}
        agreed.update(name for name in names if same[name])
        if False in same.values() and all(
            name in agreed or name not in whole or name not in other for name in node.input
        ):
            return node
    return None


def _window_behind(original: onnx.ModelProto, node: onnx.NodeProto) -> onnx.NodeProto:
    """A convolution, if the node only adds the edges that it needs."""
    if node.op_type not in ("Concat", "Pad"):
        return node
    users = [user for user in original.graph.node if node.output[0] in user.input]
    return users[0] if len(users) == 1 and users[0].op_type in _WINDOWS else node


def _data(facts: Facts, batch: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {port.name: port.sample(_STEPS, batch, random) for port in facts.inputs}


def _feeds(facts: Facts, data: Mapping[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
    batch = next(iter(data.values())).shape[1]
    return facts.feeds({port.name: port.original(data[port.name][:steps]) for port in facts.inputs}, batch, steps)


def _last_step(graph: StepGraph, data: Mapping[str, np.ndarray]) -> Tensors:
    """Every tensor of the step graph at the last step."""
    values: dict[str, np.ndarray] = {}
    state = graph.initial[np.newaxis]
    exposed = _exposed(graph.model)
    runner = session.create(exposed)
    names = [output.name for output in exposed.graph.output]
    for step in range(_STEPS):
        feeds = shaped_feeds(graph, {name: x[step : step + 1] for name, x in data.items()})
        run = session.run(runner, names, feeds | ({STATE: state} if graph.state else {}))
        values = {name: value for name, value in zip(names, run, strict=True) if session.is_tensor(value)}
        state = values.get(NEXT_STATE, state)
    return values


def _values(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> Tensors:
    exposed = _exposed(model)
    names = [output.name for output in exposed.graph.output]
    values = zip(names, session.run(session.create(exposed), names, feeds), strict=True)
    return {name: value for name, value in values if session.is_tensor(value)}


def _exposed(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that returns every tensor."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {output.name for output in copy.graph.output}
    for node in copy.graph.node:
        for name in node.output:
            if name and name not in known:
                known.add(name)
                copy.graph.output.append(onnx.ValueInfoProto(name=name))
    return copy


def _same(whole: np.ndarray, other: np.ndarray, part: _Part, tolerance: float) -> bool | None:
    """Whether a tensor holds in that part of one of its axes what the other holds; None if that says nothing.

    What has no time axis may be of the last step, which is another where a sequence goes on.
    """
    if whole.dtype.kind != "f":
        return True  # shapes, indices, masks: they differ by nature
    if whole.ndim != other.ndim:
        return False
    sizes = [(i, a, b) for i, (a, b) in enumerate(zip(whole.shape, other.shape, strict=True))]
    axes = [(i, b // part.size) for i, a, b in sizes if a != b and a * part.size == b * part.of]
    pieces = [np.take(whole, range(part.start * k, (part.start + part.size) * k), i) for i, k in axes]
    if any(_close(piece, other, tolerance) for piece in (*pieces, whole)):
        return True
    return None if part.beginning and whole.shape == other.shape else False


def _close(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=tolerance, atol=tolerance))


_REDUCE = {
    "ReduceMean": "the mean",
    "ReduceMax": "the maximum",
    "ReduceMin": "the minimum",
    "ReduceSum": "the sum",
    "ReduceProd": "the product",
    "ReduceL1": "the norm",
    "ReduceL2": "the norm",
    "ReduceSumSquare": "the sum of squares",
    "ReduceLogSum": "the sum",
    "ReduceLogSumExp": "the sum",
    "GlobalAveragePool": "the mean",
    "GlobalMaxPool": "the maximum",
}
_CELLS_INSTEAD = (
    "Take the last step of a cell instead, or export the file for one step at a time, with what it remembers as an "
    "input and an output, and name that pair in model.toml beside the file, under [state]"
)
_BUFFER_INSTEAD = (
    "A convolution that looks back can stream if the frames that it looks back at go in and come out: export the file "
    "for one step at a time, with that buffer as an input and an output, and name the pair in model.toml beside the "
    "file, under [state]. One that looks ahead cannot"
)
_ATTENTION = (
    "it weighs all steps of a sequence against each other, as attention does",
    "Attention needs the whole sequence at once; export the recurrent part of the network without it",
)
_OTHERWISE = ("its value at one step depends on other steps", ADVICE)
_EXPLAINED: tuple[tuple[frozenset[str], tuple[str, str]], ...] = (
    *(
        (frozenset({operator}), (f"it takes {what} over all steps of a sequence", _CELLS_INSTEAD))
        for operator, what in _REDUCE.items()
    ),
    (
        _WINDOWS,
        (
            "its window covers several steps",
            _BUFFER_INSTEAD,
        ),
    ),
    (
        frozenset({"CumSum", "CumProd"}),
        ("it sums up from step to step, which is a state outside any recurrent cell", _CELLS_INSTEAD),
    ),
    (
        frozenset({"Attention", "Einsum", "Gemm", "LogSoftmax", "MatMul", "MultiHeadAttention", "Softmax"}),
        _ATTENTION,
    ),
    (
        frozenset({"GroupNormalization", "InstanceNormalization", "LayerNormalization", "MeanVarianceNormalization"}),
        (
            "it normalises over the steps of a sequence",
            "Normalise over features, or by constants that are part of the file",
        ),
    ),
    (
        frozenset({"Concat", "Expand", "Gather", "GatherND", "Pad", "ReverseSequence", "Slice", "Split", "Tile"}),
        ("it moves values from one step to another: it shifts, delays, cuts or reverses the sequence", ADVICE),
    ),
    (
        frozenset({"ArgMax", "ArgMin", "Hardmax", "TopK", "NonZero", "Unique"}),
        ("it chooses among all steps of a sequence", _CELLS_INSTEAD),
    ),
    (
        frozenset({"If"}),
        (
            "what is in its branches has a state that cannot be reached while data decide which is taken",
            "Say what the input that decides it always is in model.toml beside the file, under [fixed]",
        ),
    ),
    (
        frozenset({"Resize", "Upsample"}),
        ("it changes how many steps a sequence has", "Resample before the model, or after it"),
    ),
)
