"""Finds out which node of a refused model mixes steps: runs original and step graph with all tensors in view.

Only for the sentence of a refusal; decides nothing.
"""

import numpy as np
import onnx

from server import session
from server.engine import shaped_feeds
from server.errors import TidegateError
from server.probe import Facts, sample
from server.stepgraph import STATE, StepGraph

_STEPS = 4


def mixing_node(original: onnx.ModelProto, facts: Facts, graph: StepGraph, tolerance: float) -> onnx.NodeProto | None:
    """The first node whose value at the last of a few steps differs though all that goes into it agrees.

    None if it cannot be told.
    """
    try:
        return _search(original, facts, graph, tolerance)
    except TidegateError:
        return None


def _search(original: onnx.ModelProto, facts: Facts, graph: StepGraph, tolerance: float) -> onnx.NodeProto | None:
    random = np.random.default_rng(0)
    data = {port.name: sample(port.dtype, (_STEPS, 1, *port.row), random) for port in facts.inputs}
    whole = _values(original, facts.feeds({p.name: p.original(data[p.name]) for p in facts.inputs}, 1, _STEPS))
    last = _last_step(graph, data)
    agreed: set[str] = set()
    for node in original.graph.node:
        names = [name for name in node.output if name in whole and name in last]
        if all(_same(whole[name], last[name], tolerance) for name in names):
            agreed.update(names)
        elif all(name in agreed or name not in whole or name not in last for name in node.input):
            return node
    return None


def _last_step(graph: StepGraph, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
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
        state = values.get("tidegate/next_state", state)
    return values


def _values(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
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


def _same(whole: np.ndarray, last: np.ndarray, tolerance: float) -> bool:
    """Whether a tensor of all steps ends in what the tensor of the last step holds."""
    if whole.dtype.kind != "f":
        return True  # shapes, indices, masks: they differ by nature
    if whole.ndim != last.ndim:
        return False
    axes = [i for i, (a, b) in enumerate(zip(whole.shape, last.shape, strict=True)) if (a, b) == (_STEPS, 1)]
    return any(_close(np.take(whole, [-1], axis), last, tolerance) for axis in axes) or _close(whole, last, tolerance)


def _close(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=tolerance, atol=tolerance))
