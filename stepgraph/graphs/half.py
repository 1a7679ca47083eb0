"""Keeps the weights of a graph in float16 or bfloat16, and computes with them in float32.

A Cast makes float32 of each, once: onnxruntime computes what depends on no input when it loads a graph. So products
keep their speed and, whoever shares a batch, their bits.
"""

from collections.abc import Mapping
from functools import cache

import numpy as np
import onnx
from onnx import TensorProto

from stepgraph.graphs import weights
from stepgraph.graphs.builder import GraphBuilder
from stepgraph.graphs.nodes import copied

_WEIGHTS = {"MatMul": {"B"}, "Gemm": {"B"}, "Gather": {"data"}}  # by the names of inputs; of others they are W and R
_FEW = 1024  # numbers of a weight that are not worth it


class Half(GraphBuilder):
    """A builder with `dtype` for weights; `narrows` says whether it has written one."""

    narrows = False

    def __init__(self, prefix: str, opset: int, kept: list[np.ndarray], dtype: np.dtype) -> None:
        super().__init__(prefix, opset, kept)
        self._type = dtype
        self._known: dict[str, str | None] = {}

    def weigh(self, node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> None:
        """Writes a node of the graph, with its weights in the narrow type."""
        copy = copied(node)
        for place in () if node.domain else _places(node.op_type):
            narrow = self._narrow(constants.get(node.input[place]))
            if narrow is not None:
                copy.input[place] = narrow if node.op_type == "Gather" else self._wide(narrow)
        self.nodes.append(copy)
        if node.op_type == "Gather" and copy.input[0] != node.input[0]:
            copy.output[0] = self.name("Gather")
            self.op_to(node.output[0], "Cast", copy.output[0], to=TensorProto.FLOAT)

    def _wide(self, narrow: str) -> str:
        return self.cast(narrow, np.dtype(np.float32))

    def _narrow(self, tensor: TensorProto | None) -> str | None:
        """The name of a weight in the narrow type; None if it is small, or holds a number that is too large for it."""
        if tensor is None or tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _FEW:
            return None
        if tensor.name not in self._known:
            with np.errstate(over="ignore"):
                narrow = weights.array(tensor).astype(self._type)
            fits = bool(np.isfinite(narrow).all())
            self._known[tensor.name] = self.constant(narrow) if fits else None
            self.narrows |= fits
        return self._known[tensor.name]


@cache
def _places(operator: str) -> tuple[int, ...]:
    """Which inputs of an operator of the standard are weights."""
    names = _WEIGHTS.get(operator, {"W", "R"})
    inputs = onnx.defs.get_schema(operator).inputs if onnx.defs.has(operator) else ()
    return tuple(at for at, each in enumerate(inputs) if each.name in names)
