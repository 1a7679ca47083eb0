"""Loops and branches: what runs other graphs, once for each step, or within one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from stepgraph.graphs import weights
from stepgraph.graphs.labels import label
from stepgraph.graphs.nodes import copied, reachable
from stepgraph.rules.axes import TIME, Axis, axis_of, has_rows, has_time, plain
from stepgraph.rules.sequences import Buffer, appended, buffer_of, listed, source
from stepgraph.rules.size import ITERATION, Size, at_least
from stepgraph.rules.table import Call, rule
from stepgraph.rules.value import (
    COUNTED,
    Finding,
    Value,
    broadcast,
    joined,
    mixes,
    mixes_rows,
    nothing,
    unknown,
    varying,
)

_ENDLESS = "runs until the data end it"


@rule("If", says="local where both branches are; unknown where the data of one step decide for others", lists=True)
def branch(call: Call) -> list[Value]:
    condition, run = call.value(), call.within
    assert run is not None
    taken = call.number(0)
    branches = [call.attributes[name] for name in ("then_branch", "else_branch")]
    if taken is not None and not isinstance(taken.flat[0], Size):
        return list(run(branches[0 if taken.flat[0] else 1], {}, False))
    if condition.live and (condition.last or condition.far):
        raise unknown("is decided by data of one step for all of them")
    results = [run(graph, {}, False) for graph in branches]
    if any(value.listed for values in results for value in values):
        raise unknown("chooses between lists of tensors")
    return [_either(condition, a, b) for a, b in zip(*results, strict=True)]


def _either(condition: Value, a: Value, b: Value) -> Value:
    for value in (a, b):
        if value.finding:
            return value
    if a.shape != b.shape or a.given or b.given:
        raise unknown("has branches that differ in shape")
    return joined([replace(condition, axes=(), number=None), a, b], broadcast([a, b]))


@rule("Scan", says="recurrence, if it runs over steps and forward; local, if it runs over features")
def scan(call: Call) -> list[Value]:
    if call.opset < 9:
        raise unknown("is of a version that is not read")
    count = call.attributes["num_scan_inputs"]
    if any(call.attributes.get("scan_input_directions", [])) or any(call.attributes.get("scan_output_directions", [])):
        raise mixes("runs backwards over the steps")
    states, taken = call.all[: len(call.all) - count], call.all[len(call.all) - count :]
    given = call.attributes.get("scan_input_axes", [0] * count)
    axes = {value.axes[axis] for value, axis in zip(taken, given, strict=True)}
    if len(axes) != 1:
        raise unknown("runs over axes that differ")
    along = axes.pop()
    slices = [_slice(value, axis, along) for value, axis in zip(taken, given, strict=True)]
    body = _Loop(call, states, along)
    return _collected(body.results((), slices), body, call.attributes.get("scan_output_axes"), along)


@rule("Loop", says="recurrence, if it runs once for each step; local, if it runs within one", lists=True)
def loop(call: Call) -> list[Value]:
    states = [value for value in call.inputs[2:] if value is not None]
    count = _count(call, states)
    along: Axis | None = axis_of(count) if isinstance(count, Size) else plain(int(count))
    if along is None or (call.given(1) and not np.all(call.number(1) or 0)):
        raise unknown("runs as often as cannot be followed")
    if any(value.listed for value in call.all[: len(call.all) - len(states)]):
        raise unknown("runs as often as cannot be followed")
    number = Value((), number=np.array(ITERATION, object) if has_time(along) else None)
    body = _Loop(call, states, along)
    results = body.results((number, Value((), number=np.array(True, object))), ())
    return _collected(results[1:], body, None, along)


def _count(call: Call, states: Sequence[Value]) -> Size | int:
    """How often a loop runs: as it is told, or until a number that it counts up from 0 has reached another."""
    body, limit = call.attributes["body"], call.number(0)
    bounds = [] if limit is None else [limit.item()]
    makers = {name: node for node in body.node for name in node.output}
    names = [body.output[0].name]
    while names:
        name = names.pop()
        if name == body.input[1].name or _always(call, name, makers):
            continue
        node = makers.get(name)
        if node is None or node.op_type not in ("And", "Cast", "Identity", "Less"):
            raise unknown(_ENDLESS)
        if node.op_type == "Less":
            bounds.append(_counted(call, states, node))
        else:
            names.extend(node.input)
    least = next((bound for bound in bounds if all(at_least(other, bound) for other in bounds)), None)
    if least is None:
        raise unknown(_ENDLESS)
    return least if isinstance(least, Size) else int(least)


def _always(call: Call, name: str, makers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether a condition is a constant of the body, or of the graph around it, that is true."""
    body = call.attributes["body"]
    own = {info.name for info in body.input} | {tensor.name for tensor in body.initializer}
    if name not in makers and name not in own:
        assert call.within is not None
        (value,) = call.within(onnx.GraphProto(output=[onnx.ValueInfoProto(name=name)]), {}, False)
        return not value.live and value.number is not None and value.number.size == 1 and value.number.item() is True
    constants = {node.output[0]: node.attribute[0].t for node in body.node if node.op_type == "Constant"}
    constants |= {tensor.name: tensor for tensor in body.initializer}
    return name in constants and bool(np.all(weights.array(constants[name])))


