"""Writes the graph of one step of what looks back over steps: rings are inputs and outputs of it. Pure onnx."""

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from stepgraph.graphs.builder import GraphBuilder, rebuilt
from stepgraph.graphs.nodes import copied, opset
from stepgraph.rewriting import generator
from stepgraph.rewriting.rings import OWN, PREFIX, ROWS, Count, Form, Key, Ring, Span, counted, first_of, key_of, young
from stepgraph.rewriting.stepgraph import AGE, STEP


def stepped(
    model: onnx.ModelProto,
    forms: Mapping[str, Form],
    rings: Mapping[Key, Ring],
    types: Mapping[str, np.dtype],
    lead: int = 0,
) -> onnx.ModelProto:
    """A copy in which the nodes that have forms are written for one step, and rings are inputs and outputs.

    `types` are those of the tensors of which the first steps have fewer elements; `lead` steps have no answer.
    """
    writer = _Writer(GraphBuilder(PREFIX, opset(model)), rings, types)
    for node in model.graph.node:
        form = forms.get(first_of(node))
        if form is None:
            writer.g.nodes.append(node)
        else:
            writer.write(node, form)
    copy = copied(model)
    otherwise = max([*young(model.graph.node, forms).values(), lead])
    if otherwise:
        writer.age(otherwise)
        copy.graph.input.append(onnx.ValueInfoProto(name=AGE))
        copy.graph.output.append(onnx.ValueInfoProto(name=f"{AGE}/next"))
    if counted(model.graph.node, forms):
        writer.step()
        copy.graph.input.append(onnx.ValueInfoProto(name=STEP))
        copy.graph.output.append(onnx.ValueInfoProto(name=f"{STEP}/next"))
    ports = [(ring.port(np.dtype(np.float32)), ring.port(np.dtype(np.float32), "/next")) for ring in rings.values()]
    copy.graph.input.extend(onnx.ValueInfoProto(name=given.name) for given, _ in ports)
    copy.graph.output.extend(onnx.ValueInfoProto(name=returned.name) for _, returned in ports)
    return rebuilt(copy, writer.g.nodes, writer.g)


