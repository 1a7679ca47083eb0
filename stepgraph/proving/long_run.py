"""Compares a step graph with the original file over hundreds of steps, and with the numbers that the file itself names.

A short random sequence does not show an operator that reaches back thirty steps, nor what a file does at -999. So one
long sequence goes through both: longer than every constant that could be a reach in steps, and with the thresholds that
the file compares its inputs with among its numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import numpy_helper

from stepgraph.errors import ModelRefused
from stepgraph.graphs.builder import attributes, with_inner
from stepgraph.graphs.graph import Graph
from stepgraph.proving import difference
from stepgraph.proving.difference import Compared, Difference, errors
from stepgraph.proving.reference import Data, Reference, sequences, size
from stepgraph.rewriting.ports import Facts, Port
from stepgraph.running.engine import Engine

_STEPS, _MOST_STEPS, _BEYOND = 300, 2_000, 64
_PREFIXES = 6  # lengths that are compared of a file that answers once for all steps, from `_START` on
_NOISE = 1e-6  # by which the inputs are moved to see how much of a difference is rounding
_START, _GROWN = 13, 1e4  # numbers that are so many times those of the first steps have no bound
_LOST = 1e-2  # where rounding has grown to so much, nothing can be told from it
_AMPLIFIED = 30.0  # times what that makes is still rounding
_NUMBERS = 4096  # of a row are compared over so many steps; the shorter sequences compare all
_SMALL = 16  # elements of a constant that can be a bound
_COMPARING = frozenset({"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Clip", "Min", "Max"})
_REACHING = frozenset({"Slice", "Pad", "Gather", "GatherElements", "GatherND", "Range", "Split", "TopK", "Mod"})
_WINDOWS = frozenset({"AveragePool", "Conv", "ConvInteger", "LpPool", "MaxPool", "QLinearConv"})


@dataclass(frozen=True)
class Hints:
    """What a file's constants suggest to try: how many steps one could reach, which numbers it compares inputs with."""

    reach: int
    thresholds: tuple[float, ...]

    @property
    def steps(self) -> int:
        """How long a sequence has to be to go beyond that reach."""
        return min(max(_STEPS, self.reach + _BEYOND), _MOST_STEPS)


def hints(graph: Graph) -> Hints:
    nodes = list(with_inner(graph.nodes))
    own = dict(_own_constants(nodes))
    windows, reach, thresholds = 0, 0, set[float]()
    for node in nodes:
        if node.op_type in _WINDOWS:
            windows += _window(node)
        if node.op_type in _REACHING | _COMPARING:
            known = [own[name] if name in own else graph.value(name) for name in node.input if name]
            values = [value for value in known if value is not None and value.size <= _SMALL]
            ravelled = (number for value in values if value.dtype.kind in "fiu" for number in np.ravel(value))
            numbers = [float(number) for number in ravelled if np.isfinite(number)]
            whole = [abs(int(number)) for number in numbers if number == int(number) and abs(number) <= _MOST_STEPS]
            reach = max([reach, *whole])
            thresholds.update(numbers if node.op_type in _COMPARING else [])
    return Hints(reach + windows, tuple(sorted(thresholds)))


def first_beyond(
    reference: Reference, facts: Facts, engine: Engine, found: Hints, same: float
) -> tuple[Difference | None, int]:
    """The first difference in a long sequence that is more than `same`, and more than what rounding can grow to.

    And how many steps were compared: fewer than `found.steps` where the original's own numbers say nothing any more.
    """
    data = _data(facts, found)
    answers = engine.run(data, engine.graph.start(size(data)[1]), trace=False).outputs
    return first_apart(reference, facts, data, answers, same, Asked())


@dataclass(frozen=True)
class Asked:
    """What to run the file for: the answers to so many prefixes, where it answers once; or the last step alone."""

    prefixes: int = _PREFIXES
    last: bool = False


def first_apart(
    reference: Reference, facts: Facts, data: Data, answers: Mapping[str, np.ndarray], same: float, asked: Asked
) -> tuple[Difference | None, int]:
    """As `first_beyond`, of answers [T, B, ...row] to these steps from a new sequence's state on."""
    compared = [
        Compared(f"output '{port.name}'", steps, _some(wanted), _some(answers[port.name][steps]), port.unit)
        for port, steps, wanted in _wanted(reference, facts, data, asked)
    ]
    end = min(map(_end, compared))
    if difference.first_beyond([_until(end, each) for each in compared], same) is None:
        return None, end
    moved = (_some(values) for _, _, values in _wanted(reference, facts, _moved(data, facts), asked))
    noise = [errors(c.wanted, m, c.unit, since_start=False) for c, m in zip(compared, moved, strict=True)]
    end = min(end, *(_first(c, _AMPLIFIED * each > _LOST) for c, each in zip(compared, noise, strict=True)))
    told = [_until(end, each) for each in compared]
    bounds = [np.fmax(same, _AMPLIFIED * each[: len(t.steps)]) for each, t in zip(noise, told, strict=True)]
    return difference.first_beyond(told, bounds), end


