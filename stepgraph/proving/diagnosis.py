"""Finds out which node of a refused model is to blame: runs it in two ways with all tensors in view, and compares.

Only for the sentence of a refusal; decides nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from stepgraph.errors import StepgraphError
from stepgraph.graphs.nodes import returning
from stepgraph.graphs.sliding import SLIDING
from stepgraph.proving.reference import Data, size
from stepgraph.rewriting.ports import Facts
from stepgraph.rewriting.stepgraph import NEXT_STATE, STATE, StepGraph
from stepgraph.running import session
from stepgraph.running.engine import shaped_feeds

_STEPS, _ROWS = 4, 3


@dataclass(frozen=True)
class Bounds:
    """A difference below `same` is rounding; one above `other` is a real difference.

    Between the two is rounding that the network has amplified: a model is refused for it, and no node is blamed.
    """

    same: float
    other: float


@dataclass(frozen=True)
class _Part:
    """Which part of an axis in the one run is the whole axis in the other: `size` of `of`, from `start`."""

    start: int
    size: int
    of: int
    beginning: bool = False  # of sequences, not of the rows of a batch


def mixing_node(
    original: onnx.ModelProto, facts: Facts, graph: StepGraph, bounds: Bounds, steps: int = _STEPS
) -> onnx.NodeProto | None:
    """The first node whose value at the last of so many steps differs though all that goes into it agrees.

    None if it cannot be told, as for the other functions here.
    """
    data = _data(facts, 1, steps)
    last = _Part(steps - 1, 1, steps)
    return None if facts.one_step else _compared(original, facts, data, lambda: _last_step(graph, data), last, bounds)


def ahead_node(original: onnx.ModelProto, facts: Facts, bounds: Bounds) -> onnx.NodeProto | None:
    """The first node whose values at some steps change once there is one step more."""
    data, most = _data(facts, 1), _Part(0, _STEPS - 1, _STEPS, beginning=True)
    fewer = {name: x[: _STEPS - 1] for name, x in data.items()}
    return _compared(original, facts, data, lambda: _values(original, facts, fewer), most, bounds)


def row_mixing_node(original: onnx.ModelProto, facts: Facts, bounds: Bounds) -> onnx.NodeProto | None:
    """The first node whose value for a sequence changes with others beside it."""
    data = _data(facts, _ROWS)
    first = {name: x[:, :1] for name, x in data.items()}
    return _compared(original, facts, data, lambda: _values(original, facts, first), _Part(0, 1, _ROWS), bounds)


def _compared(
    original: onnx.ModelProto, facts: Facts, data: Data, other: Callable[[], Data], part: _Part, bounds: Bounds
) -> onnx.NodeProto | None:
    if facts.lead:
        return None
    try:
        node = _first_unlike(original, _values(original, facts, data), other(), part, bounds)
    except StepgraphError:
        return None
    return node and _window_behind(original, node)


def _first_unlike(
    original: onnx.ModelProto, whole: Data, other: Data, part: _Part, bounds: Bounds
) -> onnx.NodeProto | None:
    agreed: set[str] = set()
    for node in original.graph.node:
        names = [name for name in node.output if name in whole and name in other]
        same = {name: _same(whole[name], other[name], part, bounds) for name in names}
        agreed.update(name for name in names if same[name])
        if False in same.values() and all(
            name in agreed or name not in whole or name not in other for name in node.input
        ):
            return node
    return None


def _window_behind(original: onnx.ModelProto, node: onnx.NodeProto) -> onnx.NodeProto:
    """The convolution that a node pads for, if it does nothing else; otherwise the node."""
    if node.op_type not in ("Concat", "Pad"):
        return node
    users = [user for user in original.graph.node if node.output[0] in user.input]
    return users[0] if len(users) == 1 and users[0].op_type in SLIDING else node


def _data(facts: Facts, batch: int, steps: int = _STEPS) -> Data:
    return facts.sample(steps, batch, np.random.default_rng(0))


def _last_step(graph: StepGraph, data: Data) -> Data:
    values: Data = {}
    state = graph.start(1)
    exposed = _exposed(graph.model)
    runner = session.create(exposed)
    names = [output.name for output in exposed.graph.output]
    for step in range(len(next(iter(data.values())))):
        feeds = shaped_feeds(graph, {name: x[step : step + 1] for name, x in data.items()})
        run = session.run(runner, names, feeds | ({STATE: state} if graph.state else {}))
        values = {name: value for name, value in zip(names, run, strict=True) if session.is_tensor(value)}
        state = values.get(NEXT_STATE, state)
    return values


def _values(model: onnx.ModelProto, facts: Facts, data: Data) -> Data:
    exposed = _exposed(model)
    names = [output.name for output in exposed.graph.output]
    length, batch = size(data)
    values = session.run(session.create(exposed), names, facts.feeds(data, batch, length))
    return {name: value for name, value in zip(names, values, strict=True) if session.is_tensor(value)}


def _exposed(model: onnx.ModelProto) -> onnx.ModelProto:
    return returning(model, (name for node in model.graph.node for name in node.output if name))


def _same(whole: np.ndarray, other: np.ndarray, part: _Part, bounds: Bounds) -> bool | None:
    """Whether a part of one axis of a tensor holds the numbers of the other tensor; None if that cannot be compared.

    What has no time axis may be of the last step, which is another where a sequence goes on.
    """
    if whole.dtype.kind != "f":
        return True  # shapes, indices, masks: they differ by nature
    if whole.ndim != other.ndim:
        return False
    sizes = [(i, a, b) for i, (a, b) in enumerate(zip(whole.shape, other.shape, strict=True))]
    axes = [(i, b // part.size) for i, a, b in sizes if a != b and a * part.size == b * part.of]
    pieces = [np.take(whole, range(part.start * k, (part.start + part.size) * k), i) for i, k in axes]
    if any(_close(piece, other, bounds.same) for piece in (*pieces, whole)):
        return True
    if part.beginning and whole.shape == other.shape:
        return None
    return None if any(_close(piece, other, bounds.other) for piece in (*pieces, whole)) else False


def _close(a: np.ndarray, b: np.ndarray, bound: float) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=bound, atol=bound))