class _Writer:
    def __init__(self, g: GraphBuilder, rings: Mapping[Key, Ring], types: Mapping[str, np.dtype]) -> None:
        self.g, self._rings, self._types = g, rings, types
        self._histories = dict[Key, str]()
        self._masked = dict[Key, str]()

    def age(self, most: int) -> None:
        """Counts the steps of each sequence, up to so many."""
        g = self.g
        one, last = (g.constant([n], np.float32) for n in (1, most))
        g.op_to(f"{AGE}/next", "Min", g.op("Add", AGE, one), last)

    def step(self) -> None:
        """Counts the steps of each sequence without end."""
        self.g.op_to(f"{STEP}/next", "Identity", generator.next_draws(self.g, STEP, np.dtype(np.float32)))

    def _count(self, count: Count) -> str:
        """The whole numbers [own] of a step. One sequence alone."""
        g, whole = self.g, np.dtype(np.int64)
        low, high = (g.reshape(g.cast(part, whole), [1]) for part in g.split(STEP, [1] * generator.DRAWS_SIZE))
        step = g.op("Add", low, g.op("Mul", high, g.constant(np.array([generator.PART]))))
        first = g.op("Mul", step, g.constant(np.array([count.own * count.by])))
        return g.op("Add", first, g.constant(count.start + count.by * np.arange(count.own)))

    def write(self, node: onnx.NodeProto, form: Form) -> None:
        g, copy = self.g, copied(node)
        if form.count and form.count.axis is not None:
            g.op_to(node.output[0], "Gather", node.input[0], self._count(form.count), axis=form.count.axis)
            return
        if form.count:
            kind = helper.np_dtype_to_tensor_dtype(self._types[node.output[0]])
            g.op_to(node.output[0], "Cast", self._count(form.count), to=kind)
            return
        for span in (span for span in form.spans if span.input != OWN):
            copy.input[span.input] = self._taken(node, span)
        for index, value in form.constants.items():
            copy.input[index] = g.constant(value)
        if any(form.less):
            copy.input[1] = g.op("Sub", copy.input[1], g.constant(form.less, np.int64))
        for name, value in form.attributes.items():
            _set(copy, name, value)
        if form.instead is None:
            self._result(node, copy, form)
        else:
            g.op_to(node.output[0], "Identity", copy.input[form.instead])

    def _result(self, node: onnx.NodeProto, copy: onnx.NodeProto, form: Form) -> None:
        g = self.g
        if form.cut or any(form.more) or form.upon:
            copy.output[0] = g.name("whole")
        g.nodes.append(copy)
        if form.upon:
            key = key_of(node, form.spans[0])
            g.op_to(node.output[0], form.upon, copy.output[0], self._before(self._rings[key]))
            self._history(key, self._rings[key])
        if form.cut:
            place, start, count = form.cut
            g.slice(copy.output[0], place, start, start + count, node.output[0])
        if any(form.more):
            g.op_to(node.output[0], "Add", copy.output[0], g.constant(form.more, np.int64))

    def _taken(self, node: onnx.NodeProto, span: Span) -> str:
        """The elements that a step needs."""
        key = key_of(node, span)
        ring = self._rings.get(key)
        tensor, before = (self._late(key, span), 0) if ring is None else (self._history(key, ring), ring.span.back)
        start, end = before + span.first, before + span.last + 1
        if span.there is not None:
            return self._those_there(tensor, span, before, end)
        if (start, end) == (0, before + span.own):
            return tensor
        return self.g.slice(tensor, span.place, start, end)

    def _those_there(self, tensor: str, span: Span, before: int, end: int) -> str:
        """The elements that a step needs, without those from before the sequence. One sequence alone."""
        g = self.g
        begun, own, least = (
            g.constant([[n]], np.float32) for n in (before + (span.there or 0), span.own, before + span.first)
        )
        start = g.op("Max", least, g.op("Sub", begun, g.op("Mul", AGE, own)))
        bounds = (g.constant([n], np.int64) for n in (end, span.place))
        return g.op("Slice", tensor, g.reshape(g.cast(start, np.dtype(np.int64)), [1]), *bounds)

    def _history(self, key: Key, ring: Ring) -> str:
        """The ring and the step's own elements behind it; writes the ring after the step."""
        if key in self._histories:
            return self._histories[key]
        g, span = self.g, ring.span
        given = ring.port(np.dtype(np.float32)).name
        apart = [len(axis) for axis in span.axes] == [1] * len(span.axes)
        before = self._before(ring)
        history = g.op("Concat", before, self._late(key, span), axis=span.place)
        kept = before if span.held else g.slice(history, span.place, span.own, span.own + span.back)
        name = f"{given}/next"
        if apart:
            g.op_to(name, "Identity", kept)
        else:
            g.reshape(kept, ring.sizes, name)
        self._histories[key] = history
        return history

    def _before(self, ring: Ring) -> str:
        """The ring in the axes of its tensor."""
        span, given = ring.span, ring.port(np.dtype(np.float32)).name
        merged = [ROWS if (size := math.prod(axis)) < 0 else size for axis in span.axes]
        merged[span.place] = span.back
        apart = [len(axis) for axis in span.axes] == [1] * len(span.axes)
        before = given if apart else self.g.reshape(given, merged)
        if not span.repeats:
            return before
        first = self.g.slice(ring.tensor, span.place, 0, 1)
        return self.g.op("Where", self._earlier(AGE, 1, span, 1), first, before)

    def _late(self, key: Key, span: Span) -> str:
        """The step's own elements of a tensor, `outside` where the file has none yet."""
        tensor = key[0]
        if not span.since:
            return tensor
        if key not in self._masked:
            g, own = self.g, span.own
            counted = g.op("Mul", AGE, g.constant([own], np.float32))  # [B, 1]
            at = g.op("Add", counted, g.constant(np.arange(own, dtype=np.float32)))  # [B, own]
            outside = g.constant(span.before(self._types[tensor]))
            self._masked[key] = g.op("Where", self._earlier(at, span.since, span, own), outside, tensor)
        return self._masked[key]

    def _earlier(self, at: str, than: int, span: Span, count: int) -> str:
        """Which of so many places [B, count] are before that one, in the axes of a tensor."""
        g = self.g
        missing = g.op("Less", at, g.constant([than], np.float32))
        rows = next((i for i, axis in enumerate(span.axes) if axis == (ROWS,)), None)
        if rows is not None and rows > span.place:
            missing = g.op("Transpose", missing, perm=[1, 0])
        return g.reshape(
            missing, [count if i == span.place else ROWS if i == rows else 1 for i in range(len(span.axes))]
        )


def _set(node: onnx.NodeProto, name: str, value: object) -> None:
    """Gives a node an attribute, or takes it away with None."""
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))