def _counted(call: Call, states: Sequence[Value], less: onnx.NodeProto) -> Size | int:
    """After how many iterations a counter has reached the number that it is compared with."""
    counted, bound = _at_any(call, states, less.input)
    if counted is None or bound is None or counted.size * bound.size != 1:
        raise unknown(_ENDLESS)
    found: Size | int = bound.item() - (counted.item() - ITERATION) + 1
    return found


def _at_any(call: Call, states: Sequence[Value], names: Sequence[str]) -> list[np.ndarray | None]:
    """The numbers that tensors of the body hold at any iteration, where they are known."""
    body = call.attributes["body"]
    shown = onnx.GraphProto(node=reachable(body.node, names), initializer=body.initializer)
    shown.output.extend(onnx.ValueInfoProto(name=each) for each in names)
    counter = Value((), number=np.array(ITERATION, object))
    first = [counter, counter] if call.node.op_type == "Loop" else []
    values = [*first, *(_begun(value) for value in states)]
    given = dict(zip((info.name for info in body.input), values, strict=False))
    assert call.within is not None
    return [value.number for value in call.within(shown, given, False)]


def _begun(state: Value) -> Value:
    """A state at any iteration: one that begins at 0 may count them."""
    number = state.number
    if number is None or any(state.axes) or isinstance(number.flat[0], Size):
        return state
    return state if np.any(number) else replace(state, number=np.full(number.shape, ITERATION, object), name="")


def _slice(value: Value, axis: int, along: Axis) -> Value:
    rest = (*value.axes[:axis], *value.axes[axis + 1 :])
    return replace(value, axes=rest, last=value.live and has_time(along), number=None, name="")


