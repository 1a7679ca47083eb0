"""Follows the axes of batch and time through a graph, by the rule of each operator. Pure; runs nothing.

What it shows holds for every number of steps and sequences and for every value: that each step of each sequence is
computed from itself and from the states of the cells, or which node is in the way.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf, prod

import numpy as np
import onnx

from stepgraph.errors import StepgraphError
from stepgraph.graphs import weights
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.labels import label, name_of
from stepgraph.graphs.nodes import opset
from stepgraph.rewriting.ports import Facts, Port
from stepgraph.rules import shapes
from stepgraph.rules.axes import ROWS, TIME, Axis, Time, has_rows, has_time, plain
from stepgraph.rules.families import entry_of
from stepgraph.rules.size import STEPS, Size, size
from stepgraph.rules.table import Call
from stepgraph.rules.value import NO_RULE, Finding, Found, Value, nothing, steps

Cut = Callable[[Call, Sequence[Value]], Sequence[Value]]

FIRST = "reads the first steps of a sequence, whichever step it is at"


def read(graph: Graph, facts: Facts, cut: Cut | None = None) -> Finding | None:
    """The first thing in a graph that one step of one sequence alone cannot do; None if there is none.

    What no rule can tell is named only if nothing else is in the way. `cut` as `Reader` has it.
    """
    kept = frozenset((state.loop, state.tensor) for state in facts.looped)
    values = Reader(graph, kept, cut).values(begin(facts))
    found = [_of_output(values[port.name], port) for port in facts.outputs if port.name in values]
    found += [
        _of_state(values[each.returned.name], each.given.name, facts)
        for each in facts.carried
        if each.returned.name in values
    ]
    findings = [finding for finding in found if finding]
    return next((f for f in findings if f.kind != "unknown"), findings[0] if findings else None)


def begin(facts: Facts) -> dict[str, Value]:
    """What is known of a graph's inputs."""
    rows: Axis = () if facts.alone else (ROWS,)
    steps: Size | int = 1 if facts.one_step else size(STEPS)
    values = {port.name: Value(axes(port, rows), live=True, origin=port.name) for port in facts.inputs}
    values |= {port.name: Value(axes(port, rows), number=np.array(0, object)) for port in facts.starts}
    values |= {port.name: Value(axes(port, rows), number=np.array(steps, object)) for port in facts.lengths}
    for each in facts.carried:
        given = frozenset[str]() if facts.one_step else frozenset({each.given.name})
        values[each.given.name] = Value(axes(each.given, rows), live=True, given=given)
    return values


def axes(port: Port, rows: Axis = (ROWS,)) -> tuple[Axis, ...]:
    """The axes of an input, as `Port.shape` orders them."""
    found = [plain(n) for n in port.row]
    inserted = [] if port.batch is None else [(port.batch, rows)]
    if port.time is not None and not port.block:
        inserted.append((port.time, (TIME,)))
    for place, axis in sorted(inserted, key=lambda pair: pair[0]):
        found.insert(place, axis)
    if port.time is not None and port.block:
        found[port.time] = (Time(port.block),)
    return tuple(found)


def _of_output(value: Value, port: Port) -> Finding | None:
    """Where an output has its steps and rows is known from running; the reading must have them there too."""
    if value.finding or value.reaching or not (value.live or value.varies):
        return value.finding or value.reaching
    whose = (port.name, f"output '{port.name}'")
    if value.varies:
        return Finding("unknown", *whose, value.varies)
    along = {axis for axis, factors in enumerate(value.axes) if has_time(factors)}
    rows = {axis for axis, factors in enumerate(value.axes) if has_rows(factors)}
    if (
        along != _place(port.time)
        or not rows <= _place(port.batch)
        or any(len(value.axes[i]) > 1 for i in along | rows)
    ):
        return Finding("unknown", *whose, "has its steps or sequences along other axes than it seemed to")
    return None


def _place(axis: int | None) -> set[int]:
    return set() if axis is None else {axis}


def _of_state(value: Value, given: str, facts: Facts) -> Finding | None:
    if value.finding or value.reaching:
        return value.finding or value.reaching
    if facts.one_step or (value.last and value.ends == {given}):
        return None
    return Finding("unknown", given, f"state '{given}'", "is not what a cell ends with, as far as can be read")


