"""How tensors of one step are computed, as sums and products, whatever moves or reshapes them between. Pure onnx.

Knows no cell: what a kind of cell looks like stands with its equations.
"""

from collections.abc import Iterator

import numpy as np
import onnx

from stepgraph.graphs.graph import Graph

# they leave the numbers of a step as they are: what a loop picks of its input is the step
_SAME = frozenset({"Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze"})


class Equations:
    """A graph of one step. What is found in it may be wrong, where something else than the step was picked."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = Graph(model)

    def whole(self, tensor: str) -> str:
        """The tensor whose numbers a tensor holds."""
        makers = self._graph.makers
        while tensor in makers and makers[tensor].op_type in _SAME:
            tensor = makers[tensor].input[0]
        return tensor

    def of(self, operator: str, tensor: str) -> tuple[str, ...]:
        """What an operator made a tensor of; () if another made it."""
        node = self._graph.makers.get(self.whole(tensor))
        return tuple(map(self.whole, node.input)) if node is not None and node.op_type == operator else ()

    def two(self, operator: str, tensor: str) -> list[tuple[str, str]]:
        """What a tensor is the sum or product of, in both orders."""
        of = self.of(operator, tensor)
        return [(of[0], of[1]), (of[1], of[0])] if len(of) == 2 else []

    def kept(self, state: str, tensor: str) -> Iterator[tuple[str, str]]:
        """Of a tensor that is p * state + rest: p and rest."""
        for product, rest in self.two("Add", tensor):
            yield from ((p, rest) for p, other in self.two("Mul", product) if other == state)

    def are_one(self, p: str, q: str) -> bool:
        """Whether two tensors are z and 1 - z."""
        return self._is_rest(p, q) or self._is_rest(q, p)

    def _is_rest(self, rest: str, z: str) -> bool:
        of, a = self.of("Sub", rest), self.of("Sigmoid", rest)
        if of and of[1] == z and self._is_one(of[0]):
            return True
        if any(self.of("Neg", less) == (z,) and self._is_one(one) for less, one in self.two("Add", rest)):
            return True
        return bool(a) and bool(less := self.of("Neg", a[0])) and self.of("Sigmoid", z) == less

    def _is_one(self, tensor: str) -> bool:
        value = self._graph.value(tensor)
        return value is not None and bool(np.all(value == 1))

    def sees(self, state: str, *tensors: str) -> bool:
        """Whether tensors are made of a state."""
        return state in self._graph.made_of(*tensors)
