"""What looks back over steps, cut to one step: the last elements of each tensor that is looked back at become state.

Such a ring holds the elements before those of the step, in their order. Pure onnx; which nodes look back, and how far,
is said by a `Form` for each.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from stepgraph.graphs.builder import GraphBuilder, copied, opset, rebuilt
from stepgraph.graphs.labels import label, name_of
from stepgraph.rewriting.ports import Carried, LoopState, Port

_PREFIX = "tidegate.rings/"
ROWS = -1  # among the sizes of an axis: as many as there are sequences


@dataclass(frozen=True)
class Span:
    """Which elements of an input a step needs: from `first` to `last` along axis `place`, 0 is the first of the step.

    `axes` are the tensor's for one step, each as the sizes of which it is the product, `own` of them the step's.
    The sequence begins with `begun` elements that depend on no step; those before them are `outside`.
    """

    input: int
    place: int
    first: int
    last: int
    own: int
    axes: tuple[tuple[int, ...], ...]
    begun: int = 0
    outside: float = 0.0

    @property
    def back(self) -> int:
        return max(0, -self.first)


@dataclass(frozen=True)
class Form:
    """How a node is written for one step.

    `instead`: the node only moves elements along time, so what it needs of that input is its result. `attributes` and
    `constants` (inputs by index) replace the node's; `less` is taken from its second input, a shape, and `more` added
    to its result, which is one; `cut` keeps a part of an axis of its result: the axis, from where, how many.
    """

    spans: tuple[Span, ...] = ()
    instead: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[int, np.ndarray] = field(default_factory=dict)
    less: tuple[int, ...] = ()
    more: tuple[int, ...] = ()
    cut: tuple[int, int, int] | None = None


@dataclass(frozen=True, eq=False)
class Ring:
    """The last elements of a tensor along an axis, and the node that is the first to look back at them."""

    tensor: str
    span: Span
    node: onnx.NodeProto

    @property
    def sizes(self) -> list[int]:
        """The sizes of the ring, with all factors of the tensor's axes apart."""
        return [
            n for i, axis in enumerate(self.span.axes) for n in ((self.span.back,) if i == self.span.place else axis)
        ]

    @property
    def bytes(self) -> int:
        return 4 * abs(math.prod(self.sizes))

    def port(self, dtype: np.dtype, ending: str = "") -> Port:
        sizes = self.sizes
        batch = sizes.index(ROWS) if ROWS in sizes else None
        name = f"{name_of(self.node)}/ring.{self.span.input}{ending}"
        return Port(name, dtype, tuple(n for n in sizes if n != ROWS), batch, None)

    def start(self, held: np.ndarray) -> np.ndarray:
        """What it holds before the first step, in the shape of its port's row; `held`: the tensor for one sequence."""
        span = self.span
        begun = np.moveaxis(held, span.place, 0)[: span.begun][-span.back :] if span.begun else held[:0]
        shape = [1 if n == ROWS else n for n in self.sizes]
        start = np.full(shape, span.outside, held.dtype)
        if span.begun:
            at = sum(len(axis) for axis in span.axes[: span.place])
            flat = np.moveaxis(start, at, 0)
            flat[len(flat) - len(begun) :] = begun.reshape(len(begun), *flat.shape[1:])
        return start.reshape(self.port(held.dtype).row)


Key = tuple[str, int, float]


def found(nodes: Iterable[onnx.NodeProto], forms: Mapping[str, Form]) -> dict[Key, Ring]:
    """The rings that these nodes need: one for each tensor, as long as what looks back furthest needs it."""
    rings = dict[Key, Ring]()
    for node in nodes:
        form = forms.get(_first(node))
        for span in form.spans if form else ():
            key = _key(node, span)
            if span.back and (key not in rings or rings[key].span.back < span.back):
                rings[key] = Ring(node.input[span.input], span, rings[key].node if key in rings else node)
    return rings