class _Loop:
    """A loop along an axis, of which one iteration stands for all of them."""

    def __init__(self, call: Call, states: Sequence[Value], along: Axis) -> None:
        if has_rows(along):
            raise mixes_rows("runs over the sequences of a batch")
        self._timed = has_time(along)
        if self._timed and along != (TIME,):
            raise unknown("runs over an axis that is not of steps alone")
        body = call.attributes["body"]
        self._skipped = 1 if call.node.op_type == "Loop" else 0
        self._names = [info.name for info in body.input]
        self._call, self._body, self.states = call, body, states
        first = 2 * self._skipped
        self._own = self._names[first : first + len(states)]
        self._unchanged = [
            source(body, o.name) == n for o, n in zip(body.output[self._skipped :], self._own, strict=False)
        ]
        self.buffers = [None if same else self._buffer(i) for i, same in enumerate(self._unchanged)]
        kept = zip(states, self._unchanged, self.buffers, strict=True)
        self._added = [(state.listed and not same) or buffer is not None for state, same, buffer in kept]
        if any(self._added):
            self._body = copied(body)
        for i, buffer in enumerate(self.buffers):
            place, own = i + self._skipped, self._own[i]
            if self._added[i]:
                name = buffer.written if buffer else appended(body, place, own, states[i])
                self._body.output[place].name = name

    def _buffer(self, index: int) -> Buffer | None:
        """Where a state has a place for each step, and each iteration writes the step that it is at."""
        state, body = self.states[index], self._body
        if not self._timed or state.live or state.axes.count((TIME,)) != 1 or state.listed:
            return None
        found = buffer_of(body, self._own[index], body.output[index + self._skipped].name, len(state.axes))
        if found is None or state.axes[found.place] != (TIME,):
            return None
        (at,) = _at_any(self._call, self.states, [found.index])
        return found if at is not None and at.size == 1 and at.item() == ITERATION else None

    def results(self, before: Sequence[Value], after: Sequence[Value]) -> list[Value]:
        """The outputs of an iteration, its states as they are after any number of iterations."""
        run = self._call.within
        assert run is not None
        now = [self._given(*state) for state in zip(self.states, self._own, self._unchanged, self._added, strict=True)]
        for _ in range(3):
            given = dict(zip(self._names, (*before, *now, *after), strict=True))
            results = list(run(self._body, given, self._timed))
            ends = results[self._skipped :][: len(now)]
            rest = zip(now, ends, self._unchanged, self._added, strict=True)
            then = [a if same else b if added else _after(a, b) for a, b, same, added in rest]
            results[self._skipped : self._skipped + len(now)] = then
            rest = zip(now, then, self._unchanged, self._added, strict=True)
            if all(added or a.axes == b.axes or b.finding for a, b, _, added in rest):
                return results
            now = [a if added else b for a, b, added in zip(now, then, self._added, strict=True)]
        raise unknown("carries something whose shape changes from step to step")

    def _given(self, state: Value, name: str, unchanged: bool, added: bool) -> Value:
        """What the body is given of a state at any step."""
        kept = (label(self._call.node), name) in self._call.kept
        if added:
            what = "a list that it adds to" if state.listed else "a buffer that it writes to"
            return nothing(Finding("unknown", name, label(self._call.node), f"reads {what}"))
        if unchanged or state.finding:
            if self._timed and state.last:
                raise mixes("is given the value of the last step at every step")
            return state
        if not self._timed:
            return replace(state, live=True, number=None, name="")
        if state.timed or (state.live and not state.given):
            raise unknown("starts from a state that depends on the data")
        if kept or state.given:
            return replace(state, live=True, last=True, number=None, name="", given=frozenset(), varies="")
        begun = _begun(state)
        return replace(begun, number=None if begun is state else begun.number, name="", varies=COUNTED)


def _after(before: Value, result: Value) -> Value:
    if result.finding:
        return result
    if not before.live:
        number = result.number
        counted = number is not None and number.size == 1 and number.item() == ITERATION + 1
        if result.live or (before.number is not None and not counted):
            raise unknown("carries something that is not kept from step to step")
        return replace(before, axes=result.axes)
    same = replace(result, live=True, last=before.last, number=None, name="", varies="")
    return joined([replace(before, axes=()), same], result.axes)


def _collected(results: Sequence[Value], loop: _Loop, places: Sequence[int] | None, along: Axis) -> list[Value]:
    """What a loop returns, of what an iteration does: its last states, and the rest of all iterations side by side."""
    states = loop.states
    ends = [
        _written(value, buffer, along)
        if buffer
        else listed(_side_by_side(value, 0, along))
        if state.listed and not value.listed
        else replace(_left(value), ends=state.given)
        for value, state, buffer in zip(results, states, loop.buffers, strict=False)
    ]
    each = results[len(states) :]
    return ends + [_side_by_side(v, place, along) for v, place in zip(each, places or [0] * len(each), strict=True)]


def _written(value: Value, buffer: Buffer, along: Axis) -> Value:
    """The buffer after the loop, of what one iteration writes."""
    if value.finding:
        return value
    if value.listed or len(value.axes) != len(buffer.order) or value.axes[0]:
        raise unknown("writes other than one step into a buffer")
    whole = _side_by_side(replace(value, axes=value.axes[1:]), 0, along)
    return replace(whole, axes=tuple(whole.axes[i] for i in buffer.order))


def _side_by_side(value: Value, place: int, along: Axis) -> Value:
    """What a loop returns of all iterations."""
    if value.finding:
        return value
    if value.listed:
        raise unknown("returns a list of lists")
    axes = (*value.axes[:place], along, *value.axes[place:])
    return replace(_left(value), axes=axes, last=value.last and not has_time(along))


def _left(value: Value) -> Value:
    """What is known of a value of the body outside of it, where no iteration is at hand."""
    return replace(value, varies="" if value.live else varying(value), number=None, name="")