class Reader:
    """Applies the rules to the nodes of a graph, one after the other.

    `cut` says what a node makes of its own step, once it is cut to one, of what it makes as the file has it.
    """

    def __init__(self, graph: Graph, kept: frozenset[tuple[str, str]] = frozenset(), cut: Cut | None = None) -> None:
        self._graph, self._kept, self._cut = graph, kept, cut
        self._opset = opset(graph.model)

    def values(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """What is known of every tensor, from what is known of the inputs."""
        values = dict(inputs)
        for tensor in self._graph.model.graph.initializer:
            if tensor.name not in values:
                values[tensor.name] = _initializer(tensor)
        self._follow(self._graph.nodes, values, outermost=True)
        return values

    def _follow(self, nodes: Iterable[onnx.NodeProto], values: dict[str, Value], outermost: bool) -> None:
        for node in nodes:
            results = self._results(node, values, outermost)
            constant = outermost and all(values[name].name or not name for name in node.input if name)
            for name, result in zip(node.output, results, strict=False):
                if name:
                    values[name] = replace(result, name=name) if constant and not result.live else _known(result, name)

    def _results(self, node: onnx.NodeProto, values: Mapping[str, Value], outermost: bool) -> list[Value]:
        inputs = [values[name] if name else None for name in node.input]
        try:
            found = next((value.finding for value in inputs if value and value.finding), None)
            if found:
                return [nothing(found)] * len(node.output)
            return [_reached(each, node) for each in self._applied(node, inputs, values, outermost)]
        except Found as found:
            finding = Finding(found.kind, name_of(node), label(node), found.words, found.advice)
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError, StepgraphError) as error:
            finding = Finding("unknown", name_of(node), label(node), f"is not as its rule expects ({error})")
        return [nothing(finding)] * len(node.output)

    def _applied(
        self, node: onnx.NodeProto, inputs: Sequence[Value | None], values: Mapping[str, Value], outermost: bool
    ) -> Iterator[Value]:
        entry = entry_of(node)
        if entry is None:
            raise Found("unknown", NO_RULE)
        if not entry.lists and any(value and value.listed for value in inputs):
            raise Found("unknown", "takes a list of tensors in a way that is not read")
        call = Call(node, inputs, self._opset, self._constant, self._inner(values), self._kept)
        results = entry.rule(call)
        several = [results] if isinstance(results, Value) else list(results)
        if self._cut and outermost:
            several = list(self._cut(call, several))
        several += [nothing(_unread(node))] * (len(node.output) - len(several))
        yield shapes.counted(call, shapes.numbers(call, several[0]).settled())
        yield from (value.settled() for value in several[1:])

    def _inner(
        self, around: Mapping[str, Value]
    ) -> Callable[[onnx.GraphProto, Mapping[str, Value], bool], list[Value]]:
        """What gives the outputs of a branch or a body; what is of the last step is not of the step a loop is at."""

        def outputs(graph: onnx.GraphProto, given: Mapping[str, Value], steps: bool) -> list[Value]:
            seen = {name: _late(value) for name, value in around.items()} if steps else around
            values = {**seen, **given}
            values |= {tensor.name: replace(_initializer(tensor), name="") for tensor in graph.initializer}
            self._follow(graph.node, values, outermost=False)
            return [values[output.name] for output in graph.output]

        return outputs

    def _constant(self, name: str) -> np.ndarray | None:
        try:
            return self._graph.value(name)
        except Exception:  # noqa: BLE001 # whatever the evaluator cannot compute is not known
            return None


def _known(value: Value, name: str) -> Value:
    return replace(value, origin=name) if value.live and not value.origin and value.timed else value


def _initializer(tensor: onnx.TensorProto) -> Value:
    if prod(tensor.dims) <= shapes.SMALL:
        return shapes.of_array(weights.array(tensor), tensor.name)
    return Value(tuple(plain(n) for n in tensor.dims), name=tensor.name)


def _late(value: Value) -> Value:
    if not value.live or not value.last or value.finding:
        return value
    return nothing(Finding("mixes", value.name, "a loop", "uses the value of the last step at every step"))


def _unread(node: onnx.NodeProto) -> Finding:
    return Finding("unknown", name_of(node), label(node), "returns more than its rule knows")


def _reached(value: Value, node: onnx.NodeProto) -> Value:
    """The value, with this node to blame if it is the first that reaches beyond a step."""
    if not value.far or value.reaching or value.finding:
        return value if value.far or not value.reaching else replace(value, reaching=None)
    if value.back == inf:
        return replace(value, reaching=Finding("mixes", name_of(node), label(node), FIRST))
    far = [f"reaches back {steps(value.back)}"] if value.back > 0 else []
    far += [f"needs {steps(value.ahead)} ahead"] if value.ahead > 0 else []
    return replace(value, reaching=Finding("mixes", name_of(node), label(node), " and ".join(far)))