def states(rings: Mapping[Key, Ring], held: Mapping[str, np.ndarray]) -> tuple[LoopState, ...]:
    """The rings as states; `held` are their tensors in a run of the file, of one sequence."""
    return tuple(
        LoopState(
            Carried(ring.port(held[ring.tensor].dtype), ring.port(held[ring.tensor].dtype, "/next")),
            ring.start(held[ring.tensor]),
            label(ring.node),
            ring.tensor,
            -(-ring.span.back // ring.span.own),
        )
        for ring in rings.values()
    )


def stepped(model: onnx.ModelProto, forms: Mapping[str, Form], rings: Mapping[Key, Ring]) -> onnx.ModelProto:
    """A copy in which the nodes that have forms are written for one step, and rings are inputs and outputs."""
    writer = _Writer(GraphBuilder(_PREFIX, opset(model)), rings)
    for node in model.graph.node:
        form = forms.get(_first(node))
        if form is None:
            writer.g.nodes.append(node)
        else:
            writer.write(node, form)
    copy = copied(model)
    ports = [(ring.port(np.dtype(np.float32)), ring.port(np.dtype(np.float32), "/next")) for ring in rings.values()]
    copy.graph.input.extend(onnx.ValueInfoProto(name=given.name) for given, _ in ports)
    copy.graph.output.extend(onnx.ValueInfoProto(name=returned.name) for _, returned in ports)
    return rebuilt(copy, writer.g.nodes, writer.g)


class _Writer:
    def __init__(self, g: GraphBuilder, rings: Mapping[Key, Ring]) -> None:
        self.g, self._rings = g, rings
        self._histories = dict[Key, str]()

    def write(self, node: onnx.NodeProto, form: Form) -> None:
        g, copy = self.g, copied(node)
        for span in form.spans:
            copy.input[span.input] = self._taken(node, span)
        for index, value in form.constants.items():
            copy.input[index] = g.constant(value)
        if any(form.less):
            copy.input[1] = g.op("Sub", copy.input[1], g.constant(np.array(form.less, np.int64)))
        for name, value in form.attributes.items():
            _set(copy, name, value)
        if form.instead is not None:
            g.op_to(node.output[0], "Identity", copy.input[form.instead])
            return
        if form.cut or any(form.more):
            copy.output[0] = g.name("whole")
        g.nodes.append(copy)
        if form.cut:
            place, start, count = form.cut
            g.slice(copy.output[0], place, start, start + count, node.output[0])
        if any(form.more):
            g.op_to(node.output[0], "Add", copy.output[0], g.constant(np.array(form.more, np.int64)))

    def _taken(self, node: onnx.NodeProto, span: Span) -> str:
        """The elements that a step needs."""
        key = _key(node, span)
        ring = self._rings.get(key)
        tensor, before = (node.input[span.input], 0) if ring is None else (self._history(key, ring), ring.span.back)
        start, end = before + span.first, before + span.last + 1
        if (start, end) == (0, before + span.own):
            return tensor
        return self.g.slice(tensor, span.place, start, end)

    def _history(self, key: Key, ring: Ring) -> str:
        """The ring and the step's own elements behind it; writes the ring after the step."""
        if key in self._histories:
            return self._histories[key]
        g, span = self.g, ring.span
        given = ring.port(np.dtype(np.float32)).name
        merged = [math.prod(axis) for axis in span.axes]
        merged = [ROWS if n < 0 else n for n in merged]
        merged[span.place] = span.back
        apart = [len(axis) for axis in span.axes] == [1] * len(span.axes)
        before = given if apart else g.reshape(given, merged)
        history = g.op("Concat", before, ring.tensor, axis=span.place)
        kept = g.slice(history, span.place, span.own, span.own + span.back)
        name = f"{given}/next"
        if apart:
            g.op_to(name, "Identity", kept)
        else:
            g.reshape(kept, ring.sizes, name)
        self._histories[key] = history
        return history


def _key(node: onnx.NodeProto, span: Span) -> Key:
    return node.input[span.input], span.place, span.outside


def _first(node: onnx.NodeProto) -> str:
    return next(filter(None, node.output), "")


def _set(node: onnx.NodeProto, name: str, value: object) -> None:
    """Gives a node an attribute, or takes it away with None."""
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))


def all_bytes(rings: Iterable[Ring]) -> int:
    return sum(ring.bytes for ring in rings)
