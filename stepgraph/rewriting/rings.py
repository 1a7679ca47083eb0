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
OWN = -1  # in place of an input: what the node itself made
AGE = f"{_PREFIX}age"  # how many steps a sequence has taken, up to the last that a node asks about


@dataclass(frozen=True)
class Span:
    """Which elements of an input a step needs: from `first` to `last` along axis `place`, 0 is the first of the step.

    `axes` are the tensor's for one step, each as the sizes of which it is the product, `own` of them the step's.
    The sequence begins with `begun` elements that depend on no step; those before them are `outside`, and so are the
    first `since` of the steps' own, which the file does not have.
    """

    input: int
    place: int
    first: int
    last: int
    own: int
    axes: tuple[tuple[int, ...], ...]
    begun: int = 0
    outside: float = 0.0
    since: int = 0

    @property
    def back(self) -> int:
        return max(0, -self.first)


@dataclass(frozen=True)
class Form:
    """How a node is written for one step.

    `instead`: the node only moves elements along time, so what it needs of that input is its result. `attributes` and
    `constants` (inputs by index) replace the node's; `less` is taken from its second input, a shape, and `more` added
    to its result, which is one; `cut` keeps a part of an axis of its result: the axis, from where, how many. With
    `upon`, an operator, its result is joined to the last of what it made before.
    """

    spans: tuple[Span, ...] = ()
    instead: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[int, np.ndarray] = field(default_factory=dict)
    less: tuple[int, ...] = ()
    more: tuple[int, ...] = ()
    cut: tuple[int, int, int] | None = None
    upon: str = ""


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
        of = "own" if self.span.input == OWN else self.span.input
        name = f"{name_of(self.node)}/ring.{of}{ending}"
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


Key = tuple[str, int, float, int]


def found(nodes: Iterable[onnx.NodeProto], forms: Mapping[str, Form]) -> dict[Key, Ring]:
    """The rings that these nodes need: one for each tensor, as long as what looks back furthest needs it."""
    rings = dict[Key, Ring]()
    for node in nodes:
        form = forms.get(_first(node))
        for span in form.spans if form else ():
            key = _key(node, span)
            if span.back and (key not in rings or rings[key].span.back < span.back):
                rings[key] = Ring(key[0], span, rings[key].node if key in rings else node)
    return rings


def late(nodes: Iterable[onnx.NodeProto], forms: Mapping[str, Form]) -> dict[str, int]:
    """The tensors whose first elements the file does not have, with the number of the first step that it has."""
    spans = [(node, span) for node in nodes if (form := forms.get(_first(node))) for span in form.spans]
    return {_key(node, span)[0]: -(-span.since // span.own) for node, span in spans if span.since}


def states(rings: Mapping[Key, Ring], held: Mapping[str, np.ndarray], late: Mapping[str, int]) -> tuple[LoopState, ...]:
    """The rings as states; `held` are their tensors in a run of the file, of one sequence."""
    return (*_kept(rings, held), *([_age(late)] if late else []))


def _age(late: Mapping[str, int]) -> LoopState:
    ports = (Port(name, np.dtype(np.float32), (1,), 0, None) for name in (AGE, f"{AGE}/next"))
    first = f"what begins later than the first step ('{next(iter(late))}')"
    return LoopState(Carried(*ports), np.zeros(1, np.float32), first, AGE, max(late.values()))


def _kept(rings: Mapping[Key, Ring], held: Mapping[str, np.ndarray]) -> tuple[LoopState, ...]:
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


def stepped(
    model: onnx.ModelProto, forms: Mapping[str, Form], rings: Mapping[Key, Ring], types: Mapping[str, np.dtype]
) -> onnx.ModelProto:
    """A copy in which the nodes that have forms are written for one step, and rings are inputs and outputs.

    `types` are those of the tensors that begin late.
    """
    writer = _Writer(GraphBuilder(_PREFIX, opset(model)), rings, types)
    for node in model.graph.node:
        form = forms.get(_first(node))
        if form is None:
            writer.g.nodes.append(node)
        else:
            writer.write(node, form)
    copy = copied(model)
    after = late(model.graph.node, forms)
    if after:
        writer.age(max(after.values()))
        copy.graph.input.append(onnx.ValueInfoProto(name=AGE))
        copy.graph.output.append(onnx.ValueInfoProto(name=f"{AGE}/next"))
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
        one, last = (g.constant(np.array([n], np.float32)) for n in (1, most))
        g.op_to(f"{AGE}/next", "Min", g.op("Add", AGE, one), last)

    def write(self, node: onnx.NodeProto, form: Form) -> None:
        g, copy = self.g, copied(node)
        for span in (span for span in form.spans if span.input != OWN):
            copy.input[span.input] = self._taken(node, span)
        for index, value in form.constants.items():
            copy.input[index] = g.constant(value)
        if any(form.less):
            copy.input[1] = g.op("Sub", copy.input[1], g.constant(np.array(form.less, np.int64)))
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
            key = _key(node, form.spans[0])
            g.op_to(node.output[0], form.upon, copy.output[0], self._before(self._rings[key]))
            self._history(key, self._rings[key])
        if form.cut:
            place, start, count = form.cut
            g.slice(copy.output[0], place, start, start + count, node.output[0])
        if any(form.more):
            g.op_to(node.output[0], "Add", copy.output[0], g.constant(np.array(form.more, np.int64)))

    def _taken(self, node: onnx.NodeProto, span: Span) -> str:
        """The elements that a step needs."""
        key = _key(node, span)
        ring = self._rings.get(key)
        tensor, before = (self._late(key, span), 0) if ring is None else (self._history(key, ring), ring.span.back)
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
        apart = [len(axis) for axis in span.axes] == [1] * len(span.axes)
        history = g.op("Concat", self._before(ring), self._late(key, span), axis=span.place)
        kept = g.slice(history, span.place, span.own, span.own + span.back)
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
        return given if apart else self.g.reshape(given, merged)

    def _late(self, key: Key, span: Span) -> str:
        """The step's own elements of a tensor, `outside` where the file has none yet."""
        tensor = key[0]
        if not span.since:
            return tensor
        if key not in self._masked:
            g, own = self.g, span.own
            counted = g.op("Mul", AGE, g.constant(np.array([own], np.float32)))  # [B, 1]
            at = g.op("Add", counted, g.constant(np.arange(own, dtype=np.float32)))  # [B, own]
            missing = g.op("Less", at, g.constant(np.array([span.since], np.float32)))
            rows = next((i for i, axis in enumerate(span.axes) if axis == (ROWS,)), None)
            if rows is not None and rows > span.place:
                missing = g.op("Transpose", missing, perm=[1, 0])
            shape = [own if i == span.place else ROWS if i == rows else 1 for i in range(len(span.axes))]
            outside = g.constant(np.array(span.outside, self._types[tensor]))
            self._masked[key] = g.op("Where", g.reshape(missing, shape), outside, tensor)
        return self._masked[key]


def _key(node: onnx.NodeProto, span: Span) -> Key:
    tensor = node.output[0] if span.input == OWN else node.input[span.input]
    return tensor, span.place, span.outside, span.since


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
