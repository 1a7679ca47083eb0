"""Writes ONNX nodes as formulas. Knows operators and names, nothing of recurrence."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike
from onnx import helper, numpy_helper

from stepgraph.graphs import weights
from stepgraph.graphs.nodes import refill

Part = tuple[str, Sequence[np.ndarray]]  # a tensor [B, K] times a weight [K, N], of which blocks stand side by side


class GraphBuilder:
    """Collects nodes and constants under names that begin with `prefix`, which no other name in the graph may do.

    `opset` is the version of the default operator domain that the nodes must be valid in (7 or later). Large constants
    are put into `kept`, if it is given, to be kept as long as the graph is used.
    """

    def __init__(self, prefix: str, opset: int, kept: list[np.ndarray] | None = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._prefix = prefix
        self._opset = opset
        self._kept = kept
        self._names = itertools.count()

    def name(self, hint: str) -> str:
        return f"{self._prefix}{hint}.{next(self._names)}"

    def op(self, operator: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401 # whatever ONNX has
        """Adds a node with one output; returns the output's name."""
        return self.op_to(self.name(operator), operator, *inputs, **attributes)

    def op_to(self, output: str, operator: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401 # whatever ONNX has
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"{output}:node", **attributes))
        return output

    def constant(self, value: ArrayLike, dtype: DTypeLike | None = None) -> str:
        """Adds a tensor of this value, of the type of an array that is given if no other is asked for."""
        name = self.name("constant")
        array = np.asarray(value, dtype, order="C")
        if self._kept is None or array.nbytes < weights.LARGE or array.dtype.kind == "V":  # bfloat16 cannot lie beside
            self.constants.append(numpy_helper.from_array(array, name))
        else:
            self.constants.append(weights.beside(array, name))
            self._kept.append(array)
        return name

    def cast(self, tensor: str, dtype: np.dtype) -> str:
        return self.op("Cast", tensor, to=helper.np_dtype_to_tensor_dtype(dtype))

    def free_cast(self, tensor: str, dtype: np.dtype) -> str:
        """The same, and a rounding to half that is undone at once may be left out.

        onnxruntime computes most of half precision in single, between casts that it adds itself and knows by their
        names; a pair of them that meet it takes away. So it does with this one.
        """
        output = self.name("Cast")
        kind = helper.np_dtype_to_tensor_dtype(dtype)
        self.nodes.append(helper.make_node("Cast", [tensor], [output], f"InsertedPrecisionFreeCast_{output}", to=kind))
        return output

    def clip(self, tensor: str, bound: float, dtype: np.dtype) -> str:
        """Bounds a tensor of type `dtype` to [-bound, bound]."""
        bound = min(bound, float(np.finfo(dtype).max))
        if dtype == np.float64 and self._opset < 12:  # onnxruntime has no Clip for it there
            above = self.op("Relu", self.op("Sub", tensor, self.constant(bound, dtype)))
            below = self.op("Relu", self.op("Sub", self.constant(-bound, dtype), tensor))
            return self.op("Add", self.op("Sub", tensor, above), below)
        if self._opset < 11:  # the bounds became inputs then
            return self.op("Clip", tensor, min=-bound, max=bound)
        return self.op("Clip", tensor, *(self.constant(b, dtype) for b in (-bound, bound)))

    def reshape(self, tensor: str, shape: Sequence[int], output: str | None = None) -> str:
        """`shape` may hold one -1."""
        return self.op_to(output or self.name("Reshape"), "Reshape", tensor, self.constant(shape, np.int64))

    def rows(self, row: str, like: str) -> str:
        """Repeats [1, n] to as many rows as the tensor `like` has."""
        zero, one = (self.constant([i], np.int64) for i in (0, 1))
        count = self.op("Gather", self.op("Shape", like), zero)
        return self.op("Tile", row, self.op("Concat", count, one, axis=0))

    def slice(self, tensor: str, axis: int, start: int, end: int, output: str | None = None) -> str:
        """The elements from `start` up to `end` along an axis."""
        output = output or self.name("Slice")
        if self._opset < 10:  # the bounds became inputs then
            return self.op_to(output, "Slice", tensor, starts=[start], ends=[end], axes=[axis])
        bounds = (self.constant([n], np.int64) for n in (start, end, axis))
        return self.op_to(output, "Slice", tensor, *bounds)

    def squeeze(self, tensor: str, axis: int) -> str:
        return self._axes("Squeeze", tensor, axis, None)

    def unsqueeze(self, tensor: str, axis: int, output: str | None = None) -> str:
        return self._axes("Unsqueeze", tensor, axis, output)

    def total(self, tensor: str, axis: int) -> str:
        """The sum along an axis, which is gone then."""
        return self._axes("ReduceSum", tensor, axis, None, keepdims=0)

    def largest(self, tensor: str) -> str:
        """The largest magnitude along the last axis, which becomes 1."""
        return self._axes("ReduceMax", self.op("Abs", tensor), -1, None, since=18, keepdims=1)

    def norm(self, tensor: str, axis: int) -> str:
        """The square root of the sum of squares along an axis, which is gone then."""
        return self._axes("ReduceL2", tensor, axis, None, since=18, keepdims=0)

    def _axes(
        self, operator: str, tensor: str, axis: int, output: str | None, since: int = 13, **attributes: int
    ) -> str:
        """`since`: the opset in which the axes became an input."""
        output = output or self.name(operator)
        if self._opset < since:
            return self.op_to(output, operator, tensor, axes=[axis], **attributes)
        return self.op_to(output, operator, tensor, self.constant([axis], np.int64), **attributes)

    def split(self, tensor: str, sizes: Sequence[int]) -> list[str]:
        """Cuts [B, sum(sizes)] into [B, size] each."""
        if len(sizes) == 1:
            return [tensor]
        outputs = [self.name(f"Split{i}") for i in range(len(sizes))]
        if self._opset < 13:  # the sizes became an input then
            node = helper.make_node("Split", [tensor], outputs, axis=1, split=list(sizes))
        else:
            node = helper.make_node("Split", [tensor, self.constant(sizes, np.int64)], outputs, axis=1)
        self.nodes.append(node)
        return outputs

    def concat(self, *tensors: str, output: str | None = None) -> str:
        """Joins [B, n] tensors along their columns."""
        if len(tensors) == 1:
            return tensors[0] if output is None else self.op_to(output, "Identity", *tensors)
        return self.op_to(output or self.name("Concat"), "Concat", *tensors, axis=1)

    def affine(self, parts: Sequence[Part], bias: np.ndarray) -> str:
        """The sum of all parts, plus bias [N]. One Gemm: its rows do not depend on how many there are."""
        tensors, blocks = zip(*parts, strict=True)
        return self.op("Gemm", self.concat(*tensors), self.constant(np.block([*blocks])), self.constant(bias))


def rebuilt(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], g: GraphBuilder) -> onnx.ModelProto:
    """The model, changed to other nodes and with the builder's constants."""
    refill(model.graph.node, nodes)
    model.graph.initializer.extend(g.constants)
    return model