def _some(y: np.ndarray) -> np.ndarray:
    """The numbers [T, B, ...row], or [T, B, n] of them spread evenly where a row has very many."""
    rows = y.reshape(*y.shape[:2], -1)
    picked = np.linspace(0, rows.shape[2] - 1, _NUMBERS).astype(int)
    return rows[..., picked] if rows.shape[2] > _NUMBERS else y


def _end(compared: Compared) -> int:
    """The step from which on the original's numbers prove nothing: they are NaN, or have grown without a bound."""
    sizes = np.abs(compared.wanted).astype(np.float64).reshape(len(compared.wanted), -1).max(1, initial=0)
    bound = _GROWN * max(1.0, float(np.nan_to_num(sizes[:_START]).max(initial=0)))
    return _first(compared, ~(sizes <= bound))


def _first(compared: Compared, strange: np.ndarray) -> int:
    """The first step that is strange; one beyond the last if none is."""
    return compared.steps[int(strange.argmax())] if strange.any() else compared.steps[-1] + 1


def _until(end: int, compared: Compared) -> Compared:
    count = sum(step < end for step in compared.steps)
    return replace(compared, steps=compared.steps[:count], wanted=compared.wanted[:count], got=compared.got[:count])


def _wanted(
    reference: Reference, facts: Facts, data: Data, asked: Asked
) -> Iterator[tuple[Port, Sequence[int], np.ndarray]]:
    """What the original answers for each output: at which steps, and [T, B, ...row]."""
    for port, steps, wanted in _answered(reference, facts, data, asked.prefixes):
        yield port, steps[-1:] if asked.last else steps, wanted[-1:] if asked.last else wanted


def _answered(
    reference: Reference, facts: Facts, data: Data, prefixes: int
) -> Iterator[tuple[Port, Sequence[int], np.ndarray]]:
    length, _ = size(data)
    if facts.one_step:
        answers = [answer.outputs for answer in reference.answers(data)]
        yield from ((port, range(length), np.stack([a[port.name] for a in answers])) for port in facts.outputs)
        return
    last = reference.last(data)
    yield from ((p, range(length), p.steps(last.whole[p.name])) for p in facts.outputs if p.time is not None)
    once = [port for port in facts.outputs if port.time is None]
    several = once and prefixes > 1 and length > _START
    lengths = np.geomspace(_START, length, prefixes).astype(int).tolist() if several else [length]
    ends = [*(reference.last({name: x[:steps] for name, x in data.items()}) for steps in lengths[:-1]), last]
    yield from ((p, [n - 1 for n in lengths], np.stack([end.outputs[p.name] for end in ends])) for p in once)


def _data(facts: Facts, found: Hints) -> Data:
    """Random numbers, and in one sequence thresholds and what lies to both sides, alone and in runs; [T, B, ...row]."""
    length, batch = found.steps, 1 if facts.alone else 2
    data = sequences(facts, length, batch, seed=1)
    random = np.random.default_rng(2)
    for port in facts.inputs:
        if not found.thresholds or port.dtype.kind != "f" or port.positive or port.below or port.time is None:
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
    """The same rows, with every number that is not whole changed by a tiny part of itself."""
    random = np.random.default_rng(3)
    floats = {port.name for port in facts.inputs if port.dtype.kind == "f"}
    return {
        name: np.where(x == np.round(x), x, x * (1 + _NOISE * random.standard_normal(x.shape))).astype(x.dtype)
        if name in floats
        else x
        for name, x in data.items()
    }


def _window(node: onnx.NodeProto) -> int:
    given = attributes(node)
    kernel = given.get("kernel_shape") or [1]
    dilations = given.get("dilations") or [1] * len(kernel)
    return max(int(d) * (int(k) - 1) for k, d in zip(kernel, dilations, strict=True))


def _own_constants(nodes: Sequence[onnx.NodeProto]) -> Iterator[tuple[str, np.ndarray]]:
    for node in nodes:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            yield node.output[0], numpy_helper.to_array(node.attribute[0].t)


def refusal(apart: Difference, mixing: str | None) -> ModelRefused:
    return ModelRefused(f"{mixing} ({said(apart)})" if mixing else said(apart))


def said(apart: Difference) -> str:
    return (
        f"{apart.what} agrees with the original file up to step {apart.step - 1} and differs by {apart.error:.2g} "
        f"at step {apart.step}"
    )
