"""A guess at which of a file's free axes are batch and which are time. Pure: does not check the guess."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import onnx

from stepgraph.graphs.graph import Graph

_LABELS = 6  # free axes under different names: how many are tried in every way
_MOST_ROWS = 256  # of a step

Dims = Sequence[int | str]


@dataclass(frozen=True)
class Guess:
    """Which free axes are batch, which are time, and how much of a time axis is one step.

    `lead`: so many steps have to come before the first that is answered.
    """

    batch: frozenset[str]
    time: frozenset[str]
    blocks: Mapping[str, int] = field(default_factory=dict)
    lead: int = 0

    def size(self, dim: int | str, batch: int, time: int) -> int:
        if isinstance(dim, int):
            return dim
        return (time + self.lead) * self.blocks.get(dim, 1) if dim in self.time else batch

    def fits(self, dims: Dims, alone: bool) -> bool:
        """Whether an input has at most one time axis, and one batch axis; or, if a batch of one will do, none."""
        batches, times = (sum(d in labels for d in dims) for labels in (self.batch, self.time))
        return times <= 1 and (batches <= 1 if alone else batches == 1)


def guesses(inputs: Mapping[str, Dims], blocks: Mapping[str, int], alone: bool) -> Iterator[Guess]:
    """All that fit the inputs. `blocks`: so much of a free axis is one step, if it is time."""
    labels = free(inputs)
    for are_time in product((False, True), repeat=len(labels)) if len(labels) <= _LABELS else ():
        time = frozenset(d for d, is_time in zip(labels, are_time, strict=True) if is_time)
        guess = Guess(frozenset(labels) - time, time, {d: k for d, k in blocks.items() if d in time})
        if all(guess.fits(dims, alone) for dims in inputs.values()):
            yield guess


def free(inputs: Mapping[str, Dims]) -> list[str]:
    return list(dict.fromkeys(d for dims in inputs.values() for d in dims if isinstance(d, str)))


def dims_of(info: onnx.ValueInfoProto) -> list[int | str]:
    """An input's axes: a size, or a name for a free axis (made up where the file has none)."""
    return [
        d.dim_value if d.HasField("dim_value") else d.dim_param or f"{info.name}[{i}]"
        for i, d in enumerate(info.type.tensor_type.shape.dim)
    ]


def hops(graph: Graph) -> list[int]:
    """By how much the convolutions over one axis together make it shorter, and each of them."""
    found = [a.ints[0] for node in graph.nodes for a in node.attribute if a.name == "strides" and len(a.ints) == 1]
    return [n for n in (math.prod(found), *found) if 1 < n <= _MOST_ROWS]


def strides(graph: Graph) -> list[int]:
    """By how much the slices of a graph together make a sequence shorter, and each of them."""
    slices = (node for node in graph.nodes if node.op_type == "Slice" and len(node.input) > 4)
    steps = (graph.value(node.input[4]) for node in slices)
    found = [int(step) for value in steps if value is not None for step in value if 1 < step <= _MOST_ROWS]
    return [n for n in dict.fromkeys((math.prod(found), *sorted(found, reverse=True))) if 1 < n <= _MOST_ROWS]
