"""What a file's constants tell of where to look: how many steps it could reach, which numbers it compares with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from stepgraph.cells.kinds import OPERATORS
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.nodes import attributes, with_inner
from stepgraph.graphs.sliding import SLIDING

STEPS = 300  # are compared at least
_MOST_STEPS, _BEYOND = 8_000, 64
_SMALL = 16  # elements of a constant that can be a bound
_LARGEST = 1_000.0  # what is added or taken off and more than that is a mask, no number that an input could have
_COMPARING = frozenset({"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Clip", "Min", "Max"})
_SHIFTING = {"Add": -1.0, "Sub": 1.0}  # where x + 999 or x - 999 is 0 is a threshold, too
_REACHING = frozenset(
    {"Div", "Gather", "GatherElements", "GatherND", "Mod", "Pad", "Range", "Slice", "Split", "TopK", "Trilu"}
)
_LISTS = ("starts", "ends", "pads", "split", "k")  # attributes of theirs in older versions
_KEPT = frozenset(name for name, operator in OPERATORS.items() if operator.kept)  # cells with a weight for each step
_FRAMES = {"STFT": (1, 3)}  # inputs that say how long a frame and its step are


@dataclass(frozen=True)
class Hints:
    """`reach`: how many steps one of the file's constants could reach; `thresholds`: the numbers that it names.

    `rings`: how many steps nodes are known to look back, one after the other.
    """

    reach: int
    thresholds: tuple[float, ...]
    rings: int = 0

    @property
    def steps(self) -> int:
        """How long a sequence has to be to go beyond that reach, and at least some hundreds."""
        return min(max(STEPS, self.least), _MOST_STEPS)

    @property
    def least(self) -> int:
        """How long it has to be to go beyond that reach."""
        return min(max(self.reach, self.rings) + _BEYOND, _MOST_STEPS)


def hints(graph: Graph) -> Hints:
    nodes = list(with_inner(graph.nodes))
    known = _Known(graph, nodes)
    windows, reach, thresholds = 0, 0, set[float]()
    for node in nodes:
        if node.op_type in SLIDING or node.op_type in _FRAMES or node.op_type in _KEPT:
            windows += _window(node, known)
        if node.op_type in _REACHING | _COMPARING:
            numbers = known.numbers(node)
            whole = (abs(int(number)) for number in numbers if number == int(number) and abs(number) <= _MOST_STEPS)
            reach = max(reach, *whole, 0)
            thresholds.update(numbers if node.op_type in _COMPARING else [])
        elif node.op_type in _SHIFTING:
            numbers = known.numbers(node)
            sign = _SHIFTING[node.op_type]
            thresholds.update(sign * number for number in numbers if len(numbers) == 1 and 1 <= abs(number) <= _LARGEST)
    return Hints(reach + windows, tuple(sorted(thresholds)))


class _Known:
    """The constants of a graph, also of those within it."""

    def __init__(self, graph: Graph, nodes: Sequence[onnx.NodeProto]) -> None:
        self._graph, self._own = graph, dict(_own_constants(nodes))

    def of(self, name: str) -> np.ndarray | None:
        return self._own[name] if name in self._own else self._graph.value(name)

    def numbers(self, node: onnx.NodeProto) -> list[float]:
        """The finite numbers among the small constants that a node is given."""
        known = [self.of(name) for name in node.input if name]
        given = attributes(node)
        known += [np.asarray(given[name]) for name in _LISTS if name in given]
        values = (value for value in known if value is not None and value.size <= _SMALL and value.dtype.kind in "fiu")
        return [float(number) for value in values for number in np.ravel(value) if np.isfinite(number)]


def _window(node: onnx.NodeProto, known: _Known) -> int:
    """From the first to the last element that one element of the answer is made of."""
    given, weight = attributes(node), known.of(node.input[min(1, len(node.input) - 1)])
    if node.op_type in _FRAMES:
        sizes = [known.of(node.input[i]) for i in _FRAMES[node.op_type] if i < len(node.input) and node.input[i]]
        lengths = [int(size.max()) for size in sizes if size is not None and size.size]
        return max([*lengths, weight.shape[-1] if weight is not None and weight.ndim else 0])
    kernel = given.get("kernel_shape") or (list(weight.shape[2:]) if weight is not None and weight.ndim > 2 else [1])
    dilations = given.get("dilations") or [1] * len(kernel)
    return max(int(d) * (int(k) - 1) for k, d in zip(kernel, dilations, strict=True))


def _own_constants(nodes: Sequence[onnx.NodeProto]) -> Iterator[tuple[str, np.ndarray]]:
    for node in nodes:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            yield node.output[0], numpy_helper.to_array(node.attribute[0].t)
