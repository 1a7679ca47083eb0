"""Compares a step graph with the original file over hundreds of steps, and with the numbers that the file itself names.

A short random sequence does not show what reaches back thirty steps, nor what a file does at -999. So one long
sequence goes through both: longer than every constant that could be a reach in steps, and with the thresholds that the
file compares its inputs with among its numbers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from stepgraph.errors import ModelRefused
from stepgraph.graphs.builder import with_inner
from stepgraph.graphs.constants import Constants
from stepgraph.proving.difference import Difference, difference, distance
from stepgraph.proving.reference import Answer, Data, Reference, sequences, size
from stepgraph.rewriting.ports import Facts, Port
from stepgraph.running.engine import Engine

_STEPS, _MOST_STEPS, _BEYOND = 300, 2_000, 64
_PREFIXES = 6  # at which a file is asked that answers once for all steps
_NOISE = 1e-6  # by which the inputs are moved to see how much of a difference is rounding
_AMPLIFIED = 30.0  # times what that makes is still rounding
_SMALL = 16  # elements of a constant that can be a bound
_COMPARING = frozenset({"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Clip", "Min", "Max"})
_REACHING = frozenset({"Slice", "Pad", "Gather", "GatherElements", "GatherND", "Range", "Split", "TopK", "Mod"})
_WINDOWS = frozenset({"AveragePool", "Conv", "ConvInteger", "LpPool", "MaxPool", "QLinearConv"})


@dataclass(frozen=True)
class Hints:
    """What a file's constants tell of where to look: how many steps one could reach, which numbers it compares with."""

    reach: int
    thresholds: tuple[float, ...]

    @property
    def steps(self) -> int:
        """How long a sequence has to be to go beyond that reach."""
        return min(max(_STEPS, self.reach + _BEYOND), _MOST_STEPS)


def hints(model: onnx.ModelProto) -> Hints:
    """Those of a whole file, with its subgraphs."""
    constants, own = Constants(model), dict(_own_constants(model.graph))
    windows, reach, thresholds = 0, 0, set[float]()
    for node in with_inner(model.graph.node):
        if node.op_type in _WINDOWS:
            windows += _window(node)
        if node.op_type in _REACHING | _COMPARING:
            known = [own.get(name, constants.value(name)) for name in node.input if name]
            values = [value for value in known if value is not None and value.size <= _SMALL]
            numbers = [float(number) for value in values for number in np.ravel(value) if value.dtype.kind in "fiu"]
            whole = [abs(int(number)) for number in numbers if number == int(number) and abs(number) <= _MOST_STEPS]
            reach = max([reach, *whole])
            thresholds.update(numbers if node.op_type in _COMPARING else [])
    return Hints(reach + windows, tuple(sorted(thresholds)))


def first_beyond(reference: Reference, facts: Facts, engine: Engine, found: Hints, same: float) -> Difference | None:
    """The first difference in a long sequence that is more than `same`, and more than what rounding can grow to."""
    data = _data(facts, found)
    wanted = list(_wanted(reference, facts, data))
    moved = dict(_wanted(reference, facts, _moved(data, facts)))
    answers = _stepped(engine, data)
    scales: Data = {}
    for (step, port), value in wanted:
        noise = distance(port.name, value.astype(np.float64), moved[step, port], {}, port.unit)
        got = answers[port.name][step]
        apart = difference(f"output '{port.name}'", step, value, got, scales, port.unit)
        if not apart.error <= max(same, _AMPLIFIED * noise):
            return apart
    return None


def _wanted(reference: Reference, facts: Facts, data: Data) -> Iterator[tuple[tuple[int, Port], np.ndarray]]:
    """What the original answers, [B, ...row], by step and output."""
    length, _ = size(data)
    if facts.one_step:
        for step, answer in enumerate(reference.answers(data)):
            yield from (((step, port), answer.outputs[port.name]) for port in facts.outputs)
        return
    whole = reference.last(data)
    for step in range(length):
        yield from (((step, p), p.at(whole.whole[p.name], step)) for p in facts.outputs if p.time is not None)
    if all(port.time is not None for port in facts.outputs):
        return
    for steps in np.unique(np.linspace(1, length, _PREFIXES).astype(int)).tolist():
        prefix: Answer = reference.last({name: x[:steps] for name, x in data.items()})
        yield from (((steps - 1, p), prefix.outputs[p.name]) for p in facts.outputs if p.time is None)


def _stepped(engine: Engine, data: Data) -> Mapping[str, np.ndarray]:
    """What the step graph answers, [T, B, ...row] by output."""
    length, batch = size(data)
    state = np.tile(engine.graph.initial, (batch, 1))
    rows: dict[str, list[np.ndarray]] = {}
    for step in range(length):
        result = engine.run({name: x[step : step + 1] for name, x in data.items()}, state, trace=False)
        state = result.state
        for name, value in result.outputs.items():
            rows.setdefault(name, []).append(value[0])
    return {name: np.stack(values) for name, values in rows.items()}


def _data(facts: Facts, found: Hints) -> Data:
    """Random numbers, and in one sequence thresholds and what lies to both sides, alone and in runs; [T, B, ...row]."""
    length, batch = found.steps, 1 if facts.alone else 2
    data = sequences(facts, length, batch, seed=1)
    random = np.random.default_rng(2)
    for port in facts.inputs:
        if not found.thresholds or port.dtype.kind != "f" or port.positive or port.time is None:
            continue
        exact = np.array(found.thresholds)
        aside = 1 + np.abs(exact) / 9
        values = np.concatenate([exact, exact - aside, exact + aside]).astype(port.dtype)
        values = values[np.isfinite(values)]
        marked = data[port.name][length // 4 :, -1]
        single = random.random(marked.shape) < 0.1
        marked[single] = random.choice(values, int(single.sum()))
        for start in range(10, len(marked) - 50, 50):
            marked[start : start + random.integers(2, 40)] = random.choice(values)
    return data


def _moved(data: Data, facts: Facts) -> Data:
    """The same with every number that is not whole moved by a little of itself."""
    random = np.random.default_rng(3)
    floats = {port.name for port in facts.inputs if port.dtype.kind == "f"}
    return {
        name: np.where(x == np.round(x), x, x * (1 + _NOISE * random.standard_normal(x.shape))).astype(x.dtype)
        if name in floats
        else x
        for name, x in data.items()
    }


def _window(node: onnx.NodeProto) -> int:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    kernel = attributes.get("kernel_shape") or [1]
    dilations = attributes.get("dilations") or [1] * len(kernel)
    return max(int(d) * (int(k) - 1) for k, d in zip(kernel, dilations, strict=True))


def _own_constants(graph: onnx.GraphProto) -> Iterator[tuple[str, np.ndarray]]:
    """What stands in a graph as a small constant, in subgraphs too."""
    for node in with_inner(graph.node):
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            yield node.output[0], numpy_helper.to_array(node.attribute[0].t)


def refusal(apart: Difference, mixing: str | None) -> ModelRefused:
    """Why a file is refused that agrees with its step graph up to a step and no longer."""
    said = (
        f"{apart.what} agrees with the original file up to step {apart.step - 1} and differs by {apart.error:.2g} "
        f"at step {apart.step}"
    )
    return ModelRefused(f"{mixing} ({said})" if mixing else said)
