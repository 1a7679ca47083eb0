"""Rings: the last elements of each tensor that is looked back at, as state. Pure onnx.

A ring holds the elements before those of the step, in their order. Which nodes look back, and how far, is said by a
`Form` for each; `ring_writer` writes them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from stepgraph.graphs.labels import label, name_of
from stepgraph.rewriting import generator
from stepgraph.rewriting.ports import Carried, LoopState, Port
from stepgraph.rewriting.stepgraph import AGE, STEP

PREFIX = "tidegate.rings/"
ROWS = -1  # among the sizes of an axis: as many as there are sequences
OWN = -1  # in place of an input: what the node itself made


@dataclass(frozen=True)
class Span:
    """Which elements of an input a step needs: from `first` to `last` along axis `place`, 0 is the first of the step.

    `axes` are the tensor's for one step, each as the sizes of which it is the product, `own` of them the step's.
    The sequence begins with `begun` elements that depend on no step; those before them are `outside`, and so are the
    first `since` of the steps' own, which the file does not have. With `there`, the first steps get fewer elements:
    none from before that one, which is counted from the first of the first step. If it `repeats`, all that stands
    before the first step is the first element of that step again; if that is `held`, it never becomes another.
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
    there: int | None = None
    repeats: bool = False
    held: bool = False

    @property
    def back(self) -> int:
        return max(0, -self.first)

    @property
    def asks(self) -> int:
        """Up to which step it depends on a sequence's age which elements are there; 0: on none."""
        if self.there is not None:
            return -(-(self.there - self.first) // self.own)
        return max(-(-self.since // self.own), int(self.repeats and self.back > 0))

    def before(self, dtype: np.dtype) -> np.ndarray:
        """`outside` as a number of the tensor's type, which may have none so low."""
        if dtype.kind not in "iuf":
            return np.array(self.outside, dtype)
        kind = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        return np.array(max(self.outside, float(kind.min)), dtype)


@dataclass(frozen=True)
class Count:
    """Whole numbers that count along the steps: `own` for each, from `start` on, `by` apart.

    `axis`: they are places along that axis of a table; None: they are the result.
    """

    start: int
    by: int
    own: int
    axis: int | None = None


@dataclass(frozen=True)
class Form:
    """How a node is written for one step.

    `instead`: the node only moves elements along time, so what it needs of that input is its result. `attributes` and
    `constants` (inputs by index) replace the node's; `less` is taken from its second input, a shape, and `more` added
    to its result, which is one; `cut` keeps a part of an axis of its result: the axis, from where, how many. With
    `upon`, an operator, its result is joined to the last of what it made before. With `count` it is made of the number
    of the step.
    """

    spans: tuple[Span, ...] = ()
    instead: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[int, np.ndarray] = field(default_factory=dict)
    less: tuple[int, ...] = ()
    more: tuple[int, ...] = ()
    cut: tuple[int, int, int] | None = None
    upon: str = ""
    count: Count | None = None


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
        start = np.full(shape, span.before(held.dtype))
        if span.begun and not span.repeats:
            at = sum(len(axis) for axis in span.axes[: span.place])
            flat = np.moveaxis(start, at, 0)
            flat[len(flat) - len(begun) :] = begun.reshape(len(begun), *flat.shape[1:])
        return start.reshape(self.port(held.dtype).row)


Key = tuple[str, int, float, int, bool]


def found(nodes: Iterable[onnx.NodeProto], forms: Mapping[str, Form]) -> dict[Key, Ring]:
    """The rings that these nodes need: one for each tensor, as long as what looks back furthest needs it."""
    rings = dict[Key, Ring]()
    for node in nodes:
        form = forms.get(first_of(node))
        for span in form.spans if form else ():
            key = key_of(node, span)
            if span.back and (key not in rings or rings[key].span.back < span.back):
                rings[key] = Ring(key[0], span, rings[key].node if key in rings else node)
    return rings


def young(nodes: Iterable[onnx.NodeProto], forms: Mapping[str, Form]) -> dict[str, int]:
    """The tensors of which the first steps have fewer elements, with the number of the first step that has all."""
    spans = [(node, span) for node in nodes if (form := forms.get(first_of(node))) for span in form.spans]
    asked = [(key_of(node, span)[0], span.asks) for node, span in spans if span.asks]
    return {tensor: max(asks for other, asks in asked if other == tensor) for tensor, _ in asked}


def counted(nodes: Iterable[onnx.NodeProto], forms: Mapping[str, Form]) -> list[str]:
    """The tensors that are made of the number of the step."""
    return [name for node in nodes if (name := first_of(node)) in forms and forms[name].count]


def states(
    rings: Mapping[Key, Ring],
    held: Mapping[str, np.ndarray],
    young: Mapping[str, int],
    counted: Sequence[str],
    lead: int,
) -> tuple[LoopState, ...]:
    """The rings as states; `held` are their tensors in a run of the file, of one sequence."""
    age = [_age(young, lead)] if young or lead else []
    return (*_kept(rings, held), *age, *([_step(counted)] if counted else []))


def _step(counted: Sequence[str]) -> LoopState:
    size = generator.DRAWS_SIZE
    ports = (Port(name, np.dtype(np.float32), (size,), 0, None) for name in (STEP, f"{STEP}/next"))
    return LoopState(Carried(*ports), np.zeros(size, np.float32), f"what counts steps ('{counted[0]}')", STEP)


def _age(young: Mapping[str, int], lead: int) -> LoopState:
    ports = (Port(name, np.dtype(np.float32), (1,), 0, None) for name in (AGE, f"{AGE}/next"))
    first = f"what is otherwise in the first steps ('{next(iter(young))}')" if young else "what the first steps lack"
    return LoopState(Carried(*ports), np.zeros(1, np.float32), first, AGE, max([*young.values(), lead]))


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


def key_of(node: onnx.NodeProto, span: Span) -> Key:
    tensor = node.output[0] if span.input == OWN else node.input[span.input]
    return tensor, span.place, span.outside, span.since, span.held


def first_of(node: onnx.NodeProto) -> str:
    return next(filter(None, node.output), "")


def all_bytes(rings: Iterable[Ring]) -> int:
    return sum(ring.bytes for ring in rings)
